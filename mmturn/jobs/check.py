"""Is a file of tasks fit to train on? Every row, image, box and gold answer is tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mmturn.errors import DataError, MmturnError
from mmturn.families.size_rules import processor_rule
from mmturn.geometry import Box, Size
from mmturn.interfaces import RewardFn
from mmturn.media import ImageStore
from mmturn.media.video import FrameLook, VideoReader, VideoStore
from mmturn.media.video.sampling import uniform
from mmturn.media.views import fit
from mmturn.recipe import Recipe
from mmturn.rewards.answer import AnswerReward
from mmturn.rewards.gold import gold_trajectory, grade_gold
from mmturn.rewards.rubric import WeightedRubric, rubric_of
from mmturn.tasks.rows import RowProblem, scan_tasks
from mmturn.tasks.vstar import read_vstar
from mmturn.types import Json, Observation, PixelBudget, Task, Trajectory, View

_FACTOR = 28
_BUDGET = PixelBudget(4 * _FACTOR**2, 1280 * _FACTOR**2)
_FRAMES, _FRAME_BUDGET = 8, PixelBudget(4 * _FACTOR**2, 128 * _FACTOR**2)


@dataclass(frozen=True)
class Checked:
    """What a check found."""

    tasks: tuple[Task, ...]
    """The good ones."""
    problems: tuple[RowProblem, ...]
    """The bad ones, in the order of the file."""
    sizes: dict[str, Size]
    """Pixels of each image that could be opened, by path."""

    @property
    def rows(self) -> int:
        """All rows of the file."""
        return len(self.tasks) + len(self.problems)


def check_rows(
    path: Path, recipe: Recipe, *, allow_code: bool = False, progress: Callable[[int, int], None] | None = None
) -> Checked:
    """Try every row of a task file, or every sample of a folder in V*'s layout, with the recipe's rewards.

    Raises DataError where the file cannot be read at all or holds no row, ConfigError for a wrong reward.
    """
    rubric = rubric_of(recipe.reward, allow_code)
    numbered: list[tuple[int | None, Task]] = []
    if path.is_dir():
        tasks, problems = read_vstar(path)
        numbered += [(None, task) for task in tasks]
    else:
        rows, problems = scan_tasks(path)
        numbered += rows
    if not numbered and not problems:
        raise DataError(f"{path} holds no rows; each line must be an object with image, question and answer")
    store = ImageStore(decoded_bytes=1 << 26, view_bytes=1 << 20)
    good: list[Task] = []
    sizes: dict[str, Size] = {}
    with VideoStore() as videos:
        for number, (line, task) in enumerate(numbered, 1):
            reason = problem_of(task, rubric, store, videos, sizes)
            if reason is None:
                good.append(task)
            else:
                where = task.id if line is None else f"{path}:{line}"
                problems.append(RowProblem(where, reason, line))
            if progress is not None:
                progress(number, len(numbered))
    problems.sort(key=lambda problem: problem.line or 0)
    return Checked(tuple(good), tuple(problems), sizes)


def problem_of(
    task: Task, rubric: WeightedRubric, store: ImageStore, videos: VideoStore, sizes: dict[str, Size]
) -> str | None:
    """What is wrong with a task, or None. The sizes of its images go into ``sizes``."""
    try:
        for path in task.images:
            if path not in sizes:
                size = store.put_file(path).size
                _size_rule(size, _BUDGET)
                sizes[path] = size
        reason = _video_problem(task, videos)
    except DataError as error:
        return str(error)
    if reason:
        return reason
    if task.boxes and not task.images:
        return "boxes without an image"
    for box in task.boxes:
        reason = _outside(box, sizes[task.images[0]])
        if reason:
            return reason
    if task.answer is None:
        return "no gold answer: no reward can grade it (answer is null)"
    try:
        graded = grade_gold(task, _answer_reward(rubric))
        rubric(gold_trajectory(task))
    except MmturnError as error:
        return f"the gold answer cannot be graded: {error}"
    if graded != 1.0:
        return f"the gold answer {task.answer!r:.80} scores {graded:g}, not 1: no policy could ever be right"
    return None


def _video_problem(task: Task, videos: VideoStore) -> str | None:
    """What is wrong with a task's video or its gold stretches. Raises DataError for a file that cannot be read, or
    frames of its overview that cannot be decoded."""
    if task.video is None:
        return None
    reader = videos.open(task.video)
    reader.frames(_picked(reader), Size(_FACTOR, _FACTOR))
    end = reader.info.duration_s
    late = [span for span in task.spans if end is not None and span.end_s > end + 1]
    if not late or end is None:
        return None
    return f"the span [{late[0].start_s:g}, {late[0].end_s:g}] reaches beyond the video, which lasts {float(end):.1f} s"


def gold_page(checked: Checked, out: Path, limit: int = 60) -> Path:
    """A page of the first tasks with their gold boxes drawn, as a 1280-token policy would see the images."""
    from mmturn.viewer import write_page

    store = ImageStore()
    shown: list[Trajectory] = []
    with VideoStore() as videos:
        for task in checked.tasks[:limit]:
            views = [fit(store.put_file(path), _size_rule, _BUDGET) for path in task.images]
            frames, facts = _overview(task, store, videos)
            gold = gold_trajectory(task)
            observation = Observation((*views, *frames, task.question))
            turn = replace(gold.turns[0], observation=observation, facts={**gold.turns[0].facts, **facts})
            shown.append(replace(gold, turns=(turn,)))
        note = f"{len(checked.tasks)} good rows, {len(checked.problems)} bad; the first {len(shown)} with gold answers"
        return write_page(out, shown, store, title="Task rows", note=note, max_side_px=768)


def _picked(reader: VideoReader) -> list[int]:
    return uniform(0, len(reader.clock()) - 1, _FRAMES)


def _overview(task: Task, store: ImageStore, videos: VideoStore) -> tuple[list[View], dict[str, Json]]:
    """A few frames of a task's video and what a page's time line reads; nothing where it has none. Raises DataError."""
    if task.video is None:
        return [], {}
    reader = videos.open(task.video)
    clock, picked = reader.clock(), _picked(reader)
    views = FrameLook(store, _size_rule, _FRAME_BUDGET).views(reader, picked)
    opening = [[number, float(clock.seconds(number))] for number in picked]
    return views, {"opening": opening, "video": {"frames": len(clock), "seconds": float(clock.duration_s)}}


def _size_rule(size: Size, budget: PixelBudget) -> Size:
    """Qwen2.5-VL's; all families refuse the same images."""
    return processor_rule(size, budget, _FACTOR)


def _answer_reward(rubric: WeightedRubric) -> RewardFn:
    """The recipe's own answer reward, with its settings; the default one where the recipe has none."""
    return rubric.functions.get("answer", AnswerReward())


def _outside(box: Box, size: Size) -> str | None:
    bounds = Box(0, 0, size.width, size.height)
    if bounds.contains(box):
        return None
    numbers = [f"{value:g}" for value in box.as_tuple()]
    return f"the box [{', '.join(numbers)}] reaches outside the image of {size.width} x {size.height} px"
