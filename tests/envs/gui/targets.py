"""Where clicks are meant to land, in every dialect and by every coordinate rule."""

from __future__ import annotations

from mmturn.families.qwen2_5_vl.spec import FAMILY as QWEN2_5
from mmturn.families.qwen3_vl.spec import FAMILY as QWEN3
from mmturn.registry import GRAMMARS

RULES = {
    "tool_call": ("view_px", "permille", "unit"),
    "ui_tars": ("view_px", "permille", "ui_tars_px"),
    "ui_tars_xml": ("permille",),
    "qwen_computer_use": ("qwen2_5_px", "permille", "grid999"),
    "claude_computer": ("view_px",),
    "openai_computer": ("view_px",),
    "computer_13": ("screen_px",),
    "pyautogui": ("screen_px", "unit"),
}
CASES = [(name, rule) for name, rules in RULES.items() for rule in rules]
TARGETS = ((640.0, 360.0), (3.0, 5.0), (1270.0, 711.0), (217.0, 498.0))


def dialect(name, rule):
    cls = GRAMMARS.resolve(name)
    key = "frame" if name == "tool_call" else "coordinates"
    return cls(cls.Config(**{key: rule}))


SIZES = ((QWEN2_5.size_rule, (3_136, 1_003_520)), (QWEN3.size_rule, (3_136, 300_000)))
"""Size rules and budgets by which a screen of 1280 x 720 is shown."""


def slack_px(rule, scale_x, scale_y):
    """What the dialect cannot say finer: a thousandth of the screen, or a whole pixel of what was shown."""
    return (1280 / 1000, 720 / 1000) if rule in ("permille", "grid999") else (1 / scale_x, 1 / scale_y)
