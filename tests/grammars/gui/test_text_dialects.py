"""Dialects written as plain text or code: pyautogui, WebAgent-R1, VisualWebArena, ActiveVLN."""

from __future__ import annotations

import pytest

from mmturn.errors import ConfigError, DataError, ParseError
from mmturn.grammars.gui.active_vln import ActiveVlnConfig
from mmturn.gui_actions import act, finish
from mmturn.types import Action, Observation, Task
from tests.grammars.gui.worlds import dialect, read, screen

HERE: list[float] = [100.0, 200.0]


@pytest.mark.parametrize(
    ("code", "actions"),
    [
        ("pyautogui.click(100, 200)", [act("click", 0, point=HERE)]),
        (
            "pyautogui.click(x=100, y=200, clicks=2, button='right')",
            [act("click", 0, point=HERE, clicks=2, button="right")],
        ),
        ("pyautogui.click((100, 200))", [act("click", 0, point=HERE)]),
        ("pyautogui.click()", [act("click")]),
        ("pyautogui.doubleClick(100, 200)", [act("click", 0, point=HERE, clicks=2)]),
        ("pyautogui.tripleClick(100, 200)", [act("click", 0, point=HERE, clicks=3)]),
        ("pyautogui.rightClick(100, 200)", [act("click", 0, point=HERE, button="right")]),
        ("pyautogui.middleClick(100, 200)", [act("click", 0, point=HERE, button="middle")]),
        ("pyautogui.moveTo(100, 200, duration=0.5)", [act("move", 0, point=HERE)]),
        ("pyautogui.dragTo(100, 200, duration=1.0, button='left')", [act("drag", 0, path=[HERE], duration_s=1.0)]),
        ("pyautogui.moveTo(1, 2)\npyautogui.dragTo(100, 200)", [act("drag", 0, path=[[1, 2], HERE])]),
        ("pyautogui.mouseDown()\npyautogui.mouseUp()", [act("mouse_down"), act("mouse_up")]),
        ("pyautogui.scroll(5)", [act("scroll", dy=-5)]),
        ("pyautogui.scroll(-5, x=100, y=200)", [act("scroll", 0, point=HERE, dy=5)]),
        ("pyautogui.hscroll(3)", [act("scroll", dx=3)]),
        ("pyautogui.write('a < \\'b\\' é', interval=0.1)", [act("type", text="a < 'b' é")]),
        ("pyautogui.typewrite(message='x\\ny')", [act("type", text="x\ny")]),
        ("pyautogui.typewrite(['a', 'enter'])", [act("key", keys=["a"]), act("key", keys=["enter"])]),
        ("pyautogui.press('enter', presses=2)", [act("key", keys=["enter"])] * 2),
        ("pyautogui.press(['left', 'right'])", [act("key", keys=["left"]), act("key", keys=["right"])]),
        ("pyautogui.hotkey('ctrl', 'shift', 't')", [act("key", keys=["ctrl", "shift", "t"])]),
        (
            "pyautogui.keyDown('ctrl')\npyautogui.keyUp('ctrl')",
            [act("key_down", key="ctrl"), act("key_up", key="ctrl")],
        ),
        ("import pyautogui; import time; pyautogui.FAILSAFE = False; time.sleep(0.5)", [act("wait", duration_s=0.5)]),
        (
            "x, y = 100, 200\nname = 'Bob'\npyautogui.click(x, y)\npyautogui.write(name)",
            [act("click", 0, point=HERE), act("type", text="Bob")],
        ),
        ("import pyperclip\npyperclip.copy('北京')\npyautogui.hotkey('ctrl', 'v')", [act("type", text="北京")]),
        ("computer.terminate(status='failure')", [finish("", "failure")]),
        ("computer.wait()", [act("wait")]),
        ("computer.tripleClick(x=100, y=200)", [act("click", 0, point=HERE, clicks=3)]),
        ("computer.triple_click(x=100, y=200)", [act("click", 0, point=HERE, clicks=3)]),
        ("pyautogui.screenshot()", [act("screenshot")]),
        ("pyautogui.moveTo(100, 200, 1, pyautogui.easeInQuad)", [act("move", 0, point=HERE)]),
        ("pyautogui.click(100, 200, button=pyautogui.RIGHT)", [act("click", 0, point=HERE, button="right")]),
        ("pyautogui.press(['num5', 'add'])", [act("key", keys=["5"]), act("key", keys=["+"])]),
        ("pyautogui.click(100, 200)\nDONE", [act("click", 0, point=HERE), finish()]),
    ],
)
def test_pyautogui(code: str, actions: list[Action]) -> None:
    for text in (code, f"I act.\n```python\n{code}\n```"):
        assert read("pyautogui", text) == tuple(actions)


def test_code_in_several_blocks() -> None:
    """Those that say that they are Python count, and else the last."""
    click, done = act("click", 0, point=[1, 2]), finish()
    text = "It says\n```\nhello\n```\nso\n```python3\npyautogui.click(1, 2)\n```\nand\n```DONE```"
    assert read("pyautogui", text) == (click, done)
    assert read("pyautogui", "```\nhello\n```\n```\npyautogui.click(1, 2)\n```") == (click,)
    assert read("pyautogui", "```python pyautogui.click(1, 2)```") == (click,)


