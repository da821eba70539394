"""The GUI stage of the small policy: its wording is the library's, its clicks lie where the teacher says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmturn.build import make_policy
from mmturn.engines.scripted import ScriptedEngine
from mmturn.jobs.rollout import roll
from mmturn.recipe import read_recipe
from mmturn.tasks.gui.miniwob import miniwob_task
from train.nano.clicking import CELLS, HEIGHT, WIDTH, Move, Played, Teacher, played, renamed, written
from train.nano.dialogue import COORDINATE, Encoder
from train.nano.gui import losses_of
from train.nano.model import load

EPISODE = Played("click-test", "Click the button.", [Move(0, (50.0, 90.0), (10.0, 20.0))])


@pytest.fixture(scope="module")
def policy():
    return make_policy(read_recipe("nano_gui", ("model.path=checkpoints/nano",))[0])


@pytest.mark.browser
@pytest.mark.parametrize("level", ["click-color", "enter-text"])
def test_the_wording_is_that_of_the_librarys_trajectories(policy, chromium, level):
    pytest.importorskip("miniwob")
    pictures: list[np.ndarray] = []
    env = policy.make_env()
    episode = played(env, level, 5, pictures)
    env.close()
    encoder = Encoder(policy.loaded.tokenizer)
    sequence = written(encoder, episode, Teacher(offset=0.0, spread=0.1), np.random.default_rng(0))
    replies = [part.split("<|im_end|>")[0] for part in encoder.tokenizer.decode(sequence.ids).split("assistant\n")[1:]]
    engine = ScriptedEngine(lambda request: replies[request.turn], policy.renderer)
    (trajectory,) = roll(policy, [miniwob_task(level, 5)], engine=engine)
    assert [token for turn in trajectory.turns for token in turn.token_ids or ()] == sequence.ids
    assert trajectory.turns[-1].facts["score"] == 1.0
    assert len(pictures) == len(episode.moves) == (3 if level == "enter-text" else 1)
    assert sequence.ids.count(encoder.image_id) == CELLS * len(pictures)


@pytest.mark.parametrize(("offset", "aim"), [(0.0, (50.0, 90.0)), (1.0, (60.0, 110.0))])
def test_the_teacher_clicks_as_far_beside_as_it_is_told(policy, offset, aim):
    encoder, rng = Encoder(policy.loaded.tokenizer), np.random.default_rng(0)
    said = []
    for _ in range(200):
        sequence = written(encoder, EPISODE, Teacher(offset, 0.4), rng)
        places = [i for i, kind in enumerate(sequence.kind) if kind == COORDINATE]
        assert tuple(sequence.target[i] for i in places) == aim
        assert [sequence.spread[i] for i in places] == [4.0, 8.0]
        said.append([encoder.numbers[sequence.ids[i]] for i in places])
    assert np.allclose(np.mean(said, 0), aim, atol=2.0) and np.allclose(np.std(said, 0), [4.0, 8.0], atol=1.5)


def test_typed_text_is_pulled_to_where_the_goal_says_it(policy):
    encoder = Encoder(policy.loaded.tokenizer)
    episode = Played(
        "enter-text", 'Enter "Ronda" into the text field.', [Move(0, (9.0, 9.0), (4.0, 4.0)), Move(1, typed="Ronda")]
    )
    sequence = written(encoder, episode, Teacher(), np.random.default_rng(0))
    copies = [(position, key) for what, position, key in sequence.pulls if what == "copy"]
    assert copies and all(sequence.ids[position + 1] == sequence.ids[key] for position, key in copies)
    assert encoder.tokenizer.decode([sequence.ids[key] for _, key in copies]).strip() == '"Ronda"'


def test_another_text_is_typed_in_the_same_places(policy):
    goal = 'Enter "Ronda" into the text field and press Submit.'
    episode = Played("enter-text", goal, [Move(0, (9.0, 9.0), (4.0, 4.0)), Move(1, typed="Ronda")])
    rng, encoder, texts = np.random.default_rng(0), Encoder(policy.loaded.tokenizer), set()
    for _ in range(40):
        other = renamed(episode, rng)
        text = other.moves[1].typed
        assert other.goal == goal.replace("Ronda", text) and other.moves[0] == episode.moves[0]
        assert any(what == "copy" for what, *_ in written(encoder, other, Teacher(), rng).pulls), text
        texts.add(text)
    assert 10 < len(texts) < 35 and "Ronda" in texts
    assert renamed(EPISODE, rng) is EPISODE


def test_the_loss_of_tokens_reaches_tower_and_language_model(policy):
    model, processor = load(policy.loaded.folder)
    encoder = Encoder(processor.tokenizer)
    pictures = torch.randint(0, 256, (1, HEIGHT, WIDTH, 3), dtype=torch.uint8)
    numbers = torch.tensor([encoder.encode(str(n))[0] for n in range(1000)])
    sequence = written(encoder, EPISODE, Teacher(), np.random.default_rng(0))
    losses_of(model, [sequence], pictures, numbers)["tokens"].backward()
    for part in (model.model.visual, model.model.language_model):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters() if p.ndim > 1)
