"""The small policy's tokenizer, template and written-out forward pass agree with what others will load."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from transformers import AutoTokenizer  # noqa: E402

from mmturn.tasks.visual_search.questions import prompt_text, rows_of  # noqa: E402
from mmturn.tasks.visual_search.scene import sample_scene  # noqa: E402
from train.nano.decoder import Bank, collate, embed, forward, logits_of, sample  # noqa: E402
from train.nano.dialogue import Encoder, Sequence, answer_text, look_text, thoughts  # noqa: E402
from train.nano.model import build_model, build_processor  # noqa: E402
from train.nano.sampling import view_size  # noqa: E402
from train.nano.tokenizer import MAX_VOCABULARY, build_tokenizer, check_tokenizer  # noqa: E402
from train.nano.vision import encode  # noqa: E402

BOX = (12, 30, 44, 62)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def policy(tokenizer):
    return build_model(tokenizer).eval(), build_processor(tokenizer)


def test_tokenizer_keeps_its_promises(tokenizer, tmp_path):
    check_tokenizer(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    check_tokenizer(again)
    assert len(again) <= MAX_VOCABULARY
    assert again.encode(look_text("red circle", BOX)) == tokenizer.encode(look_text("red circle", BOX))
    assert len(again.encode(look_text("red circle", BOX))) <= 21


def test_a_view_keeps_its_area_and_aspect():
    assert view_size(14, 14) == view_size(16, 17) == (64, 64)
    for width, height in ((20, 10), (10, 30), (9, 8)):
        wide, tall = view_size(width, height)
        assert wide % 16 == tall % 16 == 0 and 0.7 < wide * tall / 4096 < 1.35


def conversation(row, boxes, processor, pictures):
    """The same trajectory through the chat template and the processor."""
    thought = thoughts(row)
    user = [{"type": "image"}, {"type": "text", "text": prompt_text(row)}]
    messages = [{"role": "system", "content": "tools: crop"}, {"role": "user", "content": user}]
    shown = [
        {"type": "text", "text": "<tool_response>"},
        {"type": "image"},
        {"type": "text", "text": "</tool_response>"},
    ]
    for index, box in enumerate(boxes):
        messages.append({"role": "assistant", "content": look_text(thought[index], box).removesuffix("<|im_end|>")})
        messages.append({"role": "user", "content": shown})
    messages.append(
        {"role": "assistant", "content": answer_text(thought[-1], row["answer"]).removesuffix("<|im_end|>")}
    )
    text = processor.apply_chat_template(messages, tokenize=False)
    return processor(text=[text], images=pictures, return_tensors="pt")


@pytest.mark.parametrize("level", ["one", "compare", "position"])
def test_the_written_out_forward_is_the_models_own(policy, level):
    from PIL import Image

    model, processor = policy
    rng = np.random.default_rng(0)
    row = rows_of(sample_scene(2, "train", level), level, rng)[0]
    boxes = [BOX] * len(row["boxes"])
    pictures = [rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)]
    pictures += [rng.integers(0, 256, (48, 80, 3), dtype=np.uint8) for _ in boxes]
    with torch.no_grad():
        first = encode(model.model.visual, torch.from_numpy(pictures[0][None]))
        rest = [encode(model.model.visual, torch.from_numpy(p[None])) for p in pictures[1:]]
    crops = [torch.cat(parts, 1)[0] for parts in zip(*rest)] if rest else [torch.empty(0, 192)] * 2
    banks = {"overview": Bank(first[0][0], first[1][0]), "crops": Bank(*crops)}
    sequence, thought = Sequence(Encoder(processor.tokenizer)), thoughts(row)
    sequence.prompt(row, 0)
    for index, box in enumerate(boxes):
        sequence.look(thought[index], box)
        sequence.crop(15 * index, 3, 5)
    sequence.answer(thought[-1], row["answer"])
    inputs = conversation(row, boxes, processor, [Image.fromarray(p) for p in pictures])
    assert inputs["input_ids"][0].tolist()[:-1] == sequence.ids
    model.model.rope_deltas = None
    with torch.no_grad():
        expected = model(**inputs).logits[0, :-1]
        for left in (False, True):
            batch = collate([sequence], banks, left=left)
            x, deep = embed(model, batch)
            got = logits_of(model, forward(model, x, deep, batch.places, batch.valid))[0]
            assert torch.allclose(got, expected, atol=1e-4)


def test_cached_sampling_is_greedy_decoding(policy):
    model, processor = policy
    row = rows_of(sample_scene(2, "train", "one"), "one", np.random.default_rng(0))[0]
    bank = Bank(torch.randn(64, 192), torch.randn(64, 192))
    sequence = Sequence(Encoder(processor.tokenizer))
    sequence.prompt(row, 0)
    short = {"most": 4, "temperature": 0.0, "generator": None, "banned": []}
    ids, logps = sample(model, [sequence], {"overview": bank}, **short)[0]
    for index, token in enumerate(ids):
        batch = collate([sequence], {"overview": bank})
        with torch.no_grad():
            x, deep = embed(model, batch)
            logp = logits_of(model, forward(model, x, deep, batch.places, batch.valid)[0, -1]).log_softmax(-1)
        assert logp.max() - logp[token] < 0.05 and abs(logp[token] - logps[index]) < 0.05
        sequence.append((token,))
