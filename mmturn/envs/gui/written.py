"""Text that a keyboard can write."""

from __future__ import annotations


def writable(text: str) -> str:
    """One line end, and no halves of characters: a keyboard has none. Two halves that belong together are one."""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.replace("\r\n", "\n").replace("\r", "\n")
