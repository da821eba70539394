"""Names in configs, data and on the command line -> the Python objects behind them.

Tables hold strings only, so that a name costs an import when it is used and not before. Packages add
names through entry points (group ``mmturn.<kind>``); a file of one's own is named ``./file.py:Name`` and is
loaded only where the user said so on the command line or in their own config.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from mmturn.errors import ConfigError


class Registry:
    """The names of one kind of component.

    ``table`` maps a name to ``"module:attribute"``. Built-in names cannot be replaced by entry points.
    """

    def __init__(self, kind: str, table: Mapping[str, str]) -> None:
        self.kind = kind
        self.table = dict(table)

    def names(self) -> tuple[str, ...]:
        """Every name that resolves, sorted: built in and from installed packages."""
        return tuple(sorted({*self.table, *_entry_points(self.kind)}))

    def resolve(self, name: str, allow_code: bool = False) -> Any:
        """The object behind ``name``.

        ``./file.py:Name`` runs that file, and only with ``allow_code=True``: pass it for names that the user
        typed, never for names read from a checkpoint or a dataset. Raises ConfigError.
        """
        if names_code(name):
            if not allow_code:
                raise ConfigError(
                    f"{self.kind} {name!r}: code from a file is loaded only when you name it on the command line "
                    "or in your own config, not from stored data"
                )
            return load_code(name)
        if name in self.table:
            return _load(self.table[name], f"{self.kind} {name!r}")
        found = _entry_points(self.kind).get(name)
        if found is not None:
            return _load(found, f"{self.kind} {name!r}")
        names = self.names()
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; nearest is {near[0]!r}" if near else ""
        raise ConfigError(f"no {self.kind} named {name!r}{hint} (known: {', '.join(names)}; your own: ./file.py:Name)")


def names_code(name: str) -> bool:
    """Whether ``name`` means an object in a Python file (``path/to/file.py:Name``) rather than a known name."""
    path, colon, attribute = name.rpartition(":")
    return bool(colon) and path.endswith(".py") and attribute.isidentifier()


def load_code(name: str) -> Any:
    """Run ``path/to/file.py`` (once for each content) and take ``Name`` from it. Relative paths start at the
    current folder. Raises ConfigError when the file is missing, does not run or has no such name."""
    path_text, _, attribute = name.rpartition(":")
    path = Path(path_text).expanduser().resolve()
    if not path.is_file():
        raise ConfigError(f"{name}: there is no file {path}")
    module = _module_from(path)
    if not hasattr(module, attribute):
        public = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        raise ConfigError(f"{name}: {path.name} defines no {attribute!r}; it defines: {', '.join(public) or 'nothing'}")
    return getattr(module, attribute)


def _module_from(path: Path) -> ModuleType:
    digest = hashlib.sha256(str(path).encode() + b"\0" + path.read_bytes()).hexdigest()[:16]
    module_name = f"mmturn_code_{path.stem}_{digest}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    # dataclasses and pickle look a class's module up while the file still runs
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise ConfigError(f"{path} does not run: {type(error).__name__}: {error}") from error
    return module


def _load(target: str, what: str) -> Any:
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"{what} ({target}) cannot be imported: {error}") from error
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise ConfigError(f"{what}: module {module_name} has no {attribute!r}") from error


@cache
def _entry_points(kind: str) -> Mapping[str, str]:
    from importlib.metadata import entry_points  # slow to import, and needed for unknown names only

    return {point.name: point.value for point in entry_points(group=f"mmturn.{kind}")}


GRAMMARS = Registry(
    "grammar",
    {
        "active_vln": "mmturn.grammars.gui.active_vln:ActiveVlnGrammar",
        "claude_computer": "mmturn.grammars.gui.claude:ClaudeGrammar",
        "computer_13": "mmturn.grammars.gui.computer_13:Computer13Grammar",
        "framethinker": "mmturn.grammars.framethinker:FrameThinkerGrammar",
        "mgpo": "mmturn.grammars.mgpo:MgpoGrammar",
        "mobile_r1": "mmturn.grammars.gui.mobile_r1:MobileR1Grammar",
        "openai_computer": "mmturn.grammars.gui.openai_computer:OpenAIGrammar",
        "pyautogui": "mmturn.grammars.gui.pyautogui:PyautoguiGrammar",
        "qwen_computer_use": "mmturn.grammars.gui.qwen:QwenComputerGrammar",
        "qwen_mobile_use": "mmturn.grammars.gui.qwen:QwenMobileGrammar",
        "tool_call": "mmturn.grammars.tool_call:ToolCallGrammar",
        "ui_tars": "mmturn.grammars.gui.ui_tars:UiTarsGrammar",
        "ui_tars_xml": "mmturn.grammars.gui.ui_tars_xml:UiTarsXmlGrammar",
        "video_mtr": "mmturn.grammars.video_mtr:VideoMtrGrammar",
        "visualwebarena": "mmturn.grammars.gui.visualwebarena:VisualWebArenaGrammar",
        "webagent_r1": "mmturn.grammars.gui.webagent_r1:WebAgentR1Grammar",
    },
)
"""Action grammars: classes built from their config."""

TOOLS = Registry(
    "tool",
    {
        "crop": "mmturn.tools.crop:CropTool",
        "zoom": "mmturn.tools.zoom:ZoomTool",
        "rotate": "mmturn.tools.rotate:RotateTool",
        "frame_number": "mmturn.tools.frames:FrameNumberTool",
        "frames": "mmturn.tools.frames:FramesTool",
        "span": "mmturn.tools.frames:SpanTool",
    },
)
"""Tools: classes built from their config."""

ENVS = Registry(
    "env",
    {
        "visual_qa": "mmturn.envs.visual_qa:VisualQA",
        "video_qa": "mmturn.envs.video_qa:VideoQA",
        "video_stream": "mmturn.envs.video_stream:VideoStream",
        "self_check": "mmturn.envs.self_check:SelfCheck",
        "board": "mmturn.envs.board:Board",
        "browser": "mmturn.envs.gui.browser.env:BrowserEnv",
        "desktop": "mmturn.envs.gui.desktop.env:DesktopEnv",
        "grounding": "mmturn.envs.grounding:Grounding",
        "navigation": "mmturn.envs.navigation:Navigation",
        "osworld": "mmturn.envs.gui.osworld.env:OSWorldEnv",
    },
)
"""Environments."""

REWARDS = Registry(
    "reward",
    {
        "action_match": "mmturn.rewards.clicks:action_match",
        "arrived": "mmturn.rewards.navigation:arrived",
        "walk": "mmturn.rewards.navigation:WalkReward",
        "answer": "mmturn.rewards.answer:AnswerReward",
        "board_result": "mmturn.rewards.board:board_result",
        "click_hit": "mmturn.rewards.clicks:click_hit",
        "env_score": "mmturn.rewards.env_score:EnvScore",
        "format": "mmturn.rewards.format:FormatReward",
        "frame_iou": "mmturn.rewards.frames:frame_iou",
        "frame_saving": "mmturn.rewards.frames:FrameSaving",
        "framethinker": "mmturn.rewards.framethinker:FrameThinkerReward",
        "gold_frame": "mmturn.rewards.frames:GoldFrame",
        "span_iou": "mmturn.rewards.frames:SpanIou",
        "stream_answers": "mmturn.rewards.stream:stream_answers",
        "grounding_iou": "mmturn.rewards.grounding:GroundingIou",
        "look_iou": "mmturn.rewards.grounding:look_iou",
        "point_in_box": "mmturn.rewards.grounding:PointInBox",
        "gold_in_crop": "mmturn.rewards.grounding:GoldInCrop",
        "tool_calls": "mmturn.rewards.looks:tool_calls",
        "tool_use": "mmturn.rewards.tool_use:ToolUse",
        "self_check": "mmturn.rewards.self_check:SelfCheckReward",
    },
)
"""Reward functions."""

ENGINES = Registry(
    "engine",
    {"hf": "mmturn.engines.hf:HFEngine", "scripted": "mmturn.engines.scripted:ScriptedEngine"},
)
"""Engines that sample completions."""

_PIECES = "mmturn.credit.pieces"

SHAPES = Registry(
    "shape",
    {
        **{
            name: f"{_PIECES}.shape:{name}"
            for name in (
                "gate", "overlong", "status", "no_action", "improvement", "video_mtr", "revision_bonus",
                "generation_gain",
            )
        },
        "curiosity": f"{_PIECES}.explore:curiosity",
        "exploration": f"{_PIECES}.explore:Exploration",
    },
)  # fmt: skip
"""Boxes of a method that change the rewards of a trajectory."""

CREDITS = Registry(
    "credit",
    {
        name: f"{_PIECES}.credit:{name}"
        for name in (
            "total", "outcome", "own_turn", "returns", "returns_less_others", "token_returns", "mt_grpo",
            "mt_grpo_two_turn", "igpo", "gae", "bilevel_gae", "turn_gae", "tapo", "q_minus_v",
        )
    },
)  # fmt: skip
"""Boxes of a method that say what the trajectories of a group are worth."""

NORMALISERS = Registry(
    "normalise",
    {
        **{
            name: f"{_PIECES}.normalise:{name}"
            for name in ("group", "leave_one_out", "whiten", "by_role", "by_task", "less_values")
        },
        "seat_baseline": f"{_PIECES}.normalise:SeatBaseline",
    },
)
"""Boxes of a method that make advantages of what trajectories are worth."""

SELECTS = Registry(
    "select",
    {
        name: f"{_PIECES}.select:{name}"
        for name in (
            "finished", "with_signal", "nonzero", "mixed", "solved", "top_spread", "no_void_turns", "high_entropy",
            "fresh",
        )
    },
)  # fmt: skip
"""Boxes of a method that say what is trained on."""

CONTEXTS = Registry(
    "context",
    {
        "append": "mmturn.rollout.context.append:AppendOnly",
        "window": "mmturn.rollout.context.window:Window",
        "placeholder": "mmturn.rollout.context.placeholder:Placeholder",
        "keep_images": "mmturn.rollout.context.images:KeepImages",
        "history": "mmturn.rollout.context.history:History",
        "tool_window": "mmturn.rollout.context.tool_window:ToolWindow",
        "summary": "mmturn.rollout.context.summary:Summary",
        "memory": "mmturn.rollout.context.memory:Memory",
        "stream": "mmturn.rollout.context.stream:Stream",
    },
)
"""Context policies: classes built from their config."""

FAMILIES = Registry(
    "family",
    {
        "qwen2_5_vl": "mmturn.families.qwen2_5_vl.spec:FAMILY",
        "qwen3_vl": "mmturn.families.qwen3_vl.spec:FAMILY",
        "nano": "mmturn.families.nano.spec:FAMILY",
    },
)
"""Model families."""

REGISTRIES: tuple[Registry, ...] = (
    GRAMMARS, TOOLS, ENVS, REWARDS, ENGINES, SHAPES, CREDITS, NORMALISERS, SELECTS, CONTEXTS, FAMILIES,
)  # fmt: skip
"""Every registry, for ``mmturn recipes`` and the tests."""
