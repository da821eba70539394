"""train, sft, prefer, offline, mix, rollout, eval, replay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmturn.cli.options import (
    DataOption,
    MethodOption,
    ModelOption,
    OutOption,
    RewardOption,
    SeedOption,
    SetOption,
    SmokeOption,
    ToolOption,
    console,
    open_recipe,
    recipe_for,
    run_folder,
    say,
)

if TYPE_CHECKING:
    from mmturn.recipe import Recipe

RecipeArgument = Annotated[
    str | None,
    typer.Argument(help="A recipe: a YAML file or a shipped name. Default: what suits the model."),
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on from the newest checkpoint. It holds DeepSpeed's pickles: resume what you trust."
    ),
]
SMOKE_TRAINING = ["training.updates=2", "training.save_every=1", "rl.group_size=4", "rl.groups_per_update=2"]
SMOKE_SFT = ["training.updates=2", "training.save_every=1", "sft.rows_per_update=4"]
SMOKE_PREFER = [
    "training.updates=2", "training.save_every=1", "preference.samples=6", "preference.pairs_per_update=2"
]  # fmt: skip
SMOKE_OFFLINE = ["training.updates=2", "training.save_every=1", "offline.trajectories_per_update=4"]
_NANO_SUITES = {
    "streambench": "nano_stream", "video_world": "video_world", "osworld": "osworld", "miniwob": "miniwob",
    "sites": "browser",
}  # fmt: skip
"""What the small policy is evaluated with, where that is another suite than visual_search."""
SMOKE_DATA = ["data.train_tasks=8", "data.validation_tasks=4", "rollout.max_new_tokens=48"]


def train(
    recipe: RecipeArgument = None,
    data: DataOption = None,
    model: ModelOption = None,
    tool: ToolOption = None,
    reward: RewardOption = None,
    method: MethodOption = None,
    set_: SetOption = None,
    seed: SeedOption = None,
    out: OutOption = None,
    resume: ResumeOption = False,
    smoke: SmokeOption = False,
) -> None:
    """Train with multi-turn reinforcement learning."""
    recipe = recipe_for(recipe, model, nano="nano_rl", other="own")
    overrides = (SMOKE_DATA + SMOKE_TRAINING if smoke else []) + (set_ or [])
    settings = open_recipe(
        recipe, overrides, model=model, data=data, tools=tool, rewards=reward, seed=seed, method=method
    )  # fmt: skip
    from mmturn.jobs.train import train_policy

    _learn(train_policy, settings, run_folder(out, settings.out, _run_name(recipe, method)), resume, is_rl=True)


def sft(
    recipe: RecipeArgument = None,
    data: DataOption = None,
    model: ModelOption = None,
    tool: ToolOption = None,
    set_: SetOption = None,
    seed: SeedOption = None,
    out: OutOption = None,
    resume: ResumeOption = False,
    smoke: SmokeOption = False,
) -> None:
    """Train on supervised trajectories: oracle ones built from gold boxes, or stored ones."""
    recipe = recipe_for(recipe, model, nano="nano_sft", other="own")
    overrides = [*SMOKE_DATA, *SMOKE_SFT] if smoke else []
    settings = open_recipe(recipe, overrides + (set_ or []), model=model, data=data, tools=tool, seed=seed)
    from mmturn.jobs.sft import sft_policy

    _learn(sft_policy, settings, run_folder(out, settings.out, _run_name(recipe)), resume)


def prefer(
    recipe: RecipeArgument = None,
    data: DataOption = None,
    model: ModelOption = None,
    tool: ToolOption = None,
    reward: RewardOption = None,
    method: MethodOption = None,
    set_: SetOption = None,
    seed: SeedOption = None,
    out: OutOption = None,
    resume: ResumeOption = False,
    smoke: SmokeOption = False,
) -> None:
    """Train on preferences between trajectories: stored ones, or ones that are sampled first."""
    recipe = recipe_for(recipe, model, nano="nano_prefer", other="own")
    overrides = ([*SMOKE_DATA, *SMOKE_PREFER] if smoke else []) + (set_ or [])
    settings = open_recipe(
        recipe, overrides, model=model, data=data, tools=tool, rewards=reward, seed=seed, method=method
    )  # fmt: skip
    from mmturn.jobs.prefer import prefer_policy

    _learn(prefer_policy, settings, run_folder(out, settings.out, _run_name(recipe, method)), resume)


def offline(
    recipe: RecipeArgument = None,
    data: DataOption = None,
    model: ModelOption = None,
    reward: RewardOption = None,
    method: MethodOption = None,
    set_: SetOption = None,
    seed: SeedOption = None,
    out: OutOption = None,
    resume: ResumeOption = False,
    smoke: SmokeOption = False,
) -> None:
    """Learn from stored trajectories alone what each token was worth, and lean to what was worth more."""
    recipe = recipe_for(recipe, model, nano="nano_offline", other="own")
    overrides = ([*SMOKE_DATA, *SMOKE_OFFLINE] if smoke else []) + (set_ or [])
    settings = open_recipe(recipe, overrides, model=model, data=data, rewards=reward, seed=seed, method=method)
    from mmturn.jobs.offline import learn_offline

    _learn(learn_offline, settings, run_folder(out, settings.out, _run_name(recipe, method)), resume)


def _run_name(recipe: str, method: str | None = None) -> str:
    """A run's folder by default: the recipe, and the method laid over it."""
    return Path(recipe).stem + (f"-{Path(method).stem}" if method else "")


