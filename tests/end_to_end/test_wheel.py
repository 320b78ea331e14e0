"""The wheel works outside the clone: built from the tracked files alone, installed elsewhere, run from elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hep2flow.sources.synthetic import MIN_SPECIMENS, write_twin

CLONE = Path(__file__).parents[2]
TINY = ("model.network=test_convnext", "train.max_updates=4", "eval.tta=none")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the installed wheel, and nothing else; built from a copy, because a build leaves files behind."""
    folder = tmp_path_factory.mktemp("wheel")
    if not (CLONE / ".git").exists():
        pytest.skip("not a clone: only git knows which files would be in one")
    listed = _run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], CLONE)
    for name in filter(None, listed.split("\0")):
        if (CLONE / name).exists():  # components and pipelines lie in src as links
            (folder / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CLONE / name, folder / "clone" / name, follow_symlinks=False)
    offline = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    pip = [sys.executable, "-m", "pip"]
    _run([*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", "dist", "./clone"], folder)
    (wheel,) = (folder / "dist").glob("hep2flow-*.whl")
    _run([*pip, "install", *offline, "--target", "site", str(wheel)], folder)
    return folder / "site"


@pytest.fixture
def elsewhere(tmp_path: Path, installed: Path) -> Iterator[Path]:
    """A working directory outside the clone, where Python finds the installed wheel first, and a store of its own."""
    os.environ.update(PYTHONPATH=str(installed), HEP2FLOW_HOME=str(tmp_path / "home"), PYTHONDONTWRITEBYTECODE="1")
    yield tmp_path
    _run([sys.executable, "-m", "hep2flow.cli", "storage", "down"], tmp_path)


@pytest.mark.slow
def test_the_installed_wheel_runs_the_pipeline(elsewhere: Path, installed: Path) -> None:
    write_twin(elsewhere / "twin", specimens=MIN_SPECIMENS)
    overrides = [f"--set={override}" for override in TINY]
    choices = ["--source", "twin", "--recipe", "convnext-b", "--profile", "laptop", *overrides, "--out", "out"]
    _run([sys.executable, "-m", "hep2flow.cli", "run", *choices], elsewhere)
    assert "test_convnext" in (elsewhere / "out" / "report" / "index.html").read_text(encoding="utf-8")


def test_the_modules_come_from_the_wheel(elsewhere: Path, installed: Path) -> None:
    modules = "hep2flow, hep2flow.components, hep2flow.pipelines, hep2flow.recipes, hep2flow.reporting"
    program = f"import {modules}\nfor module in ({modules}): print(module.__file__)"
    for file in _run([sys.executable, "-c", program], elsewhere).splitlines():
        assert Path(file).is_relative_to(installed)


def test_the_wheel_holds_every_file_of_the_packages(installed: Path) -> None:
    clone = installed.parent / "clone"
    for source, package in (("src/hep2flow", "."), ("components", "components"), ("pipelines", "pipelines")):
        files = [file.relative_to(clone / source) for file in (clone / source).rglob("*") if file.is_file()]
        assert files
        missing = [str(file) for file in files if not (installed / "hep2flow" / package / file).is_file()]
        assert not missing, f"{source}: not in the wheel; name it in pyproject.toml"


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout
