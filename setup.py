"""Packaging. Tool settings are in pyproject.toml, tested versions in constraints.txt and constraints-min.txt."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent

INSTALL = [
    "torch>=2.11",
    "torchvision>=0.26",
    "transformers>=5.19",
    "trl>=1.10",
    "deepspeed>=0.19.0",
    "peft>=0.19",
    "accelerate>=1.12",
    "huggingface-hub>=1.31",
    "safetensors>=0.8",
    "tokenizers>=0.23.1",
    "qwen-vl-utils>=0.0.14",
    # decord has wheels for x86-64 only; PyAV reads videos everywhere
    "decord>=0.6; platform_machine == 'x86_64' or platform_machine == 'AMD64'",
    "av>=17",  # from 17 on it converts colours by the matrix that a frame states
    "pillow>=11",
    "numpy>=2.0",
    "pyyaml>=6.0.2",
    "jinja2>=3.1.5",
    "rich>=14",
    "typer>=0.20",
    "tensorboard>=2.19",
    "scikit-image>=0.25",
    "scikit-learn>=1.6",
]
EXTRAS = {
    "flash-attn": ["flash-attn>=2.8"],
    "wandb": ["wandb>=0.22"],
    "trackio": ["trackio>=0.19"],
    "gui": ["playwright>=1.65.2", "miniwob>=1.1.0"],
    "dev": [
        "pytest>=8.3",
        "pytest-cov>=6",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "hypothesis>=6.120",
        "ruff>=0.17",
        "mypy>=2.4",
    ],
}
SHIPPED = ("train", "eval", "checkpoints")
"""Copied into the wheel as mmturn/_data/...; a checkout reads them in place (mmturn/resources.py)."""

FILE_KINDS = ("jinja", "html", "css", "js", "json", "txt", "md", "svg")
"""Files beside the code that belong to the package."""


class BuildWithData(build_py):
    """Adds recipes, suites and the small policy to what an installed mmturn holds."""

    def run(self) -> None:
        """Build as usual, then copy; an editable install reads the checkout and needs no copy."""
        super().run()
        if self.editable_mode:
            return
        for name in SHIPPED:
            source, target = ROOT / name, Path(self.build_lib) / "mmturn" / "_data" / name
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".*"))


def version() -> str:
    """``__version__`` of mmturn/__init__.py, read without importing it."""
    found = re.search(r'^__version__ = "([^"]+)"', (ROOT / "mmturn" / "__init__.py").read_text(encoding="utf-8"), re.M)
    if found is None:
        raise RuntimeError("mmturn/__init__.py states no __version__")
    return found.group(1)


def readme() -> str:
    """The README, where there is one."""
    path = ROOT / "README.md"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


if __name__ == "__main__":
    setup(
        name="mmturn",
        version=version(),
        description="Train, run and evaluate vision-language policies that look again",
        long_description=readme(),
        long_description_content_type="text/markdown",
        python_requires=">=3.11",
        packages=find_packages(include=["mmturn", "mmturn.*"]),
        package_data={"mmturn": ["py.typed", *(f"**/*.{end}" for end in FILE_KINDS)]},
        install_requires=INSTALL,
        extras_require=EXTRAS,
        entry_points={"console_scripts": ["mmturn = mmturn.cli:main"]},
        cmdclass={"build_py": BuildWithData},
        zip_safe=False,
    )
