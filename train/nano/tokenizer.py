"""Byte-level BPE tokenizer of the small policy: at most 1,600 tokens, whole integers, whole JSON keys.

Any text round-trips. Each integer 0..999 is one token; each attribute and detail word is one token with
or without a space before it; `{"name":` and `"bbox_2d":` are single tokens, so that a crop call is short.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mmturn.tasks.visual_search import words

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TAGS = (
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<answer>",
    "</answer>",
    "<tool_response>",
    "</tool_response>",
)
MAX_VOCABULARY = 1600
TOOLS = [
    "crop",
    "zoom",
    "rotate",
    "segment",
    "point",
    "search",
    "ocr",
    "frames",
    "click",
    "type",
    "scroll",
    "select",
    "answer",
]
KEYS = [
    "name",
    "arguments",
    "bbox_2d",
    "point_2d",
    "label",
    "angle",
    "query",
    "frame",
    "frames",
    "start",
    "end",
    "image",
    "target",
    "text",
    "x",
    "y",
    "index",
    "key",
    "url",
]
PROSE = (
    "You are a helpful assistant. You may call tools. Look at the image and answer the question. "
    "The box is outside the image. Error: the call could not be read. Please try again. There is no such tool. "
    "What is shown in the picture? Where is the small one? How many are there? Which colour is the largest? "
    "Is it left or right? The answer is not visible from here, so look again and then answer with one word."
)

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- elif part['type'] == 'video' -%}{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}"
    "{%- else -%}{{- part['text'] -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


def split_pattern() -> str:
    """Regular expression whose matches are the pieces that BPE may not merge across."""
    isolated = "|".join(words.isolated_words())
    return "|".join(
        (
            r", (?=\d)",  # between the numbers of a box
            r' ?\{?"[A-Za-z_]\w*"[:,]?',  # a JSON key or a short string with its punctuation
            rf" (?=(?:{isolated})(?![A-Za-z]))",  # a space alone, so that the word after it is one token
            r"\d{1,3}",
            r" ?[A-Za-z]+",
            r" ?[^\sA-Za-z\d]+",
            r"\s",
        )
    )


def corpus() -> list[str]:
    """Text on which the merges are learned: the world's language, tool calls and a little prose."""
    lines = [PROSE] * 20 + ["tools: crop", "system", "user", "assistant"] * 50
    for template in (*words.READ_TEMPLATES, *words.COMPARE_TEMPLATES, *words.POSITION_TEMPLATES):
        text = template.format(kind="number word symbol", ref="the", a="the", b="the", relation="of")
        lines += [text] * 50
    lines += [f"{word}\n{word}" for word in words.isolated_words()] * 50
    lines += [f'{{"name": "{tool}", "arguments": {{}}}}' for tool in TOOLS] * 10
    lines += [f'{{"{key}": "{key}", {{"{key}": [", "]]}}}}' for key in KEYS] * 5
    lines += ['<think>red; blue</think>{"name": "crop", "arguments": {"bbox_2d": [12, 30, 44, 62]}}'] * 100
    return lines


def learned_merges(vocab_size: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Base alphabet and merges learned on `corpus`, with no merge across digits."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split_pattern()), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False, min_frequency=2
    )
    text = list(corpus())
    tokenizer.train_from_iterator(text, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in merges]
    return alphabet, [pair for pair in merges if not "".join(pair).isdigit()]


def integer_merges() -> list[tuple[str, str]]:
    """Merges that make each integer 10..999 one token, whichever pair of digits merges first."""
    two = [(str(n)[0], str(n)[1]) for n in range(10, 100)]
    three = [(str(n)[:2], str(n)[2]) for n in range(100, 1000)]
    three += [(str(n)[0], str(n)[1:]) for n in range(100, 1000) if str(n)[1] != "0"]
    return two + three


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The small policy's tokenizer with its chat template, deterministic."""
    integers = [str(n) for n in range(10, 1000)]
    room = MAX_VOCABULARY - len(SPECIAL) - len(TAGS) - len(integers)
    alphabet, learned = learned_merges(room)
    names = list(dict.fromkeys(alphabet + integers + ["".join(pair) for pair in learned]))
    vocab = {name: index for index, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=integer_merges() + learned))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split_pattern()), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in TAGS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens=list(SPECIAL[1:]),
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def check_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    """Raise AssertionError where a promise of this module is broken."""
    assert len(tokenizer) <= MAX_VOCABULARY, len(tokenizer)
    for n in range(1000):
        assert len(tokenizer.encode(str(n))) == 1, n
    for word in words.isolated_words():
        alone = tokenizer.encode(word)
        assert len(alone) == 1 and tokenizer.encode(" " + word)[-1:] == alone, word
        assert tokenizer.encode(f"<answer>{word}</answer>")[1:2] == alone, word
    for text in ("héllo, wörld 1234 007\n\t x", '{"a_b": [1, 2]}', "don't  stop; 3.5%"):
        assert tokenizer.decode(tokenizer.encode(text)) == text, text


def save_tokenizer(out: Path) -> PreTrainedTokenizerFast:
    """Build, check and write the tokenizer to `out`."""
    tokenizer = build_tokenizer()
    check_tokenizer(tokenizer)
    tokenizer.save_pretrained(out)
    return tokenizer
