"""Seeds as hashes of what they belong to, so that a sample does not depend on what else is in its batch."""

from __future__ import annotations

import hashlib


def seed_of(*parts: str | int) -> int:
    """63-bit seed from the given parts; the same parts give the same seed on every machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 1
