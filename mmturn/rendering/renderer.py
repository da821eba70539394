"""Observations -> the token ids that they add to a context, each with its provenance.

The family's chat template is followed piece by piece, so that each turn yields a delta and nothing that was sampled is
ever decoded and encoded again. For completions that the tokenizer would have written itself, the deltas together equal
the template applied to the whole conversation; for others the sampled ids win (``is_canonical`` tells them apart).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from mmturn.errors import CheckpointError
from mmturn.families.spec import Family
from mmturn.interfaces import Message, Said
from mmturn.rendering.cutting import Cutter
from mmturn.types import Observation, View


@dataclass(frozen=True, slots=True)
class Delta:
    """Token ids that a context grows by."""

    token_ids: tuple[int, ...]
    provenance: str
    """One letter per id: t template, o observation text, i image placeholder (see ``types.Provenance``)."""

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a delta: text that is still to be encoded, or ids."""

    content: str | tuple[int, ...]
    kind: str


class Renderer:
    """Renders observations for one family with one tokenizer. Stateless; safe to share between threads."""

    def __init__(self, family: Family, tokenizer: PreTrainedTokenizerFast) -> None:
        """Raises CheckpointError when the tokenizer lacks a token that the family's template needs."""
        self.tokenizer = tokenizer
        # a copy of its own: whether special tokens are matched in text is a state of the backend
        self._plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._plain.encode_special_tokens = True
        self._plain.no_truncation()
        self._plain.no_padding()
        self._special = {
            token.content: ident
            for ident, token in tokenizer.backend_tokenizer.get_added_tokens_decoder().items()
            if token.special
        }
        self.family = _with_video_id(family, self._special)
        self.end_id = self._ident(family.end_token)
        """Ends a completion."""
        self.start_id = self._ident(family.template.start)
        self.image_token_id = self._ident(family.image_token)
        """The placeholder, once per image token."""
        self.vision_start_id = self._ident(family.vision_start)
        self.vision_end_id = self._ident(family.vision_end)
        banned = [token for token in family.banned_tokens if token in self._special]
        self.banned_ids: tuple[int, ...] = tuple(sorted(self._ident(token) for token in banned))
        """Ids that must never be sampled."""
        self._cutter = Cutter(self._plain)

    def _ident(self, token: str) -> int:
        ident = self._special.get(token)
        if ident is None:
            raise CheckpointError(
                f"the tokenizer has no special token {token!r}, which the chat template of the model's family needs"
            )
        return ident

    # ---- text <-> ids

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Ids of plain text. A special token's name within it stays text: data cannot speak for the template."""
        return tuple(self._plain.encode(_sound(text), add_special_tokens=False).ids)

    def encode_completion(self, text: str) -> tuple[int, ...]:
        """Ids that the policy would have written for a text, without the end token."""
        return self.encode_text(text)

    def encode_within(self, before: str, text: str, behind: str) -> tuple[tuple[int, ...], tuple[int, int]]:
        """Ids of ``before + text + behind`` as one completion, and which of them [first, end) have a character of
        ``text``: its neighbours' characters may be in the outer ones too."""
        before, text, behind = map(_sound, (before, text, behind))
        whole, end = before + text + behind, len(before) + len(text)
        encoding = self._plain.encode(whole, add_special_tokens=False)
        spans = _spans(whole, encoding.offsets)
        own = [i for i, span in enumerate(spans) if span[0] < end and span[1] > len(before)]
        return tuple(encoding.ids), (own[0], own[-1] + 1) if own else (0, 0)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of sampled ids, without the end token that closes them; ids that are no token read as nothing."""
        ids = list(token_ids)
        if ids and ids[-1] == self.end_id:
            ids.pop()
        return self._plain.decode(ids, skip_special_tokens=False)

    def decode_one(self, token_id: int) -> str:
        """Text of one id, special ones by name."""
        return self._plain.decode([token_id], skip_special_tokens=False)

    def is_canonical(self, token_ids: Sequence[int]) -> bool:
        """Whether encoding the completion's text would give its ids back."""
        ids = tuple(token_ids)
        ids = ids[:-1] if ids and ids[-1] == self.end_id else ids
        return self.encode_completion(self.decode(ids)) == ids

    def closing(self, finish: Literal["stop", "length", "error"]) -> tuple[int, ...]:
        """What the template adds behind a completion: the end token where it was cut by length, else nothing."""
        return (self.end_id,) if finish == "length" else ()

    # ---- deltas

    def opening(self, system: str, observation: Observation) -> Delta:
        """The context of the first turn: system message (the template's own where it is empty), observation, header."""
        return self._encode([*self._system(system), *self._user(observation), *self._header("assistant")])

    def reply(self, observation: Observation) -> Delta:
        """What follows a completion and its end token: the next observation and the header of the next completion."""
        return self._encode([self._gap(), *self._user(observation), *self._header("assistant")])

    def fresh(self, system: str, messages: Sequence[Message]) -> tuple[Delta, tuple[View, ...]]:
        """A context from its beginning, up to the header of the next completion.

        Earlier completions come from the ids that were sampled. Their tokens count as observation text (``o``): they
        are context here, trained in the row of their own turn.
        Returns the delta and the views behind its placeholders.
        """
        pieces, views = self._system(system), list[View]()
        for message in messages:
            if isinstance(message, Said):
                pieces += [*self._header("assistant"), _Piece(self._earlier(message), "o")]
                pieces += [_Piece((self.end_id,), "t"), self._gap()]
            else:
                pieces += self._user(message)
                views += message.views
        return self._encode([*pieces, *self._header("assistant")]), tuple(views)

    def _earlier(self, said: Said) -> tuple[int, ...]:
        """Ids of an earlier completion as later turns see it, without the end token."""
        turn = said.turn
        ids = self.encode_completion(turn.text) if turn.said is None else turn.said
        if ids and ids[-1] == self.end_id:
            ids = ids[:-1]
        if said.block is not None:
            return self._cutter.block(ids, said.block)
        return self._cutter.after_thinking(ids) if self.family.strips_thinking else ids

    def _system(self, system: str) -> list[_Piece]:
        content = system or self.family.template.default_system
        if not content:
            return []
        return [*self._header("system"), _Piece(content, "t"), _Piece((self.end_id,), "t"), self._gap()]

    def _header(self, role: str) -> list[_Piece]:
        template = self.family.template
        return [_Piece((self.start_id,), "t"), _Piece(template.header(role).removeprefix(template.start), "t")]

    def _gap(self) -> _Piece:
        return _Piece(self.family.template.gap, "t")

    def _user(self, observation: Observation) -> list[_Piece]:
        pieces = self._header("user")
        for part in observation.parts:
            if isinstance(part, str):
                pieces.append(_Piece(part, "o"))
            else:
                pieces += self._framed(self._placeholders(part))
        return [*pieces, _Piece((self.end_id,), "t"), self._gap()]

    def _framed(self, inside: Sequence[_Piece]) -> list[_Piece]:
        return [_Piece((self.vision_start_id,), "t"), *inside, _Piece((self.vision_end_id,), "t")]

    def _placeholders(self, view: View) -> list[_Piece]:
        """What stands for a view. Of a clip whose steps are stamped, each has its time before it, and a frame of its
        own within the template's.

        Source: transformers 5.19 to 5.23, ``Qwen3VLProcessor``, which leaves the template's frame around the steps; in
        transformers 4 and vLLM it is replaced too.
        """
        family, ident = self.family, self.family.placeholder_of(view, self.image_token_id)
        stamps = family.stamps(view)
        if not stamps:
            return [_Piece((ident,) * family.view_tokens(view), "i")]
        step = self._framed([_Piece((ident,) * family.image_tokens(view.size), "i")])
        return [piece for stamp in stamps for piece in (_Piece(stamp, "t"), *step)]

    def _encode(self, pieces: Sequence[_Piece]) -> Delta:
        """Encode the stretches of text between ids as one, as the template's text would be."""
        token_ids: list[int] = []
        provenance: list[str] = []
        stretch: list[tuple[str, str]] = []

        def flush() -> None:
            if stretch:
                ids, kinds = self._encode_stretch(stretch)
                token_ids.extend(ids)
                provenance.append(kinds)
                stretch.clear()

        for piece in pieces:
            if isinstance(piece.content, str):
                stretch.append((_sound(piece.content), piece.kind))
            else:
                flush()
                token_ids.extend(piece.content)
                provenance.append(piece.kind * len(piece.content))
        flush()
        return Delta(tuple(token_ids), "".join(provenance))

    def _encode_stretch(self, stretch: Sequence[tuple[str, str]]) -> tuple[list[int], str]:
        """A token counts as observation text when any of its characters does."""
        encoding = self._plain.encode("".join(text for text, _ in stretch), add_special_tokens=False)
        kinds = "".join(kind * len(text) for text, kind in stretch)
        marks = ("o" if "o" in kinds[start : max(end, start + 1)] else "t" for start, end in encoding.offsets)
        return encoding.ids, "".join(marks)


def _with_video_id(family: Family, special: Mapping[str, int]) -> Family:
    """The family with the id of its video placeholder; without video tokens where the tokenizer has none."""
    if family.video is None:
        return family
    ident = special.get(family.video.token)
    return replace(family, video=None if ident is None else replace(family.video, token_id=ident))


def _spans(text: str, offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Offsets of tokens without gaps: whitespace that a tokenizer trims off belongs to the token behind it, a character
    that it joins with the one before (an accent) to the tokens of that one."""
    spans: list[tuple[int, int]] = []
    for start, end in offsets:
        before = spans[-1][1] if spans else 0
        if text[before:start].isspace():
            start = before
        elif start > before:
            spans = [(first, start if last == before else last) for first, last in spans]
        spans.append((start, end))
    return spans


def _sound(text: str) -> str:
    """Text without lone surrogates, which have no UTF-8; they become the replacement character."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