def test_aguvis_points_with_fractions() -> None:
    assert read("pyautogui", "pyautogui.click(x=0.5, y=0.25)", coordinates="unit") == (
        act("click", 0, point=[960, 270]),
    )


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.system('touch {path}')",
        "__import__('os').system('touch {path}')",
        'exec(\'open("{path}", "w")\')',
        "pyautogui.write(open('{path}', 'w').name)",
        "pyautogui.alert('{path}')",
        "for i in range(3): pyautogui.click(1, 2)",
        "pyautogui.click(*[open('{path}', 'w')])",
        "x = open('{path}', 'w')",
        "time.time()",
        "pyperclip.paste()",
        "pyautogui.moveRel(1, 2)",
        "pyautogui.press('a', presses=10**9)",
        "(lambda: open('{path}', 'w'))()",
        "pyautogui.click(1, 2",
        "pyautogui.click(" * 300,
        "pyperclip.copy('x')",
        "pyautogui.click(f'{path}', 1)",
        "pyautogui.click(place=(1, 2))",
        "pyautogui.write()",
        "pyautogui.write(pyautogui.__file__)",
        "",
    ],
)
def test_code_is_read_and_never_run(code: str, tmp_path: object) -> None:
    path = f"{tmp_path}/made"
    with pytest.raises(ParseError):
        read("pyautogui", code.replace("{path}", path))
    assert not __import__("pathlib").Path(path).exists()


def test_a_line_that_cannot_be_carried_out_is_named() -> None:
    with pytest.raises(ParseError, match=r"line 2: os\.remove cannot be carried out|line 2: .*carried out"):
        read("pyautogui", "pyautogui.click(1, 2)\nos.remove('x')")


def test_backticks_in_a_text_do_not_end_the_block() -> None:
    action = act("type", text="```python\nx```")
    assert read("pyautogui", dialect("pyautogui").format(action, [screen()], "why")) == (action,)


def answer(action: str, thought: str = "why") -> str:
    return f"<think> {thought} </think>\n<answer> {action} </answer>"


