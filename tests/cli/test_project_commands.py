"""new, recipes, config, doctor, check."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from mmturn.cli import project
from mmturn.errors import ConfigError, DataError
from mmturn.jobs.doctor import Finding, diagnose
from mmturn.jobs.scaffold import KINDS, names_of, scaffold
from tests.media.video.clips import write_clip

REPO = Path(__file__).resolve().parents[2]


def invoke(*arguments: str) -> tuple[int, str]:
    """Exit status and output; an error that mmturn raises on purpose comes out as it is."""
    app = typer.Typer()
    project.add_to(app)
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def write_rows(folder: Path, *rows: Any) -> Path:
    Image.new("RGB", (120, 80), "red").save(folder / "red.png")
    path = folder / "rows.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


GOOD = {"image": "red.png", "question": "Colour?", "answer": "red"}
CHOICE = {**GOOD, "question": "Which?", "choices": ["blue", "red"], "boxes": [[10, 10, 50, 40]]}


def test_check_shows_tasks_and_counts(tmp_path: Path) -> None:
    path = write_rows(tmp_path, GOOD, "", CHOICE, {**GOOD, "answer": 3})
    page = tmp_path / "page.html"
    code, out = invoke("check", str(path), "--page", str(page))
    assert code == 0
    for part in ("rows-1", "Colour?", "B. red", "120 x 80 px", "[10, 10, 50, 40]", "3 rows: 3 good, 0 bad", "1 images"):
        assert part in out
    assert "gold" in page.read_text(encoding="utf-8")


def test_check_opens_videos_and_tries_their_spans(tmp_path: Path) -> None:
    write_clip(tmp_path / "v.mp4", 30, rate=10)
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    seen = {"video": "v.mp4", "question": "Colour?", "answer": "red", "spans": [[1, 2.5]]}
    path = write_rows(tmp_path, seen, {**seen, "video": "broken.mp4"}, {**seen, "spans": [[2, 9]]})
    page = tmp_path / "page.html"
    code, out = invoke("check", str(path), "--page", str(page))
    assert code == 1
    assert "3 rows: 1 good, 2 bad" in out and "[1, 2.5] s" in out
    bad = [line for line in out.splitlines() if line.startswith("bad ")]
    assert "broken.mp4" in bad[0] and "reaches beyond the video, which lasts 3.0 s" in bad[1]
    data = page.read_text(encoding="utf-8").split('id="data">')[1].split("</script>")[0]
    (item,) = json.loads(data)["sections"][0]["groups"][0]["items"]
    assert item["timeline"]["gold"] == [[1.0, 2.5]] and len(item["turns"][0]["views"]) == 8


def test_check_names_bad_rows(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    bad: list[tuple[Any, str]] = [
        ("{", "not valid JSON"),
        ({**GOOD, "image": "gone.png"}, "there is no image file"),
        ({**GOOD, "image": "broken.jpg"}, "broken.jpg"),
        ({**GOOD, "boxes": [[10, 10, 200, 40]]}, "outside the image of 120 x 80"),
        ({**GOOD, "answer": None}, "no gold answer"),
        ({**GOOD, "answer": "x" * 2000}, "scores 0, not 1"),
    ]
    path = write_rows(tmp_path, GOOD, *(row for row, _ in bad))
    code, out = invoke("check", str(path))
    assert code == 1
    assert "7 rows: 1 good, 6 bad" in out
    lines = [line for line in out.splitlines() if line.startswith("bad ")]
    assert len(lines) == len(bad)
    for number, (line, (_, part)) in enumerate(zip(lines, bad, strict=True), 2):
        assert f"rows.jsonl:{number}: " in line and part in line


def test_check_of_bad_rows_alone_and_of_nothing(tmp_path: Path) -> None:
    path = write_rows(tmp_path, {**GOOD, "image": "gone.png"}, "[]")
    code, out = invoke("check", str(path))
    assert code == 1 and "2 rows: 0 good, 2 bad" in out
    with pytest.raises(DataError, match="cannot be read"):
        invoke("check", str(tmp_path / "nothing.jsonl"))
    (tmp_path / "empty.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="holds no rows"):
        invoke("check", str(tmp_path / "empty.jsonl"))


def test_check_runs_ones_own_reward(tmp_path: Path) -> None:
    path = write_rows(tmp_path, GOOD)
    code_file = tmp_path / "mine.py"
    code_file.write_text("def fails(trajectory):\n    return trajectory.nothing\n", encoding="utf-8")
    code, out = invoke("check", str(path), "--reward", f"{code_file}:fails")
    assert code == 1 and "AttributeError" in out


def test_new_writes_what_passes_its_own_test(tmp_path: Path) -> None:
    for kind in KINDS:
        code, out = invoke("new", kind, f"my_{kind}", "--folder", str(tmp_path))
        assert code == 0 and f"test_my_{kind}.py" in out and "mmturn train" in out
        with pytest.raises(ConfigError, match="is there already"):
            scaffold(kind, f"my_{kind}", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout
    lint = [sys.executable, "-m", "ruff", "check", "--config", str(REPO / "pyproject.toml"), str(tmp_path)]
    assert subprocess.run(lint, capture_output=True, check=False).returncode == 0


def test_what_new_wrote_is_found_by_the_registries(tmp_path: Path) -> None:
    from mmturn.components import make_tools
    from mmturn.credit.graded import example_graded
    from mmturn.credit.method import Method, MethodConfig
    from mmturn.recipe import Recipe

    scaffold("tool", "Magnify", tmp_path)
    scaffold("method", "returns_to_go", tmp_path)
    (tool,) = make_tools(Recipe(tools=({"name": f"{tmp_path / 'magnify.py'}:Magnify"},)), allow_code=True)
    assert tool.spec.name == "magnify"
    rule = f"{tmp_path / 'returns_to_go.py'}:returns_to_go"
    method = Method(MethodConfig(credit={"name": rule}, normalise=()), allow_code=True)
    assert method.assign([example_graded(0, 1.0, (0.0,))])[0].advantages == (0.0,)


@pytest.mark.parametrize(
    ("name", "module", "titled"),
    [
        ("magnify", "magnify", "Magnify"),
        ("SmallCrop", "small_crop", "SmallCrop"),
        ("small-crop", "small_crop", "SmallCrop"),
    ],
)
def test_names(name: str, module: str, titled: str) -> None:
    assert names_of(name) == (module, titled)


@pytest.mark.parametrize("name", ["", "1st", "class", "a b", "json", "../x", "é"])
def test_bad_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        scaffold("tool", name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tool, env, reward, method"):
        scaffold("engine", "x", tmp_path)


def test_recipes() -> None:
    code, out = invoke("recipes")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert "GRPO" in lines["nano_rl"]
    assert all(len(line.split()) > 3 for line in out.splitlines()), "each recipe says what it is in its first line"


def test_config_says_where_each_value_comes_from() -> None:
    code, out = invoke("config", "nano_rl", "--set", "rl.group_size=16", "--set", "env.max_images=7")
    assert code == 0
    lines = {line.split(" = ")[0]: line for line in out.splitlines()}
    assert "override rl.group_size=16" in lines["rl.group_size"]
    assert "nano_rl.yaml:" in lines["training.lr"]
    assert "nano.yaml:" in lines["env.root_budget"]
    assert "override env.max_images=7" in lines["env.max_images"]
    assert lines["rl.clip_low"].endswith("default") and lines["tools.0.addressing"].endswith("default")
    assert "nano.yaml:" in lines["tools.0.label"]
    renamed = invoke("config", "video_mtr_qwen2_5_vl_7b", "--only", "tools")[1]
    assert '"span"' in renamed and 'tools.0.as = "retrieve"' in renamed
    assert "default" in lines["reward.settings.answer.max_chars"]
    assert len(lines[next(key for key in lines if key.startswith("hash "))].split()[1]) == 64


def test_config_of_a_list_written_at_once_and_a_tool_of_ones_own() -> None:
    tools = "tools=[{name: ./mine.py:Mine, speed: 3}, {name: zoom, factor: 4}]"
    _, out = invoke("config", "nano_rl", "--set", tools, "--only", "tools")
    lines = {line.split(" = ")[0]: line for line in out.splitlines()}
    assert "override" in lines["tools.0.speed"] and "override" in lines["tools.1.factor"]
    assert lines["tools.1.max_factor"].endswith("default")


def test_config_refuses_what_a_component_refuses() -> None:
    with pytest.raises(ConfigError, match=r"env\.max_image: unknown key; nearest is env\.max_images"):
        invoke("config", "nano_rl", "--set", "env.max_image=7")


def test_config_docs() -> None:
    code, out = invoke("config", "nano_rl", "--docs")
    assert code == 0
    assert "rl.group_size: int = 8" in out and "Trajectories sampled per task visit" in out
    assert "env.max_images: int = 16" in out and "tools.0.addressing" in out
    code, out = invoke("config", "nano_rl", "--docs", "--only", "context", "--set", "context.name=keep_images")
    assert code == 0 and "context.images: int = 3" in out and "context.keep_opening" in out


def test_config_of_a_context_policy() -> None:
    code, out = invoke("config", "nano_rl", "--only", "context", "--set", "context={name: window, turns: 2}")
    assert code == 0 and 'context.name = "window"' in out and "context.turns = 2" in out
    assert "context.images = 0" in out and 'context.name = "append"' in invoke("config", "nano_rl")[1]
    with pytest.raises(ConfigError, match=r"context\.turn: unknown key; nearest is context\.turns"):
        invoke("config", "nano_rl", "--set", "context={name: window, turn: 2}")


def test_every_setting_is_documented() -> None:
    from mmturn.jobs.explain import setting_docs
    from mmturn.recipe import read_recipe

    docs = setting_docs(read_recipe("nano_rl")[0])
    missing = [doc.key for doc in docs if not doc.doc]
    assert len(docs) > 80
    assert len(missing) < len(docs) / 10, missing


def model_folder() -> str:
    nano = REPO / "checkpoints" / "nano"
    return str(nano if nano.is_dir() else REPO / "checkpoints" / "nano-base")


def test_doctor_finds_this_machine_well(tmp_path: Path) -> None:
    findings = {finding.what: finding for finding in diagnose(tmp_path / "runs", model_folder())}
    assert [f for f in findings.values() if f.state == "missing"] == []
    assert "sampled" in findings["one turn"].found
    assert {"python", "ray", "torch", "GPU", "video reader", "disk", "memory", "cores", "versions"} <= set(findings)
    assert all(f.advice for f in findings.values() if f.state != "ok")


def test_doctor_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[Any] = ["ok", "warn"]
    monkeypatch.setattr(
        "mmturn.jobs.doctor.diagnose", lambda out, model: (Finding("torch", s, "x", "install it") for s in states)
    )
    assert invoke("doctor")[0] == 0
    states.append("missing")
    code, out = invoke("doctor")
    assert code == 1 and "missing torch" in out and "install it" in out


def test_doctor_names_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmturn.jobs import doctor

    found = doctor._step(str(tmp_path))
    assert found.state == "missing" and "config.json" in found.found
    assert doctor._module("no_such_package", "pip install it").state == "missing"
    assert doctor._module("no_such_package", "pip install it", optional=True).state == "warn"
    monkeypatch.setattr(doctor, "version", lambda name: "0.0.1")
    assert doctor._versions().state == "warn" and "0.0.1" in doctor._versions().found
    monkeypatch.setenv("MMTURN_CHROMIUM", "no-such-browser")
    assert doctor._browser().state == "warn"
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert doctor._ray().state == "warn" and "pip install mmturn[ray]" in doctor._ray().advice


TOLD_TO_END = """
import atexit, os, signal, time
import mmturn.cli as cli
atexit.register(print, "its worlds are closed")
cli.app = lambda: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(20))
cli.main()
"""


def test_a_command_that_is_told_to_end_ends_what_it_started() -> None:
    done = subprocess.run([sys.executable, "-c", TOLD_TO_END], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 128 + 15 and done.stdout == "its worlds are closed\n"
