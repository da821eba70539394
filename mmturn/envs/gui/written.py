"""Text that a keyboard can write."""

from __future__ import annotations


def writable(text: str) -> str:
    """One line end, and no halves of characters: the keyboard has none."""
    whole = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return whole.replace("\r\n", "\n").replace("\r", "\n")
