"""Pages in a real browser: hostile text does nothing and is shown; filters, tokens and reports are drawn."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmturn.evaluation.report import compare, make_report
from mmturn.evaluation.rows import run_info, score_trajectory
from mmturn.evaluation.suites import AnswerScorer, SolvedScorer
from mmturn.geometry import Box
from mmturn.media.store import ImageStore
from mmturn.types import Action, ImageRef, Observation, Reward, StopReason, Task, Trajectory, Turn
from mmturn.viewer import (
    Baseline,
    Costs,
    Curve,
    RunReport,
    Section,
    Stage,
    StageSeconds,
    Work,
    pair_up,
    write_page,
    write_report,
)

pytestmark = pytest.mark.browser

Dump = Callable[..., str]
Make = Callable[..., Trajectory]
Images = tuple[ImageStore, ImageRef]

HIT = "document.title='HIT';document.documentElement.dataset.hit=1"
ATTACKS = (
    f"<script>{HIT}</script>",
    f"</script><script>{HIT}</script>",
    f'<img src=x onerror="{HIT}">',
    f'"><svg onload="{HIT}">',
    f"javascript:{HIT}",
    f"' onmouseover='{HIT}' style='animation:x' x='",
    f"<!--<script>{HIT}//-->",
    f'</title><body onload={HIT}><iframe srcdoc="<script>top.{HIT}</script>">',
    "\u202e)1(trela\u202c \u2066 \u2028\u2029 \x00\x1b[31m \ud800 ${document.title=1} `{{7*7}}`",
    f'<details open ontoggle="{HIT}">&lt;b&gt;&#60;script&#62;',
    "__proto__",
)
EVIL = " | ".join(ATTACKS)


def hostile(ref: ImageRef, build: Make, attack: str) -> Trajectory:
    """A trajectory with the attack in every text that it has."""
    base = build(0)
    view = base.turns[0].observation.views[0]
    task = Task(
        id=attack,
        question=attack,
        images=(attack,),
        answer="A",
        choices=(attack, attack),
        answer_type="choice",
        boxes=(Box(1, 1, 99, 99),),
        meta={"level": attack, "category": attack, attack: attack, "__proto__": {"x": attack}},
    )
    turn = Turn(
        0,
        Observation((attack, view, attack), is_error=True),
        attack,
        (1, 2, 2, 3, 4),
        "tioss",
        (-0.1, -0.2),
        actions=(
            Action("tool", attack, {attack: attack, "box": [1, 2, 3, 4]}, 0),
            Action("answer", attack, {"text": attack}),
        ),
        error=attack,
        seat=attack,
        facts={attack: attack},
        purpose=attack,
        unseen=Observation((attack, view), is_error=True),
    )
    return replace(
        base,
        id=attack,
        task=task,
        group=attack,
        turns=(turn,),
        answer=attack,
        error=attack,
        reward=Reward(1.0, 1.0, (0.0,), {attack: 1.0, "__proto__": 2.0}),
        advantages=(0.5,),
        meta={"label": attack, attack: {attack: attack}, "constructor": attack},
    )


def text_of(document: str) -> str:
    """What a reader sees: text outside scripts and styles."""
    body = document[document.index("<body") :]
    body = re.sub(r"<script\b.*?</script>", "", body, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]*>", " ", body))


def assert_inert(document: str, title: str) -> None:
    assert f"<title>{html.escape(title, quote=False)}</title>" in document.replace("&quot;", '"')
    assert "data-hit" not in document[: document.index("<head")]
    body = re.sub(r"<script\b[^>]*>.*?</script>", "", document[document.index("<body") :], flags=re.DOTALL)
    tags = re.findall(r"<[a-zA-Z][^>]*>", re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL))
    assert not [tag for tag in tags if re.search(r"<(iframe|script|object|embed|link|base)\b", tag)]
    assert not [tag for tag in tags if re.search(r"\son\w+\s*=", re.sub(r'"[^"]*"', '""', tag))]


def test_hostile_text_does_nothing_and_is_shown(tmp_path: Path, dump: Dump, make: Make, picture: Images) -> None:
    trajectories = [hostile(picture[1], make, attack) for attack in (EVIL, *ATTACKS[:2])]
    title = ATTACKS[1]
    path = write_page(
        tmp_path / "evil.html",
        trajectories,
        picture[0],
        title=title,
        note=EVIL,
        sections=[Section(EVIL, trajectories[:1], EVIL)],
        decode=lambda ids: [EVIL] * len(ids),
    )
    for fragment in ("", "#tokens", "#<img src=x onerror=document.title=1>"):
        document = dump(path, fragment)
        assert_inert(document, title)
        text = text_of(document)
        for attack in ATTACKS[:8]:
            assert text.count(attack) >= 8, attack


def test_an_attack_that_runs_is_noticed(tmp_path: Path, dump: Dump) -> None:
    path = tmp_path / "weak.html"
    for attack in ATTACKS[:3]:
        path.write_text(f"<!doctype html><html><head><title>x</title></head><body>{attack}</body></html>")
        with pytest.raises(AssertionError):
            assert_inert(dump(path), "x")


def test_a_hostile_report_does_nothing(tmp_path: Path, dump: Dump, make: Make, picture: Images) -> None:
    rows = [score_trajectory(replace(hostile(picture[1], make, EVIL), error=None), AnswerScorer(), run_info(EVIL, {}))]
    report = make_report(run_info(EVIL, {EVIL: EVIL}), rows).to_json()
    path = write_report(
        tmp_path / "evil.html",
        RunReport(
            title=ATTACKS[0],
            note=EVIL,
            stages=[Stage(EVIL, "running", EVIL, 0.5)],
            before=report,
            after=report,
            comparison=compare(rows, rows).to_json(),
            curves=[Curve(EVIL, {EVIL: [(0, 1.0)], "__proto__": [(0, float("nan"))]}), Curve("empty", {})],
            costs=Costs(
                [StageSeconds(1, {EVIL: 1.0, "__proto__": 1.0}, {EVIL: {EVIL: 0.5, "__proto__": 0.1}})],
                [Work(EVIL, 2.0, 1.0)],
                {EVIL: EVIL},
            ),
            baselines=[Baseline(EVIL, 0.5, note=EVIL)],
            facts={EVIL: EVIL},
            sections=[Section(EVIL, [hostile(picture[1], make, EVIL)])],
        ),
        picture[0],
    )
    document = dump(path)
    assert_inert(document, ATTACKS[0])
    assert text_of(document).count(ATTACKS[1]) >= 12


@pytest.mark.parametrize("width", [1280, 400])
def test_a_page_shows_its_trajectories(tmp_path: Path, dump: Dump, make: Make, picture: Images, width: int) -> None:
    trajectories = [make(i, "7" if i % 3 else "8") for i in range(400)]
    path = write_page(tmp_path / "p.html", trajectories, picture[0], title="Many")
    document = dump(path, width=width)
    text = text_of(document)
    assert "400 trajectories" in text and "What does sign 0 say?" in text and "What does sign 99 say?" in text
    assert 4 <= document.count('<article class="card') < 200  # cards far from the screen are not built
    assert document.count('src="data:image/') >= 4
    assert 'class="mark gold"' in document and 'class="mark asked"' in document and 'class="mark done"' in document
    assert path.stat().st_size < 2_000_000  # each view once


def test_a_page_shows_where_a_context_begins_anew(tmp_path: Path, dump: Dump, make: Make, picture: Images) -> None:
    first, second = make(0).turns
    view = first.observation.views[0]
    summary = Turn(
        1, Observation(("Sum up.",)), "It says 7.", (5, 6, 8, 9), "oots", (-0.5,), context_views=(view, view),
        purpose="summary", unseen=Observation(("too long", *second.observation.views)),
    )  # fmt: skip
    last = replace(second, index=2)
    trajectory = replace(make(0), turns=(first, summary, last), reward=None, advantages=None)
    path = write_page(tmp_path / "p.html", [trajectory], picture[0], title="Contexts")
    document = dump(path)
    text = text_of(document)
    assert document.count('class="anew"') == 1 and "context begins anew · 3 tokens · 2 images" in text
    assert "asked for" in text and "summary" in text and "discarded before it was seen" in text and "too long" in text
    assert document.count("<figure") == 3, "what was discarded is shown too"
    assert 'class="anew"' not in dump(write_page(tmp_path / "q.html", [make(0)], picture[0], title="One"))


def acting(path: Path, script: str) -> Path:
    """A copy of a page on which a script acts as a reader would; its own policy would refuse the script."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", path.read_text(encoding="utf-8"))
    steps = f"""<script>
    const pick = (name, value) => {{
      const node = document.querySelector(`select[aria-label="${{name}}"]`);
      node.value = value; node.dispatchEvent(new Event("change"));
    }};
    const note = (name) => {{
      const cards = [...document.querySelectorAll(".group")].map((group) => group.querySelector("bdi.key").textContent);
      const count = document.querySelector(".count").textContent;
      document.body.append(`@${{name}}: ${{count}}; ${{cards}}@`);
    }};
    {script}
    </script></body>"""
    copy = path.with_name("acting.html")
    copy.write_text(text.replace("</body>", steps), encoding="utf-8")
    return copy