def _learn(job: Callable[..., Path], settings: Recipe, folder: Path, resume: bool, *, is_rl: bool = False) -> None:
    """Run a way of training, and say where its policy is."""
    from mmturn.training.processes import stop_processes

    last = job(settings, folder, resume=resume, allow_code=True, console=console())
    say(f"policy: {last / 'policy'}" + (f"\nlook at its rollouts: mmturn view {folder}" if is_rl else ""))
    stop_processes()


def mix(
    run: Annotated[Path, typer.Argument(help="A run with several heads, or one of its checkpoints.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write the policy to.")],
    weight: Annotated[
        list[str],
        typer.Option("--weight", "-w", help="HEAD=NUMBER, e.g. answer=0.7. Repeatable; others are 0."),
    ],
) -> None:
    """Mix the heads of a run anew: another policy without training."""
    from mmturn.jobs.mix import mix_heads, weights_of

    say(f"policy: {mix_heads(run, weights_of(weight), out)}")


def rollout(
    recipe: RecipeArgument = None,
    data: DataOption = None,
    model: ModelOption = None,
    tool: ToolOption = None,
    set_: SetOption = None,
    seed: SeedOption = None,
    out: OutOption = None,
    group_size: Annotated[int, typer.Option(min=1, help="Trajectories per task.")] = 1,
    limit: Annotated[int, typer.Option(min=0, help="First this many tasks; 0: all.")] = 0,
    oracle: Annotated[bool, typer.Option(help="Let a script look at the gold boxes instead of the model.")] = False,
) -> None:
    """Run episodes and store the trajectories, graded."""
    recipe = recipe_for(recipe, model, nano="nano_rl", other="own")
    settings = open_recipe(recipe, set_, model=model, data=data, tools=tool, seed=seed)
    from mmturn.build import make_policy
    from mmturn.jobs.bars import counting
    from mmturn.jobs.data import tasks_of
    from mmturn.jobs.rollout import oracle_engine, store_rollouts
    from mmturn.rewards.rubric import rubric_of

    folder = run_folder(out, settings.out, f"{Path(recipe).stem}-rollout")
    tasks, problems = tasks_of(settings.data, "train", folder / "data")
    for problem in problems[:5]:
        say(f"left out {problem}", "yellow")
    tasks = tasks[:limit] if limit else tasks
    policy = make_policy(settings, allow_code=True)
    engine = oracle_engine(policy, tasks, settings.oracle) if oracle else policy.engine()
    with counting("rollouts") as progress:
        store_rollouts(
            policy, tasks, folder, engine=engine, group_size=group_size, progress=progress,
            rubric=rubric_of(settings.reward, True),
        )  # fmt: skip
    say(f"{folder / 'trajectories.jsonl'}\nlook at them: mmturn view {folder}")


