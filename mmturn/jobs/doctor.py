"""Is this machine fit for mmturn? One finding per thing, each with what to do about it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import InvalidRequirement, Requirement

from mmturn.envs.gui.needs import INSTALL, find_chromium, missing_packages, packages
from mmturn.errors import MmturnError
from mmturn.resources import resource_root

State = Literal["ok", "warn", "missing"]
GB = 1e9


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    what: str
    state: State
    found: str
    advice: str = ""
    """What to do; empty when all is well."""


def diagnose(folder: Path, model: str = "checkpoints/nano") -> Iterator[Finding]:
    """Findings one by one, quick ones first. ``folder``: where runs will be written; ``model``: what takes a step."""
    yield _python()
    for name in ("torch", "transformers", "deepspeed", "peft", "trl", "safetensors", "PIL", "tensorboard"):
        yield _module(name, "pip install -c constraints.txt -e .")
    yield _accelerator()
    yield _video()
    yield _module("flash_attn", "optional, NVIDIA GPUs only: pip install mmturn[flash-attn]", optional=True)
    yield from _resources(folder)
    yield from _writable(folder)
    yield _browser()
    yield from _gui()
    yield _versions()
    yield _step(model)


def _python() -> Finding:
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info >= (3, 13):
        return Finding("python", "warn", found, "mmturn is tested on python 3.11 and 3.12")
    return Finding("python", "ok", found)


def _module(name: str, advice: str, optional: bool = False) -> Finding:
    absent: State = "warn" if optional else "missing"
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        return Finding(name, absent, str(error), advice)
    except Exception as error:  # a package built for another torch or CUDA fails in ways of its own
        return Finding(
            name, "warn" if optional else "missing", f"{type(error).__name__}: {error}", f"reinstall it: {advice}"
        )
    return Finding(name, "ok", str(getattr(module, "__version__", "installed")))


def _accelerator() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("GPU", "missing", str(error), "install torch first")
    if not torch.cuda.is_available():
        advice = "the nano trains on CPU; models of 2 B parameters and more need an NVIDIA GPU with its driver"
        return Finding("GPU", "warn", "none that torch can use", advice)
    names = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    found = ", ".join(f"{one.name} {one.total_memory / GB:.0f} GB" for one in names)
    return Finding("GPU", "ok", f"{found}, CUDA {torch.version.cuda}")


def _video() -> Finding:
    readers = [_module(name, "", optional=True) for name in ("decord", "av")]
    found = ", ".join(f"{one.what} {one.found}" for one in readers if one.state == "ok")
    if not found:
        return Finding("video reader", "missing", "neither decord nor av", "pip install av (decord on x86-64)")
    return Finding("video reader", "ok", found)


def _resources(folder: Path) -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding(
        "cores", "ok" if cores > 1 else "warn", str(cores), "" if cores > 1 else "the demo is timed on two cores"
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    advice = "" if memory >= 4 else "the demo takes about 3 GB; close other programs"
    yield Finding("memory", "ok" if memory >= 4 else "warn", f"{memory:.1f} GB", advice)
    free = shutil.disk_usage(_existing(folder)).free / GB
    advice = "" if free >= 5 else f"free some in {_existing(folder)}: checkpoints and rollouts are written there"
    yield Finding("disk", "ok" if free >= 5 else "warn" if free >= 0.5 else "missing", f"{free:.1f} GB free", advice)


def _writable(folder: Path) -> Iterator[Finding]:
    cache = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    for what, place, needed in (
        ("run folder", folder, True),
        ("model cache", cache, False),
        ("temporary files", None, True),
    ):
        try:
            with tempfile.TemporaryFile(dir=None if place is None else _existing(place)):
                found = tempfile.gettempdir() if place is None else str(place)
            yield Finding(what, "ok", f"{found} can be written")
        except OSError as error:
            advice = {"run folder": "use --out, or run from a folder of yours", "model cache": "set HF_HOME"}
            yield Finding(what, "missing" if needed else "warn", str(error), advice.get(what, "set TMPDIR"))


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _browser() -> Finding:
    found = find_chromium()
    advice = f"optional, for GUI environments and the tests of the pages: {INSTALL}, or set MMTURN_CHROMIUM"
    return Finding("chromium", "ok", found) if found else Finding("chromium", "warn", "not found", advice)


def _gui() -> Iterator[Finding]:
    """What the browser environment needs: its Python packages, and the Debian packages of the one list."""
    for name in ("playwright", "miniwob"):
        if importlib.util.find_spec(name) is None:
            yield Finding(
                name, "warn", "not installed", "optional, for the browser environment: pip install mmturn[gui]"
            )
        else:
            yield Finding(name, "ok", version(name))
    for part in packages():
        missing = missing_packages(part)
        what = f"Debian packages ({part})"
        if missing is None:
            yield Finding(
                what, "warn", "this is no Debian", f"install what corresponds to {', '.join(packages()[part])}"
            )
        elif missing:
            yield Finding(what, "warn", f"missing: {', '.join(missing)}", f"optional: {INSTALL}")
        else:
            yield Finding(what, "ok", ", ".join(packages()[part]))


def _versions() -> Finding:
    """Installed packages against the tested set, or, in an installed package, against its lower bounds."""
    constraints = resource_root() / "constraints.txt"
    if constraints.is_file():
        lines, source = constraints.read_text(encoding="utf-8").splitlines(), "constraints.txt"
    else:
        lines, source = _declared(), "mmturn's requirements"
    differing: list[str] = []
    checked = 0
    for line in lines:
        requirement = _requirement(line)
        if requirement is None or (requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            continue
        checked += 1
        # +cpu and +cu130 are builds of the same version
        if not requirement.specifier.contains(installed.split("+")[0], prereleases=True):
            differing.append(f"{requirement.name} {installed} ({requirement.specifier})")
    if not differing:
        return Finding("versions", "ok", f"{checked} packages as in {source}")
    shown = ", ".join(differing[:4]) + (f" and {len(differing) - 4} more" if len(differing) > 4 else "")
    return Finding("versions", "warn", shown, f"{source} is the set that is tested: make setup")


def _declared() -> list[str]:
    try:
        return list(requires("mmturn") or [])
    except PackageNotFoundError:
        return []


def _requirement(line: str) -> Requirement | None:
    text = re.sub(r"(^|\s)#.*", "", line).strip()
    try:
        return Requirement(text) if text else None
    except InvalidRequirement:
        return None


def _step(model: str) -> Finding:
    """Load a model and let it take one turn on a generated scene."""
    advice = "run from the checkout, or name a model folder with --model"
    try:
        return Finding("one turn", "ok", _take_a_turn(model))
    except MmturnError as error:
        return Finding("one turn", "missing", f"{type(error).__name__}: {error}", advice)
    except (ImportError, OSError, RuntimeError) as error:
        return Finding("one turn", "missing", f"{type(error).__name__}: {error}", "see the lines above")


def _take_a_turn(model: str) -> str:
    from mmturn.build import make_policy
    from mmturn.jobs.data import load_tasks
    from mmturn.jobs.rollout import roll
    from mmturn.recipe import read_recipe
    from mmturn.tasks.visual_search import generate

    if not Path(model).is_dir() and (resource_root() / model).is_dir():
        model = str(resource_root() / model)
    start = time.perf_counter()
    overrides = (f'model.path="{model}"', "rollout.max_turns=1", "rollout.max_new_tokens=48")
    policy = make_policy(read_recipe("nano_rl", overrides)[0])
    with tempfile.TemporaryDirectory() as folder:
        generate(folder, split="heldout", tasks=1, seed=0, workers=1)
        (trajectory,) = roll(policy, load_tasks(Path(folder) / "tasks.jsonl")[0])
    if trajectory.stop.status == "failed" or not trajectory.turns:
        raise MmturnError(trajectory.error or f"{model} gave no turn")
    count, seconds = len(trajectory.turns[0].logprobs or ()), time.perf_counter() - start
    return f"{model} loaded and sampled {count} tokens in {seconds:.1f} s"
