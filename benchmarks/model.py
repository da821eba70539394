"""The random model of a case, in a folder that both sides load: weights, tokenizer, processor."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from benchmarks.case import Case, Script, read_case, words_of, write_case
from mmturn.testing.tiny import chat_template, tiny_tokenizer

LEAST_PX = 28 * 28
MOST_PX = 1 << 24
_HEAD = 64


def crop(bbox_2d: list[int]) -> list[dict[str, Any]]:
    """
    Cuts a box out of the image and shows it enlarged.

    Args:
        bbox_2d: Box [x0, y0, x1, y1] to look at, in pixels.

    Returns:
        The enlarged region.
    """
    raise RuntimeError("the schema of the tool alone; each side carries it out in its own way")


def write_model(case: Case, folder: Path) -> Path:
    """Write the model of a case, unless that very case's is there."""
    note = folder / "case.json"
    if note.is_file() and read_case(note) == case:
        return folder
    tokenizer = tokenizer_of(case)
    torch.manual_seed(case.seed)
    model = _model(case, tokenizer).float().eval()
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor_of(case, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_case(case, note)
    return folder


def tokenizer_of(case: Case) -> PreTrainedTokenizerFast:
    """The family's added tokens over words of the chat templates, so that a prompt is about as long as a real one."""
    tiny = tiny_tokenizer(case.arch)  # type: ignore[arg-type]
    own = tiny.backend_tokenizer
    backend = Tokenizer(models.BPE())
    backend.normalizer, backend.pre_tokenizer, backend.decoder = own.normalizer, own.pre_tokenizer, own.decoder
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=min(2000, case.vocab - 64), initial_alphabet=letters, show_progress=False)
    backend.train_from_iterator(
        [chat_template("qwen3_vl"), chat_template("qwen2_5_vl"), words_of(case, 0, 0, 0)], trainer
    )
    added = [token for _, token in sorted(own.get_added_tokens_decoder().items())]
    backend.add_special_tokens([token for token in added if token.special])
    backend.add_tokens([token for token in added if not token.special])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=tiny.eos_token, pad_token=tiny.pad_token,
        extra_special_tokens=[token.content for token in added if token.special and token.content != tiny.pad_token],
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    # TRL refuses the stock template of Qwen2.5-VL, which knows no tools; both families take the newer one.
    tokenizer.chat_template = chat_template("qwen3_vl")
    return tokenizer


def processor_of(case: Case, tokenizer: PreTrainedTokenizerFast) -> Any:
    """The family's processor with limits that leave the case's images as they are."""
    size = {"shortest_edge": LEAST_PX, "longest_edge": MOST_PX}
    if case.arch == "qwen2_5_vl":
        images = Qwen2VLImageProcessor(patch_size=14, size=size)
        video: Any = Qwen2VLVideoProcessor(patch_size=14)
        build: Any = Qwen2_5_VLProcessor
    else:
        half = [0.5, 0.5, 0.5]
        images = Qwen2VLImageProcessor(patch_size=16, size=size, image_mean=half, image_std=half)
        video, build = Qwen3VLVideoProcessor(patch_size=16), Qwen3VLProcessor
    return build(
        image_processor=images, tokenizer=tokenizer, video_processor=video, chat_template=tokenizer.chat_template
    )


def script_of(case: Case, tokenizer: PreTrainedTokenizerFast) -> Script:
    """The case's script in the ids of its tokenizer."""
    words = [ident for word, ident in sorted(tokenizer.get_vocab().items()) if re.fullmatch(r"[a-z]{1,6}", word)]

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    return Script(case, encode, tokenizer.eos_token_id, words)


def system_text(tokenizer: PreTrainedTokenizerFast) -> str:
    """What the chat template makes of the tool, between the system message's start and end."""
    text = tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tools=[crop], tokenize=False)
    return text.split("<|im_start|>system\n", 1)[1].split("<|im_end|>", 1)[0]


def _model(case: Case, tokenizer: PreTrainedTokenizerFast) -> torch.nn.Module:
    """Random weights in the family's architecture."""
    ident = tokenizer.convert_tokens_to_ids
    tokens = {
        "image_token_id": ident("<|image_pad|>"),
        "video_token_id": ident("<|video_pad|>"),
        "vision_start_token_id": ident("<|vision_start|>"),
        "vision_end_token_id": ident("<|vision_end|>"),
    }
    heads = max(1, case.hidden // _HEAD)
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}
    text: dict[str, Any] = {
        "vocab_size": case.vocab, "hidden_size": case.hidden, "intermediate_size": 4 * case.hidden,
        "num_hidden_layers": case.layers, "num_attention_heads": heads, "num_key_value_heads": max(1, heads // 2),
        "max_position_embeddings": 32_768, "bos_token_id": None, "eos_token_id": ident("<|im_end|>"),
        "pad_token_id": ident("<|endoftext|>"), "tie_word_embeddings": True,
    }  # fmt: skip
    vision: dict[str, Any] = {
        "depth": case.layers, "hidden_size": case.hidden, "intermediate_size": 4 * case.hidden, "num_heads": heads,
        "out_hidden_size": case.hidden, "spatial_merge_size": 2, "temporal_patch_size": 2,
    }  # fmt: skip
    if case.arch == "qwen2_5_vl":
        vision |= {"patch_size": 14, "window_size": 112, "fullatt_block_indexes": [case.layers - 1]}
        text |= {"rope_parameters": rope}
        config: Any = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **tokens)
        return Qwen2_5_VLForConditionalGeneration(config)
    vision |= {"patch_size": 16, "deepstack_visual_indexes": [0], "num_position_embeddings": 2304}
    text |= {"head_dim": _HEAD, "rope_parameters": {**rope, "mrope_interleaved": True}}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **tokens)
    return Qwen3VLForConditionalGeneration(config)
