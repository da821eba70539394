"""What can be demonstrated: where to look in images, when to look in videos, where to click on pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mmturn.evaluation.report import GroupReport

Charts = tuple[tuple[str, Mapping[str, str], str], ...]
"""Title, metric by name of the line, unit."""

ACCURACY = ("Accuracy of the rollouts", {"answer": "reward/answer"}, "share")
REWARD = ("Reward", {"reward": "reward/total"}, "number")


@dataclass(frozen=True)
class Demo:
    """One demo: its command, its recipe, what its page says. ``looks`` names the share that ``rate`` gives
    (empty: there is none)."""

    command: str
    recipe: str
    title: str
    note: str
    charts: Charts
    looks: str = ""
    rate: Callable[[GroupReport], float | None] = lambda group: None


DEMOS = {
    "images": Demo(
        command="mmturn demo",
        recipe="nano_rl",
        title="A small policy learns where to look",
        note="Details that cannot be read in the overview; a crop shows them. Multi-turn RL teaches where to crop.",
        charts=(
            ACCURACY,
            (
                "Looks",
                {"crops that contain the gold region": "rollout/useful_crop", "valid format": "reward/format"},
                "share",
            ),
            REWARD,
        ),
        looks="useful crops",
        rate=lambda group: group.useful_crop_rate,
    ),
    "video": Demo(
        command="mmturn demo video",
        recipe="nano_video_rl",
        title="A small policy learns when to look",
        note="Half a second decides, which the opening frames miss. Multi-turn RL teaches which stretch to ask for.",
        charts=(
            ACCURACY,
            ("Looks", {"saw the gold stretch": "reward/gold_frame", "valid format": "reward/format"}, "share"),
            REWARD,
        ),
        looks="saw the gold stretch",
        rate=lambda group: group.gold_seen_rate,
    ),
    "gui": Demo(
        command="mmturn demo gui",
        recipe="nano_gui_rl",
        title="A small policy learns where to click",
        note="MiniWoB++'s pages in a real browser. It clicks beside the widgets, until multi-turn RL brings it there.",
        charts=(
            ("Tasks solved in the rollouts", {"solved": "reward/env_score"}, "share"),
            REWARD,
        ),
    ),
}
"""By the word that follows ``mmturn demo``; ``images`` may be left out."""