def evaluate(
    recipe: RecipeArgument = None,
    benchmark: Annotated[
        str,
        typer.Option(
            "--benchmark",
            "-b",
            help="visual_search, video_world, miniwob, sites, vstar, video_mme, mlvu, longvideobench, lvbench, "
            "egoschema, video_holmes, longvideo_reason, streambench, screenspot, screenspot_v2, screenspot_pro, "
            "osworld_g, osworld, or rows for own data.",
        ),
    ] = "visual_search",
    data: DataOption = None,
    model: ModelOption = None,
    tool: ToolOption = None,
    set_: SetOption = None,
    seed: SeedOption = None,
    out: OutOption = None,
    limit: Annotated[int, typer.Option(min=0, help="First this many tasks; 0: all.")] = 0,
    parity: Annotated[bool, typer.Option(help="vstar: keep the options in file order (gold is always A).")] = False,
    subtitles: Annotated[bool, typer.Option(help="Video benchmarks: show subtitles at the frames.")] = False,
    resume: Annotated[bool, typer.Option(help="Reuse samples that are there already.")] = True,
    smoke: SmokeOption = False,
) -> None:
    """Evaluate a policy on a benchmark; a report page comes out."""
    nano = _NANO_SUITES.get(benchmark, "visual_search")
    recipe = recipe_for(recipe, model, nano=nano, other=_suite_of(benchmark))
    overrides = (["rollout.max_new_tokens=48"] if smoke else []) + _world_of(benchmark) + (set_ or [])
    settings = open_recipe(recipe, overrides, model=model, tools=tool, seed=seed)
    from mmturn.build import make_policy
    from mmturn.jobs.bars import counting
    from mmturn.jobs.benchmarks import open_suite
    from mmturn.jobs.evaluate import evaluate_policy

    folder = run_folder(out, "", f"eval-{benchmark}")
    suite = open_suite(
        benchmark, data, folder, count=8 if smoke else 256, levels=settings.data.levels, seed=settings.seed,
        parity=parity, subtitles=subtitles,
    )  # fmt: skip
    tasks = suite.tasks[:limit] if limit else suite.tasks
    policy = make_policy(settings, allow_code=True)
    with counting(benchmark) as progress:
        report = evaluate_policy(
            policy, tasks, folder, suite=suite.name, scorer=suite.scorer, seeds=dict(suite.seeds), groups=suite.groups,
            resume=resume, results=suite.results,
            progress=lambda done, total, row: progress(done, total),
        )  # fmt: skip
    from mmturn.jobs.benchmarks import summary

    say(f"{summary(report)}\n{folder / 'report.html'}")


def _world_of(benchmark: str) -> list[str]:
    """What makes a benchmark's world that of the recipe, so that ``data.levels`` are its own."""
    from mmturn.tasks.worlds import WORLDS

    return [f"data.train={benchmark}"] if benchmark in WORLDS else []


def _suite_of(benchmark: str) -> str:
    """The recipe under ``eval/`` that a released model is evaluated with."""
    if benchmark in ("visual_search", "vstar", "rows"):
        return "vstar"
    if benchmark in ("streambench", "osworld"):
        return benchmark
    if benchmark in ("miniwob", "sites"):
        return "browser"
    return "grounding" if benchmark.startswith(("screenspot", "osworld_g")) else "video"


def replay(
    run: Annotated[Path, typer.Argument(help="A run folder or a file of trajectories.")],
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="The recipe they were sampled with.")] = "nano_rl",
    model: ModelOption = None,
    set_: SetOption = None,
    tool: ToolOption = None,
    limit: Annotated[int, typer.Option(min=0, help="First this many trajectories; 0: all.")] = 0,
    logprobs: Annotated[bool, typer.Option(help="Recompute log-probs with the model too.")] = True,
) -> None:
    """Carry stored actions out again, grade again, recompute log-probs; name the first divergence."""
    settings = open_recipe(recipe, set_, model=model, tools=tool)
    from mmturn.jobs.replay import replay_run

    outcome = replay_run(settings, run, limit=limit, logprobs=logprobs)
    for divergence in outcome.divergences[:20]:
        say(f"diverges {divergence}", "red")
    gap = "not recomputed" if outcome.logprob_gap is None else f"{outcome.logprob_gap:.2g}"
    say(f"{outcome.count} trajectories, {len(outcome.divergences)} diverge; largest log-prob difference {gap}")
    if outcome.divergences:
        raise typer.Exit(1)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("train")(train)
    app.command("sft")(sft)
    app.command("prefer")(prefer)
    app.command("offline")(offline)
    app.command("mix")(mix)
    app.command("rollout")(rollout)
    app.command("eval")(evaluate)
    app.command("replay")(replay)
