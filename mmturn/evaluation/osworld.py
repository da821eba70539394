"""OSWorld's scores and its result folders, beside mmturn's own files.

Source: OSWorld's run loop (arXiv 2404.07972): ``<action space>/<observation type>/<model>/<domain>/<id>/`` with
``result.txt``, ``traj.jsonl`` and a screenshot for each step. Differs: there is neither a log nor a recording; a later
sample of a task goes to ``<id>_<sample>``; after the last step, the screenshot is that before it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mmturn.errors import DataError
from mmturn.evaluation.rows import ScoreRow
from mmturn.grammars.gui.computer_13 import Computer13Grammar
from mmturn.grammars.gui.dialect import Dialect
from mmturn.grammars.gui.pyautogui import PyautoguiGrammar
from mmturn.gui_actions import finish_status
from mmturn.rewards.env_score import told_score
from mmturn.types import Action, Json, Score, Trajectory, Turn, View

if TYPE_CHECKING:
    from mmturn.media.store import ImageStore

FOLDER = "osworld"
"""Name of the folder of results beside scores.jsonl."""
_SPACES: Mapping[str, Callable[[], Dialect]] = {"pyautogui": PyautoguiGrammar, "computer_13": Computer13Grammar}


class WorldScorer:
    """The score that the world gave, from 0 to 1. Raises DataError for a trajectory without one."""

    def __call__(self, trajectory: Trajectory) -> Score:
        """Verdict on one trajectory; ``meta["checks"]``: each metric that was computed, and its value."""
        score = told_score(trajectory)
        if score is None:
            raise DataError(f"trajectory {trajectory.id}: the world told no score")
        facts = (trajectory.facts, *(turn.facts for turn in reversed(trajectory.turns)))
        checks: Json = next((told["checks"] for told in facts if "checks" in told), [])
        said = next((told["status"] for told in facts if "status" in told), trajectory.stop.value)
        return Score(trajectory.task.id, score, "osworld/evaluator-1", said, {"checks": checks})


def write_results(
    folder: Path, trajectory: Trajectory, row: ScoreRow, images: ImageStore, *, model: str, observation: str
) -> Path:
    """Write one sample's folder as OSWorld does; its path. ``model`` and ``observation`` name the folders above it.

    A sample without a verdict has no result.txt, and its traj.jsonl ends with ``{"Error": ...}``.
    """
    domain = str(trajectory.task.meta.get("domain", "other"))
    name = trajectory.task.id.rpartition("/")[2] + (f"_{trajectory.index}" if trajectory.index else "")
    space = str(trajectory.meta.get("grammar", "other"))
    place = folder / FOLDER / _plain(space) / _plain(observation) / _plain(model) / _plain(domain) / _plain(name)
    place.mkdir(parents=True, exist_ok=True)
    for old in (*place.glob("step_*.png"), place / "result.txt"):
        old.unlink(missing_ok=True)
    lines = list(_lines(trajectory, space, place, images))
    if row.value is None:
        lines.append({"Error": row.error or row.stop})
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (place / "traj.jsonl").write_text(text, encoding="utf-8")
    if row.value is not None:
        part = place / "result.txt.part"
        part.write_text(f"{row.value}\n", encoding="utf-8")
        os.replace(part, place / "result.txt")
    return place


def _plain(name: str) -> str:
    """A name that is one folder."""
    return "".join(char if char.isalnum() or char in "-_.@ " else "_" for char in name).strip(". ") or "_"


def _lines(trajectory: Trajectory, space: str, place: Path, images: ImageStore) -> Iterator[dict[str, Json]]:
    seen: list[View] = []
    for number, turn in enumerate(trajectory.turns, start=1):
        seen += turn.views
        later = trajectory.turns[number].views if number < len(trajectory.turns) else ()
        shown = [*seen, *later][-1:]
        stamp = time.strftime("%Y%m%d@%H%M%S", time.localtime(turn.facts.get("time") or time.time()))
        file = f"step_{number}_{stamp}.png" if shown else ""
        if shown:
            (place / file).write_bytes(images.bytes(shown[0].source))
        for action in turn.actions or (None,):
            yield {
                "step_num": number,
                "action_timestamp": stamp,
                "action": None if action is None else _written(action, trajectory.views, space),
                "response": turn.text,
                "reward": 0,
                **_ended(action, turn),
                "screenshot_file": file,
            }


def _ended(action: Action | None, turn: Turn) -> dict[str, Json]:
    status = None if action is None else finish_status(action)
    info: dict[str, Json] = {} if turn.error is None else {"error": turn.error}
    if status is not None:
        info["done" if status == "success" else "fail"] = True
    return {"done": status is not None, "info": info}


def _written(action: Action, views: tuple[View, ...], space: str) -> Json:
    """An action in OSWorld's words, where the space has some for it; else as it is here."""
    status = finish_status(action)
    if status is not None:
        return "DONE" if status == "success" else "FAIL"
    if space in _SPACES:
        try:
            text = _SPACES[space]().format(action, views if action.view is None else views[: action.view + 1])
        except DataError:
            return {"action_type": action.name, "parameters": dict(action.arguments)}
        return text if space == "pyautogui" or text == "WAIT" else json.loads(text)
    return {"action_type": action.name, "parameters": dict(action.arguments)}
