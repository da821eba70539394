"""What the machine must have is in one list, and what is missing is told."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mmturn.envs.gui import needs
from mmturn.errors import ConfigError, EnvError
from mmturn.jobs.doctor import diagnose

REPO = Path(__file__).resolve().parents[3]


def test_make_installs_the_packages_of_the_list():
    listed = [package for part in needs.packages().values() for package in part]
    assert "chromium-headless-shell" in listed
    recipe = subprocess.run(["make", "-n", "setup-gui"], cwd=REPO, capture_output=True, text=True, check=True).stdout
    command = next(line.strip().rstrip("\\").rstrip("| ") for line in recipe.splitlines() if "sed -n" in line)
    done = subprocess.run(command, shell=True, cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.split() == listed


def test_missing_packages_are_named(monkeypatch):
    def dpkg(*arguments, **settings):
        return subprocess.CompletedProcess(arguments, 1, "chromium-headless-shell installed\n", "")

    monkeypatch.setattr(needs.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(needs.subprocess, "run", dpkg)
    assert needs.missing_packages("browser") == ("fonts-dejavu-core",)
    monkeypatch.setattr(needs.shutil, "which", lambda name: None)
    assert needs.missing_packages("browser") is None


def test_without_a_chromium_or_playwright_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setenv("MMTURN_CHROMIUM", "no-such-browser")
    with pytest.raises(EnvError, match=r"there is no no-such-browser: make setup-gui"):
        needs.chromium()
    monkeypatch.setattr(needs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvError, match="needs the package playwright: make setup-gui"):
        needs.chromium()


def test_the_doctor_tells_of_them(tmp_path, monkeypatch):
    monkeypatch.setenv("MMTURN_CHROMIUM", "no-such-browser")
    monkeypatch.setattr("mmturn.jobs.doctor.missing_packages", lambda part: ("some-package",))
    found = {}
    for finding in diagnose(tmp_path):
        found[finding.what] = finding
        if finding.what == "versions":
            break
    assert "make setup-gui" in found["chromium"].advice
    assert found["Debian packages (browser)"].found == "missing: some-package"
    assert {"playwright", "miniwob"} <= set(found)


def test_a_run_that_lacks_something_ends_with_what_to_install(monkeypatch):
    from mmturn.build import make_policy
    from mmturn.recipe import read_recipe

    policy = make_policy(read_recipe("nano_rl", ('env={name: "browser"}', "tools=[]"))[0])
    monkeypatch.setenv("MMTURN_CHROMIUM", "no-such-browser")
    with pytest.raises(ConfigError, match=r"there is no no-such-browser: make setup-gui"):
        policy.driver(policy.engine())
    monkeypatch.setattr("mmturn.envs.gui.needs.DESKTOP_PROGRAMS", ("no-such-program",))
    for name, settings, lacking in (("desktop", "", True), ("osworld", "", True), ("osworld", "address: [h:1]", False)):
        recipe = read_recipe("nano_rl", (f'env={{name: "{name}", {settings}}}', "tools=[]"))[0]
        made = make_policy(recipe)
        if lacking:
            with pytest.raises(ConfigError, match="needs .*no-such-program: make setup-gui"):
                made.driver(made.engine())
        else:
            made.driver(made.engine()).close()
