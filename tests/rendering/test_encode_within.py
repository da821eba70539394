"""A text within another, by offsets: which tokens of the whole have a character of it."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from mmturn.families import family_of
from mmturn.rendering.renderer import Renderer
from mmturn.rendering.tokenizer import load_tokenizer
from mmturn.testing.tiny import SPECIAL_TOKENS

PIECES = ["<answer>", "</answer>", "</think>", "<tool_call>", "\\boxed{", "}", "blue", " star", "the", "12", "."]
NOISE = st.text(alphabet="ae .,\n\t/<>d1\u0301\u00e9\u65e5\U0001f600", max_size=4)
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), NOISE), max_size=4).map("".join)


@pytest.fixture(scope="module")
def tiny(folders) -> Renderer:
    return Renderer(family_of(folders["qwen3_vl"], "qwen3_vl"), load_tokenizer(folders["qwen3_vl"]))


@pytest.mark.parametrize(
    ("parts", "own"),
    [
        (("<answer>", "star", "</answer>"), "star"),
        (("<answer>", ".", "</answer>"), ".</"),  # one token of answer and frame
        (("<answer", ">", ""), ">"),
        (("The answer is the ", "blue", "."), " blue"),  # the frame's space is part of the answer's first token
        (("The answer is the", " blue", "."), " blue"),
        (("<answer>", "  blue ", "</answer>"), "  blue "),
        (("<answer>\n", "blue", "\n</answer>"), "blue"),
        (("<answer>", "\u00e9\U0001f600", "</answer>"), "\u00e9\U0001f600"),  # several tokens a character
        (("x", "e\u0301", "x</answer>"), "\u00e9"),  # normalised to one character
        (("e", "\u0301t", "."), "\u00e9t"),  # an accent that joins the frame's letter
        (("", "blue", ""), "blue"),
        (("a\ud83d", "\ude00b", ""), "\ufffdb"),  # lone surrogates
    ],
)
def test_a_text_within_another(tiny: Renderer, parts: tuple[str, str, str], own: str) -> None:
    ids, (first, end) = tiny.encode_within(*parts)
    sound = "".join(part.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for part in parts)
    assert ids == tiny.encode_completion(sound)
    assert tiny.decode(ids[first:end]) == own


def test_the_parts_encoded_apart_are_other_tokens(tiny: Renderer) -> None:
    """Why offsets: counting the tokens of the parts would score other ones."""
    ids, (first, end) = tiny.encode_within("<answer>", ".", "</answer>")
    apart = [tiny.encode_completion(part) for part in ("<answer>", ".", "</answer>")]
    assert ids != tuple(token for part in apart for token in part)
    assert ids[first:end] != apart[1]


def bytes_of(alphabet: str = "".join(sorted(pre_tokenizers.ByteLevel.alphabet()))) -> dict[str, int]:
    """Character of a byte-level token -> byte: those that are no printable character stand behind the others."""
    plain = [b for b in range(256) if chr(b) in alphabet]
    return {chr(b): b for b in plain} | {chr(256 + n): b for n, b in enumerate(sorted({*range(256)} - {*plain}))}


def by_bytes(renderer: Renderer, ids: tuple[int, ...], start: int, end: int) -> list[int]:
    """The tokens that have one of the bytes [start, end) of what all of them say: an oracle without offsets."""
    table, at, own = bytes_of(), 0, []
    for number, token in enumerate(renderer.tokenizer.convert_ids_to_tokens(list(ids))):
        size = len(bytes(table[char] for char in token))
        if at < end and at + size > start:
            own.append(number)
        at += size
    return own


@given(before=TEXTS, text=TEXTS, behind=TEXTS)
@settings(max_examples=150, deadline=None)
def test_the_tokens_found_are_those_with_a_byte_of_the_text(renderer: Renderer, before, text, behind) -> None:
    normal = renderer.tokenizer.backend_tokenizer.normalizer
    parts = (
        [before, text, behind] if normal is None else [normal.normalize_str(part) for part in (before, text, behind)]
    )
    whole = before + text + behind
    # an accent at a seam belongs to both sides: see the cases above
    assume("".join(parts) == (whole if normal is None else unicodedata.normalize("NFC", whole)))
    ids, (first, end) = renderer.encode_within(before, text, behind)
    assert ids == renderer.encode_completion(whole)
    start = len(parts[0].encode())
    assert list(range(first, end)) == by_bytes(renderer, ids, start, start + len(parts[1].encode()))


def test_a_tokenizer_that_trims_offsets(tiny: Renderer) -> None:
    """Whitespace that offsets leave out is still part of its token."""
    letters = {char: number for number, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=letters | {"\u0120b": 256, "\u0120\u0120": 257}, merges=[
        ("\u0120", "b"), ("\u0120", "\u0120")]))  # fmt: skip
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS)})
    renderer = Renderer(tiny.family, tokenizer)
    assert backend.encode("a b").offsets == [(0, 1), (2, 3)], "the space is in no offset"
    for parts, own in [(("a ", "b", "c"), " b"), (("a", " ", "b"), " b"), (("a", "   ", "c"), "   ")]:
        ids, (first, end) = renderer.encode_within(*parts)
        assert renderer.decode(ids[first:end]) == own
