"""Cutting the thinking off an earlier completion, on its token ids."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

_END = b"</think>"


def _byte_alphabet() -> dict[str, int]:
    """Character of a byte-level BPE vocabulary -> byte. Source: GPT-2's ``bytes_to_unicode``."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    shown = {chr(byte): byte for byte in printable}
    return shown | {chr(256 + number): byte for number, byte in enumerate(others)}


class ThinkingStripper:
    """Drops all up to the last ``</think>``, and the newlines after it, as the chat templates do on text.

    A token that holds both the tag's end and more than newlines is kept whole: ids are never encoded anew.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._alphabet = _byte_alphabet()
        self._added = {ident: token.content for ident, token in tokenizer.get_added_tokens_decoder().items()}

    def _bytes(self, token_id: int) -> bytes:
        added = self._added.get(token_id)
        if added is not None:
            return added.encode("utf-8")
        name = self._tokenizer.id_to_token(token_id) or ""
        return bytes(self._alphabet[char] for char in name if char in self._alphabet)

    def __call__(self, token_ids: Sequence[int]) -> tuple[int, ...]:
        """The ids that stay; all of them where no thinking was closed."""
        parts = [self._bytes(token_id) for token_id in token_ids]
        found = b"".join(parts).rfind(_END)
        if found < 0:
            return tuple(token_ids)
        cut, position = found + len(_END), 0
        for number, part in enumerate(parts):
            rest = part[max(cut - position, 0) :]
            position += len(part)
            if position > cut and rest.strip(b"\n"):
                return tuple(token_ids[number:])
        return ()
