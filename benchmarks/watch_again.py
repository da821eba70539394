"""Asking for a stretch of a video against seeing as many frames at once, and a gate on turn rewards against none.

    python -m benchmarks.watch_again --seeds 0 1 2 --tasks 128 --out runs/watch_again

The cold start is the policy of videos that ships. For each seed it is trained by the outcome alone, and by
turn rewards (the overlap of what it was shown with the gold stretch) with a gate on the answer and without one; the
single-turn control learns from it to answer at once, and gets the same RL, with more frames at once than the others see
in all. Also, with its answers: stretches at random places and gold stretches, and what their frames settle, which a
reader without error would answer. All are judged on the same held-out tasks at temperature 0.5. A killed run goes on at
the policy where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from benchmarks.seeds import held_out, options, percents, spread, with_model, written
from mmturn.build import Policy, make_policy
from mmturn.engines.scripted import MixedEngine
from mmturn.engines.span_oracle import SpanScript
from mmturn.envs.video_qa import VideoQA
from mmturn.evaluation.rows import read_rows
from mmturn.interfaces import Engine
from mmturn.jobs.bars import counting
from mmturn.jobs.evaluate import evaluate_policy
from mmturn.jobs.sft import sft_policy
from mmturn.jobs.train import train_policy
from mmturn.recipe import Recipe, read_recipe
from mmturn.rewards.seen import frames_by_turn, spans_by_turn
from mmturn.store.trajectories import read_trajectories
from mmturn.tasks.video_world import Film, sample_film
from mmturn.types import Task

MULTI, SINGLE, COLD = "nano_video_rl", "nano_video_single_rl", "nano_video_single_sft"
TURN_REWARDS = (
    "reward.terms={answer: 1.0, format: 0.1, frame_iou: 0.5, gold_frame: 0.0}",
    "method.credit={name: returns, gamma: 1.0}",
)
GATE = "method.shape=[{name: gate, threshold: 0.5, passes: above}]"
NO_GATE = "method.shape=[]"
LENGTH_S = 3.0
"""Length of the scripted stretches."""
RL_UPDATES = 15
"""Of each run of RL: enough to tell them apart."""


@dataclass(frozen=True)
class Measured:
    """One policy of one seed on the held-out tasks."""

    policy: str
    seed: int
    accuracy: float
    gold_seen: float
    """Share of the tasks in which a frame of the gold stretch was shown."""
    frames: float
    looks_per_right: float
    """Stretches asked for, over right answers."""
    n: int


def evaluated(recipe: Recipe, tasks: Sequence[Task], out: Path, name: str, seed: int, look: str = "") -> Measured:
    """Evaluate a recipe's policy; ``look``: let a script ask for one stretch (``random`` or ``gold``)."""
    policy = make_policy(recipe)
    engine = scripted(policy, tasks, look == "random") if look else None
    with counting(f"{name}, seed {seed}") as progress:
        overall = evaluate_policy(
            policy, tasks, out, engine=engine, name=name, resume=False,
            progress=lambda done, total, row: progress(done, total),
        ).overall  # fmt: skip
    right = sum(row.value or 0.0 for row in read_rows(out))
    asked = sum(len(spans) for trajectory in read_trajectories(out) for spans in spans_by_turn(trajectory))
    return Measured(
        name, seed, overall.accuracy or 0.0, overall.gold_seen_rate or 0.0, overall.mean_frames or 0.0,
        asked / max(right, 1), overall.n,
    )  # fmt: skip


def scripted(policy: Policy, tasks: Sequence[Task], anywhere: bool) -> Engine:
    """One stretch about the gold one, or anywhere; the model answers."""
    env = policy.make_env()
    assert isinstance(env, VideoQA)
    tool = policy.recipe.tools[0]
    footage = env.footage
    script = SpanScript(
        tasks, policy.grammar, lambda task: footage(task.video or ""), tool=tool["as"], unit=tool["unit"],
        scale=(1.0, 1.0), jitter=0.0, least_s=LENGTH_S, answer=False, anywhere=anywhere,
    )  # fmt: skip
    return MixedEngine(script, policy.engine(), policy.renderer)


