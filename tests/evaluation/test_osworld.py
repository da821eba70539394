"""OSWorld's scores, its result folders, and tasks that are not runnable: counted apart, never 0."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from mmturn.evaluation.osworld import WorldScorer, write_results
from mmturn.evaluation.report import make_report
from mmturn.evaluation.rows import ScoreRow, read_rows, run_info, score_trajectory
from mmturn.evaluation.runner import evaluate
from mmturn.geometry import Size, Transform
from mmturn.gui_actions import act, finish
from mmturn.jobs.benchmarks import open_suite, summary
from mmturn.media import ImageStore
from mmturn.types import Action, Observation, StopReason, Task, Trajectory, Turn, View
from tests.envs.gui.osworld.samples import as_task, task_file, write_suite

INFO = run_info("osworld", {}, groups=("domain", "feasible"))
STAMP = 1_750_000_000.0


@pytest.fixture
def store() -> ImageStore:
    return ImageStore()


def view_of(store: ImageStore, shade: int) -> View:
    ref = store.put_image(Image.new("RGB", (40, 30), (shade, 0, 0)))
    return View(ref, Transform(), Size(40, 30))


def played(
    store: ImageStore, *turns: tuple[Action, ...], stop: StopReason = StopReason.ANSWERED, space: str = "pyautogui",
    score: float | None = 1.0, name: str = "a", index: int = 0,
) -> Trajectory:  # fmt: skip
    made = []
    for k, actions in enumerate(turns):
        last = {"score": score, "checks": [["exact_match", score]]} if k == len(turns) - 1 and score is not None else {}
        shown = Observation((view_of(store, k),))
        made.append(Turn(k, shown, f"reply {k}", actions=actions, facts={"time": STAMP + k, **last}))
    error = "the guest died" if stop.status == "failed" else None
    task = as_task("vlc", id=name)
    return Trajectory(
        f"{task.id}@0#{index}", task, "g", index, 0, tuple(made), stop, error=error, meta={"grammar": space}
    )


def write(folder: Path, trajectory: Trajectory, store: ImageStore) -> Path:
    row = score_trajectory(trajectory, WorldScorer(), INFO)
    return write_results(folder, trajectory, row, store, model="Qwen2.5", observation="screenshot")


CLICK = act("click", 0, point=[3, 4])


def test_the_layout(store, tmp_path):
    typed = act("type", text="é\n")
    place = write(tmp_path, played(store, (CLICK, typed), (finish(),), score=0.5), store)
    assert place == tmp_path / "osworld/pyautogui/screenshot/Qwen2.5/vlc/a"
    assert (place / "result.txt").read_text() == "0.5\n"
    lines = [json.loads(line) for line in (place / "traj.jsonl").read_text().splitlines()]
    assert [line["step_num"] for line in lines] == [1, 1, 2]
    assert [line["action"] for line in lines] == ["pyautogui.click(3, 4)", "pyautogui.write('é\\n')", "DONE"]
    assert [line["done"] for line in lines] == [False, False, True] and lines[-1]["info"] == {"done": True}
    assert set(lines[0]) == {
        "step_num",
        "action_timestamp",
        "action",
        "response",
        "reward",
        "done",
        "info",
        "screenshot_file",
    }
    assert lines[0]["response"] == "reply 0" and lines[0]["reward"] == 0
    shots = sorted(path.name for path in place.glob("*.png"))
    assert shots == sorted({line["screenshot_file"] for line in lines}) and len(shots) == 2
    with Image.open(place / lines[0]["screenshot_file"]) as image:
        assert image.getpixel((0, 0)) == (1, 0, 0), "what was seen after the step"


def test_the_words_of_computer_13_and_of_other_dialects(store, tmp_path):
    scroll = act("scroll", 0, point=[1, 2], dy=1)
    place = write(
        tmp_path,
        played(store, (CLICK, act("wait"), scroll), (finish(status="infeasible"),), space="computer_13", score=0.0),
        store,
    )
    actions = [json.loads(line)["action"] for line in (place / "traj.jsonl").read_text().splitlines()]
    assert actions == [
        {"action_type": "CLICK", "parameters": {"x": 3, "y": 4}}, "WAIT",
        {"action_type": "scroll", "parameters": {"point": [1.0, 2.0], "dy": 1}}, "FAIL",
    ]  # fmt: skip
    place = write(tmp_path, played(store, (CLICK,), space="ui_tars"), store)
    [line] = (place / "traj.jsonl").read_text().splitlines()
    assert json.loads(line)["action"] == {"action_type": "click", "parameters": {"point": [3.0, 4.0]}}


def test_a_failure_has_no_result_and_the_next_run_clears_it(store, tmp_path):
    failed = played(store, (CLICK,), stop=StopReason.ENV_FAILED, score=None)
    place = write(tmp_path, failed, store)
    assert not (place / "result.txt").exists()
    assert json.loads((place / "traj.jsonl").read_text().splitlines()[-1]) == {"Error": "the guest died"}
    assert write(tmp_path, played(store, (finish(),)), store) == place
    assert (place / "result.txt").read_text() == "1.0\n" and len(list(place.glob("step_*.png"))) == 1
    later = write(tmp_path, played(store, (finish(),), index=1), store)
    assert later.name == "a_1"


def test_scores_come_from_the_conclusion_or_the_last_turn(store):
    answered = played(store, (CLICK,), (finish(),), score=0.25)
    score = WorldScorer()(answered)
    assert (score.value, score.meta["checks"], score.extractor) == (
        0.25,
        [["exact_match", 0.25]],
        "osworld/evaluator-1",
    )
    limit = Trajectory("x", answered.task, "g", 0, 0, (), StopReason.TURN_LIMIT, facts={"score": 0.75, "checks": []})
    assert WorldScorer()(limit).value == 0.75 and WorldScorer()(limit).answer == "turn_limit"
    row = score_trajectory(played(store, (CLICK,), score=None), WorldScorer(), INFO)
    assert row.value is None and "told no score" in (row.error or "")


def test_what_is_not_runnable_is_counted_apart(store, tmp_path):
    lacking = Trajectory(
        "x", as_task(id="b"), "g", 0, 0, (), StopReason.NOT_RUNNABLE, error="task os/b: it needs the application gimp"
    )
    good, bad = played(store, (finish(),)), played(store, (finish(),), score=0.0, name="c")
    made = {one.task.id: one for one in (lacking, good, bad)}
    written: list[ScoreRow] = []
    report = evaluate(
        [one.task for one in made.values()], lambda tasks: iter([made[task.id] for task in tasks]), WorldScorer(),
        tmp_path, info=INFO, images=store, also=lambda trajectory, row: written.append(row),
    )  # fmt: skip
    assert (report.overall.n, report.overall.num_not_runnable, report.overall.num_failed) == (3, 1, 0)
    assert report.overall.accuracy == report.overall.accuracy_failed_wrong == 0.5
    assert report.not_runnable == {"os/b": "task os/b: it needs the application gimp"} and report.errors == ()
    assert report.by["domain"]["os"].accuracy is None and report.by["domain"]["vlc"].accuracy == 0.5
    assert (
        "1 not runnable here, not scored" in summary(report)
        and "1 not runnable" in (tmp_path / "report.html").read_text()
    )
    assert json.loads((tmp_path / "report.json").read_text())["not_runnable"] == dict(report.not_runnable)
    rows = list(read_rows(tmp_path))
    assert len(written) == 3 and make_report(INFO, rows).not_runnable == report.not_runnable


def test_the_suite(tmp_path, capsys):
    folder = write_suite(tmp_path / "d", {"os": [task_file("a"), {**task_file("b"), "evaluator": {}}]})
    suite = open_suite("osworld", folder, tmp_path)
    assert [task.id for task in suite.tasks] == ["os/a"] and suite.groups == ("domain", "feasible")
    assert suite.results is write_results and "1 samples left out" in capsys.readouterr().out
    assert isinstance(suite.tasks[0], Task)