@pytest.mark.parametrize(
    ("written", "action"),
    [
        ('do(action="Click", element="5")', act("click", element="5")),
        ('do(action="Right Click", element="5")', act("click", element="5", button="right")),
        ('do(action="Type", argument="a < \'b\'", element="5")', act("type", text="a < 'b'", element="5", clear=True)),
        (
            'do(action="Search", argument="say "hi"", element="5")',
            act("type", text='say "hi"', element="5", enter=True, clear=True),
        ),
        ('do(action="Hover", element="5")', act("move", element="5")),
        ('do(action="Scroll Up")', act("scroll", dy=-1, unit="page")),
        ('do(action="Scroll Down")', act("scroll", dy=1, unit="page")),
        ('do(action="Press Enter")', act("key", keys=["enter"])),
        ('do(action="Switch Tab", argument="1")', act("focus_tab", index=1)),
        (
            'do(action="Select Dropdown Option", argument="Red", element="5")',
            act("select_option", option="Red", element="5"),
        ),
        ('do(action="Wait")', act("wait")),
        ('exit(message="N/A")', finish("N/A")),
        ("go_backward()", act("back")),
        ("go_forward()", act("forward")),
        ('# Element: the button\ndo(action="Click", element="5")\n# Note: done', act("click", element="5")),
        ('do(action="Click", element="5")  # Note: done', act("click", element="5")),
        (
            'do(action="Type", argument="a\n# b\nc", element="5")',
            act("type", text="a\n# b\nc", element="5", clear=True),
        ),
    ],
)
def test_webagent_r1(written: str, action: Action) -> None:
    assert read("webagent_r1", answer(written), []) == (action,)
    again = dialect("webagent_r1").format(action, [], "hm")
    assert again.startswith("<think> hm </think>\n<answer> ") and read("webagent_r1", again, []) == (action,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<answer> do(action="Wait") </answer>', "must begin with a thought"),
        (answer('do(action="Wait")\ndo(action="Wait")'), "exactly one action, got 2"),
        (answer('do(action="Fly")'), "no action 'Fly'"),
        (answer('do(action="Click")'), "Click needs an element"),
        (answer('do(action="Type", element="5")'), "needs the argument text"),
        (answer("fly()"), "no action 'fly'"),
        ("<think> a </think> nothing", "no <answer>"),
        (answer('do(action="Switch Tab", argument="x")'), "number of a tab"),
    ],
)
def test_webagent_r1_errors(text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        read("webagent_r1", text, [])


def test_webagent_r1_may_leave_out_its_thought() -> None:
    assert read("webagent_r1", '<answer>do(action="Wait")</answer>', [], think="optional") == (act("wait"),)


def summed_up(action: str) -> str:
    return f"Let me see. In summary, the next action I will perform is ```{action}```"


@pytest.mark.parametrize(
    ("written", "action"),
    [
        ("click [1234]", act("click", element="1234")),
        ("type [5] [a [b] < 'c'] [1]", act("type", element="5", text="a [b] < 'c'", enter=True)),
        ("type [5] [no enter] [0]", act("type", element="5", text="no enter")),
        ("type [5] [enter by default]", act("type", element="5", text="enter by default", enter=True)),
        ("type [5] [two\nlines é] [0]", act("type", element="5", text="two\nlines é")),
        ("hover [5]", act("move", element="5")),
        ("press [Ctrl+v]", act("key", keys=["ctrl", "v"])),
        ("press [Enter]", act("key", keys=["enter"])),
        ("scroll [down]", act("scroll", dy=1, unit="page")),
        ("scroll [up]", act("scroll", dy=-1, unit="page")),
        ("new_tab", act("new_tab")),
        ("tab_focus [2]", act("focus_tab", index=2)),
        ("close_tab", act("close_tab")),
        ("goto [https://a.b/?q=[1]]", act("goto", url="https://a.b/?q=[1]")),
        ("go_back", act("back")),
        ("go_forward", act("forward")),
        ("stop [N/A]", finish("N/A")),
        ("stop []", finish("")),
        ("stop", finish("")),
        ("scroll down", act("scroll", dy=1, unit="page")),
    ],
)
def test_visualwebarena(written: str, action: Action) -> None:
    assert read("visualwebarena", summed_up(written), []) == (action,)
    assert read("visualwebarena", f"So:\n```{written}```", []) == (action,)
    assert read("visualwebarena", dialect("visualwebarena").format(action, [], "hm"), []) == (action,)


def test_visualwebarena_s_words_behind_the_action() -> None:
    text = f"{summed_up('click [5]')}, since ```x``` is there."
    assert read("visualwebarena", text, []) == (act("click", element="5"),)
    assert read("visualwebarena", summed_up("stop [```5```]"), []) == (finish("```5```"),)


@pytest.mark.parametrize(
    "text", ["click [5]", summed_up("fly [5]"), summed_up("click"), summed_up("type [5]"), "``` ```"]
)
def test_visualwebarena_errors(text: str) -> None:
    with pytest.raises(ParseError):
        read("visualwebarena", text, [])


@pytest.mark.parametrize(
    ("written", "actions"),
    [
        ("move forward 25cm", [act("move_forward", distance_cm=25)]),
        (
            "move forward 75cm, turn left 15 degrees,stop",
            [act("move_forward", distance_cm=75), act("turn", degrees=15), finish()],
        ),
        ("turn right 45 degrees, turn left 30 degrees", [act("turn", degrees=-45), act("turn", degrees=30)]),
        ("stop", [finish()]),
        (", move forward 25cm,, stop,", [act("move_forward", distance_cm=25), finish()]),
    ],
)
def test_active_vln(written: str, actions: list[Action]) -> None:
    assert read("active_vln", written) == tuple(actions)
    assert read("active_vln", dialect("active_vln").format_turn(actions, [])) == tuple(actions)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "move forward 25 cm",
        "move forward 30cm",
        "turn left 60 degrees",
        "Move forward 25cm",
        "go",
        "stop.",
        "I stop",
        "move forward 25cm;stop",
        "turn left -15 degrees",
        ",",
        "stop, stop, stop, stop",
        "move forward 25cm\nstop",
        "<think></think>stop",
    ],
)
def test_active_vln_is_strict(text: str) -> None:
    with pytest.raises(ParseError):
        read("active_vln", text)


def test_rxr_turns_by_other_angles() -> None:
    assert read("active_vln", "turn left 90 degrees", turns_degrees=(30, 60, 90)) == (act("turn", degrees=90),)
    with pytest.raises(ParseError):
        read("active_vln", "turn left 15 degrees", turns_degrees=(30, 60, 90))
    with pytest.raises(ParseError, match="at most 1"):
        read("active_vln", "stop, stop", max_actions=1)
    assert read("active_vln", "move forward 10cm", steps_cm=(10,)) == (act("move_forward", distance_cm=10),)


@pytest.mark.parametrize("settings", [{"steps_cm": ()}, {"turns_degrees": (0,)}, {"max_actions": 0}])
def test_impossible_moves_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        ActiveVlnConfig(**settings)  # type: ignore[arg-type]


def test_active_vln_repeats_the_instruction() -> None:
    task, shown, vln = Task("a", "Go to the red pillar."), Observation((screen(),)), dialect("active_vln")
    first, later = vln.opening(task, shown), vln.reply(task, shown, 1, 40)
    assert first.text == "[Initial Observation]:\nInstruction: Go to the red pillar.\nDecide your next action."
    assert later.text == "After that, the observation is:\nInstruction: Go to the red pillar.\nDecide your next action."
    assert first.views == later.views == shown.views


def test_what_they_have_no_form_for() -> None:
    for name, action in (
        ("active_vln", act("turn", degrees=20)),
        ("visualwebarena", act("click", element="5", button="right")),
        ("webagent_r1", act("scroll", dy=2, unit="page")),
        ("pyautogui", act("click", 0, point=[1, 2], modifiers=["ctrl"])),
    ):
        with pytest.raises(DataError, match=name):
            dialect(name).format(action, [screen()])