def without_error(recipe: Recipe, out: Path, name: str, seed: int) -> Measured:
    """Of the episodes in ``out``, the share in which the opening and the first stretch settle the question. A reader
    without error answers these, and guesses no other."""
    films: dict[str, Film] = {}
    settled, frames, n = 0, 0, 0
    for trajectory in read_trajectories(out):
        task = trajectory.task
        opening, shown = frames_by_turn(trajectory)[:2]
        split, number = task.meta["film"].split("/")
        film = films.setdefault(task.meta["film"], sample_film(int(number), split, recipe.data.levels))
        event = next(e for e in film.events if (e.start_s, e.end_s) == (task.spans[0].start_s, task.spans[0].end_s))
        settled += event.settled([frame.second for frame in (*opening, *shown)])
        frames, n = frames + len(opening) + len(shown), n + 1
    return Measured(name, seed, settled / n, settled / n, frames / n, n / max(settled, 1), n)


def trained(recipe: Recipe, out: Path, console: Console) -> Recipe:
    """The recipe on the policy that its RL made."""
    return with_model(recipe, _learned(train_policy, recipe, out, console))


def _learned(train: Callable[..., Path], recipe: Recipe, out: Path, console: Console) -> Path:
    """The last checkpoint of a run, which is begun, gone on with, or found done."""
    return train(recipe, out, console=console, resume=out.exists())


def policies(seed: int, out: Path, overrides: Sequence[str], console: Console) -> dict[str, Callable[[], Recipe]]:
    """What makes each policy of a seed, by its name in the table."""
    wishes = (f"seed={seed}", *overrides)
    rl = (f"training.updates={RL_UPDATES}", *wishes)
    multi = read_recipe(MULTI, rl)[0]

    def single() -> Recipe:
        cold = read_recipe(COLD, wishes)[0]
        return with_model(read_recipe(SINGLE, rl)[0], _learned(sft_policy, cold, out / "single-sft", console))

    def with_turn_rewards(gate: str) -> Recipe:
        return trained(read_recipe(MULTI, (*rl, *TURN_REWARDS, gate))[0], out / f"turns-{gate == GATE}", console)

    return {
        "multi-turn, cold start": lambda: multi,
        "multi-turn, after RL": lambda: trained(multi, out / "multi", console),
        "single-turn, cold start": single,
        "single-turn, after RL": lambda: trained(single(), out / "single", console),
        "multi-turn, turn rewards with a gate": partial(with_turn_rewards, GATE),
        "multi-turn, turn rewards without": partial(with_turn_rewards, NO_GATE),
    }


def run_seed(
    seed: int, tasks: Sequence[Task], out: Path, overrides: Sequence[str], console: Console, done: dict[str, Measured]
) -> list[Measured]:
    """All policies of one seed; those that are ``done`` are left as they are."""
    multi = read_recipe(MULTI, (f"seed={seed}", *overrides))[0]
    for name, look in (("stretches at random places", "random"), ("gold stretches", "gold")):
        if name not in done:
            done[name] = evaluated(multi, tasks, out / look, name, seed, look)
        read = f"{name}, read without error"
        done[read] = without_error(multi, out / look, read, seed)
    for number, (name, make) in enumerate(policies(seed, out, overrides, console).items()):
        if name not in done:
            done[name] = evaluated(make(), tasks, out / f"eval-{number}", name, seed)
            (out / "measured.json").write_text(json.dumps([asdict(m) for m in done.values()], indent=1), "utf-8")
    return list(done.values())


def table(rows: Sequence[Measured]) -> str:
    """Mean over seeds with a 95 % t-interval, as Markdown."""
    lines = [
        "| policy | accuracy, % | gold stretch seen, % | frames | looks per right answer |", "|---|---|---|---|---|"
    ]  # fmt: skip
    for name in dict.fromkeys(row.policy for row in rows):
        own = [row for row in rows if row.policy == name]
        mean = sum(row.frames for row in own) / len(own)
        looks = spread([row.looks_per_right for row in own], digits=2)
        cells = [
            percents([row.accuracy for row in own]),
            percents([row.gold_seen for row in own]),
            f"{mean:.1f}",
            looks,
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run, print the table, write it."""
    args, console = options(__doc__, "runs/watch_again"), Console()
    tasks = held_out(read_recipe(MULTI, tuple(args.set))[0], args.out, args.tasks)
    rows: list[Measured] = []
    for seed in args.seeds:
        out = args.out / f"seed-{seed}"
        out.mkdir(parents=True, exist_ok=True)
        found = out / "measured.json"
        kept = [Measured(**item) for item in json.loads(found.read_text("utf-8"))] if found.is_file() else []
        rows += run_seed(seed, tasks, out, args.set, console, {row.policy: row for row in kept})
    print(written(table(rows), args))


if __name__ == "__main__":
    main()