def test_filters_search_and_sort(tmp_path: Path, dump: Dump, make: Make, picture: Images) -> None:
    trajectories = [make(i, "7" if i // 4 == 2 or i == 0 else "8") for i in range(12)]
    trajectories[5] = replace(trajectories[5], stop=StopReason.ENV_FAILED, turns=(), answer=None, reward=None)
    path = write_page(tmp_path / "p.html", trajectories, picture[0], title="x")
    script = """
    pick("outcome", "right"); note("right");
    pick("outcome", "failed"); note("failed");
    pick("outcome", ""); pick("sort", "reward"); note("sorted");
    pick("sort", "order"); pick("level", "=2"); note("level");
    pick("level", ""); pick("tool", "none"); note("no tool");
    pick("tool", ""); pick("stop", "=env_failed"); note("stop"); pick("stop", "");
    const search = document.querySelector("input[type=search]");
    search.value = "SIGN 1 SAY"; search.dispatchEvent(new Event("input"));
    setTimeout(() => note("search"), 400);
    """
    text = text_of(dump(acting(path, script)))
    notes = dict(re.findall(r"@([a-z ]+): ([^@]*)@", text))
    assert notes == {
        "right": "5 of 12 trajectories; task-0,task-2",
        "failed": "1 of 12 trajectories; task-1",
        "sorted": "12 trajectories; task-2,task-0,task-1",
        "level": "4 of 12 trajectories; task-1",
        "no tool": "1 of 12 trajectories; task-1",
        "stop": "1 of 12 trajectories; task-1",
        "search": "4 of 12 trajectories; task-1",
    }


def test_a_report_draws_its_parts(tmp_path: Path, dump: Dump, make: Make, picture: Images) -> None:
    info = run_info("visual_search", {"model": "m"})
    old, new = [make(i * 4, "7" if i % 3 == 0 else "8") for i in range(12)], [make(i * 4) for i in range(12)]
    rows = [[score_trajectory(t, AnswerScorer(), info) for t in side] for side in (old, new)]
    curve: dict[str, Any] = {"total": [(i, i / 10) for i in range(9)], "answer": [(i, i / 20) for i in range(9)]}
    report = RunReport(
        title="A run",
        stages=[Stage("Before", "done", seconds=3), Stage("Training", "running", "update 3 of 9", 0.3), Stage("After")],
        refresh_s=5,
        before=make_report(info, rows[0]).to_json(),
        after=make_report(info, rows[1]).to_json(),
        comparison=compare(*rows).to_json(),
        curves=[Curve("Reward", curve), Curve("Accuracy", {"all": [(0, 0.2), (8, 0.9)]}, "share")],
        costs=Costs([StageSeconds(i, {"rollout": 1.0, "update": 0.5}) for i in range(9)]),
        baselines=[Baseline("crops at random", 0.2, 0.1, 0.3, 256)],
        facts={"seed": "7"},
        sections=[Section("Before and after", pair_up(old, new), side_by_side="task")],
    )
    path = write_report(tmp_path / "report.html", report, picture[0])
    assert '<meta http-equiv="refresh" content="5">' in path.read_text()
    path = write_report(tmp_path / "report.html", replace(report, refresh_s=None), picture[0])
    assert "refresh" not in path.read_text()[:3000]
    document = dump(path)
    text = re.sub(r"\s+", " ", text_of(document))
    for wanted in ("33.3 %", "100.0 %", "+66.7 points", "8 tasks gained, 0 lost", "crops at random", "By level"):
        assert wanted in text, wanted
    assert "By number of crops" in text and "update 3 of 9" in text and "24 trajectories" in text
    assert document.count('class="line c') == 3
    assert document.count("<rect") > 9 * 2
    empty = write_report(tmp_path / "first.html", RunReport("Begun", stages=[Stage("Before", "running")]))
    assert "Begun" in text_of(dump(empty))


@pytest.mark.parametrize("width", [1280, 400])
def test_a_report_shows_where_the_time_goes(tmp_path: Path, dump: Dump, width: int) -> None:
    rows = [
        StageSeconds(
            update,
            {"rollout": 2.0 + update, "pack": 0.5, "update": 1.0},
            {"rollout": {"prefill": 0.5, "decode": 1.0 + update}, "update": {"forward": 0.25, "backward": 0.75}},
        )
        for update in (1, 2, 3)
    ]
    work = [Work("tokens prefilled", 1200.0, 1000.0), Work("images encoded", 40.0, 40.0)]
    costs = Costs(rows, work, {"share of the peak": "37 %"})
    path = write_report(tmp_path / "r.html", RunReport("x", costs=costs))
    script = """
    const widths = [...document.querySelectorAll(".stack > i")].map((piece) => piece.getBoundingClientRect().width);
    const all = widths.reduce((sum, value) => sum + value, 0);
    const bar = document.querySelector(".stack").getBoundingClientRect().width;
    const shares = widths.map((value) => Math.round((100 * value) / all));
    document.body.append(`@widths: ${shares}; ${Math.round(bar - all)}@`);
    const plot = document.querySelector(".beside .plot svg");
    plot.dispatchEvent(new PointerEvent("pointermove", { clientX: plot.getBoundingClientRect().right }));
    document.body.append(`@hover: ${document.querySelector(".readout").textContent}@`);
    document.body.append(`@over: ${document.documentElement.scrollWidth - document.documentElement.clientWidth}@`);
    """
    document = dump(acting(path, script), width=width)
    text = re.sub(r"\s+", " ", text_of(document))
    notes = dict(re.findall(r"@([a-z]+): ([^@]*)@", text))
    # of 5.5 s: prefill 0.5, decode 3.0, the rest 0.5, pack 0.5, forward 0.25, backward 0.75
    assert notes["widths"] == "9,55,9,9,5,14; 0"
    assert notes["hover"].startswith("update 3rollout: prefill0.50 s") and notes["hover"].endswith("in all6.50 s")
    assert int(notes["over"]) <= 0, "nothing is wider than the screen"
    for wanted in (
        "5.50 s an update, the mean of 3 updates",
        "rollout 4.00 s 73 %",
        "tokens prefilled 1,200 1,000 1.20",
    ):
        assert wanted in text, wanted
    assert document.count('class="again"') == 1 and "37 %" in text
    assert document.count('<rect class="fill"') == 6 * 3


def test_a_report_of_a_world_says_nothing_of_crops_and_answers(tmp_path: Path, dump: Dump, make: Make) -> None:
    info = run_info("miniwob", {"model": "m"})
    clicked = [replace(make(i), turns=(), answer=None, stop=StopReason.ANSWERED) for i in range(4)]
    for scorer, told in ((SolvedScorer(), False), (AnswerScorer(), True)):
        report = make_report(info, [score_trajectory(t, scorer, info) for t in clicked]).to_json()
        text = text_of(dump(write_report(tmp_path / "report.html", RunReport("A run", before=report))))
        assert "turns per task" in text and "crop" not in text
        assert ("no answer could be read" in text) is told
