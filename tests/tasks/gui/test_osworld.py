"""OSWorld's task files: the layout, the schema, and what is said of files that break it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmturn.errors import DataError
from mmturn.tasks.gui.osworld import osworld_task, read_osworld, read_osworld_task
from mmturn.types import Task
from tests.envs.gui.osworld.samples import rule, said, task_file, write_suite


def test_a_folder_is_read_in_the_order_of_its_index(tmp_path: Path):
    infeasible = task_file("b", evaluator={"func": "infeasible"})
    write_suite(tmp_path, {"vlc": [task_file("z"), infeasible], "os": [task_file("a")]})
    tasks, problems = read_osworld(tmp_path)
    assert [task.id for task in tasks] == ["vlc/z", "vlc/b", "os/a"] and not problems
    assert [(task.meta["domain"], task.meta["feasible"]) for task in tasks] == [
        ("vlc", "yes"), ("vlc", "no"), ("os", "yes"),
    ]  # fmt: skip
    assert tasks[0].question == "Do it." and tasks[0].meta["osworld"] == task_file("z")


def test_another_index_beside_the_examples(tmp_path: Path):
    write_suite(tmp_path, {"os": [task_file("a"), task_file("b")]})
    (tmp_path / "test_small.json").write_text(json.dumps({"os": ["b"]}))
    assert [task.id for task in read_osworld(tmp_path / "test_small.json")[0]] == ["os/b"]


def test_a_bad_file_is_named_and_the_others_are_kept(tmp_path: Path):
    write_suite(tmp_path, {"os": [task_file("a"), task_file("b"), task_file("c"), task_file("d")]})
    (tmp_path / "examples/os/b.json").write_text("{")
    (tmp_path / "examples/os/c.json").unlink()
    (tmp_path / "examples/os/d.json").write_text(json.dumps(task_file("a")))
    tasks, problems = read_osworld(tmp_path)
    assert [task.id for task in tasks] == ["os/a"]
    told = "\n".join(map(str, problems))
    assert (
        "os/b.json is not valid JSON" in told and "there is no file" in told and "the id 'os/a' is there twice" in told
    )


@pytest.mark.parametrize("ids", [["../x"], "a", [1], [""]])
def test_an_index_names_files_of_its_folder_alone(tmp_path: Path, ids):
    (tmp_path / "test_all.json").write_text(json.dumps({"os": ids}))
    with pytest.raises(DataError, match="'os' must be a list of ids"):
        read_osworld(tmp_path)


def test_no_index_or_nothing_good(tmp_path: Path):
    with pytest.raises(DataError, match=r"there is no test_all\.json"):
        read_osworld(tmp_path)
    (tmp_path / "test_all.json").write_text('{"os": ["a"]}')
    with pytest.raises(DataError, match="names no good task"):
        read_osworld(tmp_path)


def test_lists_of_functions_have_lists_of_the_rest():
    evaluator = {"func": ["a", "b"], "result": [said("1"), said("2")], "expected": [None, rule(expected="2")]}
    checks = read_osworld_task(osworld_task(task_file(evaluator=evaluator), "os")).checks
    assert [(check.func, check.expected, check.options) for check in checks] == [
        ("a", None, {}), ("b", rule(expected="2"), {}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": "a/b"}, "id must be"),
        ({"instruction": " "}, "instruction must be"),
        ({"config": {}}, "config must be a list"),
        ({"config": [{"parameters": {}}]}, r"config\[0\] must be an object with a type"),
        ({"config": [{"type": "sleep", "parameters": [1]}]}, r"config\[0\].parameters"),
        ({"evaluator": None}, "evaluator must be an object"),
        ({"evaluator": {"func": "a"}}, r"evaluator\.result must be an object with a type"),
        ({"evaluator": {"func": []}}, r"evaluator\.func must be"),
        ({"evaluator": {"func": "a", "result": said("x"), "conj": "xor"}}, r"evaluator\.conj must be and or or"),
        ({"evaluator": {"func": ["a", "b"], "result": [said("x")]}}, r"evaluator\.result must be a list of 2"),
        ({"evaluator": {"func": ["a"], "result": [said("x")], "expected": said("x")}}, r"evaluator\.expected must be"),
        ({"evaluator": {"func": ["a"], "result": [said("x")], "options": [[]]}}, r"evaluator\.options\[0\]"),
        ({"evaluator": {"func": ["a"], "result": [None]}}, r"evaluator\.result\[0\]"),
        ({"evaluator": {"func": "a", "result": said("x"), "postconfig": [1]}}, r"postconfig\[0\]"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(changes, words):
    with pytest.raises(DataError, match=words):
        osworld_task(task_file(**changes), "os")


def test_a_task_that_is_none_of_osworld():
    with pytest.raises(DataError, match=r"task x: meta\.osworld must be"):
        read_osworld_task(Task("x", "?"))
