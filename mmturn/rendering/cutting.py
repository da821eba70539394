"""Cutting parts out of an earlier completion, on its token ids."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

_THINKING_END = b"</think>"


def _byte_alphabet() -> dict[str, int]:
    """Character of a byte-level BPE vocabulary -> byte. Source: GPT-2's ``bytes_to_unicode``."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    shown = {chr(byte): byte for byte in printable}
    return shown | {chr(256 + number): byte for number, byte in enumerate(others)}


class Cutter:
    """Finds tags in the bytes behind ids. A token that lies on a cut is kept whole: ids are never encoded anew."""

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

    def after_thinking(self, token_ids: Sequence[int]) -> tuple[int, ...]:
        """Without all up to the last ``</think>``, and the newlines after it, as the chat templates do on text; all of
        it where no thinking was closed."""
        parts = [self._bytes(token_id) for token_id in token_ids]
        found = b"".join(parts).rfind(_THINKING_END)
        if found < 0:
            return tuple(token_ids)
        cut, position = found + len(_THINKING_END), 0
        for number, part in enumerate(parts):
            rest = part[max(cut - position, 0) :]
            position += len(part)
            if position > cut and rest.strip(b"\n"):
                return tuple(token_ids[number:])
        return ()

    def block(self, token_ids: Sequence[int], tags: tuple[str, str]) -> tuple[int, ...]:
        """The last block between an opening and a closing tag, with its tags; nothing where none was closed."""
        parts = [self._bytes(token_id) for token_id in token_ids]
        whole, (opening, closing) = b"".join(parts), (tag.encode("utf-8") for tag in tags)
        end = whole.rfind(closing)
        start = whole.rfind(opening, 0, end) if end >= 0 else -1
        if start < 0:
            return ()
        kept, position = [], 0
        for token_id, part in zip(token_ids, parts, strict=True):
            if position < end + len(closing) and position + len(part) > start:
                kept.append(token_id)
            position += len(part)
        return tuple(kept)
