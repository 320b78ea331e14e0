"""Imports point one way: cli, components, cluster -> stages -> distributed -> learning; the other folders stand beside."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import hep2flow
from hep2flow.store.cache import SOURCES

PACKAGE = Path(hep2flow.__file__).parent

FORBIDDEN = {
    "learning": "ray kfp boto3 botocore kubernetes hep2flow.store hep2flow.stages hep2flow.distributed hep2flow.cluster "
    "hep2flow.components hep2flow.pipelines hep2flow.cli hep2flow.sources hep2flow.reporting",
    "store": "ray kfp kubernetes torch hep2flow.stages hep2flow.distributed hep2flow.learning hep2flow.cluster "
    "hep2flow.components hep2flow.pipelines hep2flow.cli hep2flow.sources hep2flow.reporting",
    "sources": "ray kfp boto3 botocore kubernetes hep2flow.store hep2flow.stages hep2flow.distributed hep2flow.learning "
    "hep2flow.cluster hep2flow.components hep2flow.pipelines hep2flow.cli hep2flow.reporting",
    "reporting": "ray kfp boto3 botocore kubernetes hep2flow.store hep2flow.stages hep2flow.distributed hep2flow.cluster "
    "hep2flow.components hep2flow.pipelines hep2flow.cli hep2flow.sources",
    "tracking": "ray kfp boto3 botocore kubernetes torch hep2flow.store hep2flow.stages hep2flow.distributed "
    "hep2flow.learning hep2flow.cluster hep2flow.components hep2flow.pipelines hep2flow.cli hep2flow.sources "
    "hep2flow.reporting",
    "stages": "kfp kubernetes hep2flow.cluster hep2flow.components hep2flow.pipelines hep2flow.cli",
    "distributed": "kfp kubernetes hep2flow.stages hep2flow.cluster hep2flow.components hep2flow.pipelines hep2flow.cli",
}


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a file imports, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            yield from ((node.lineno, f"{node.module}.{name.name}") for name in node.names)


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_point_one_way(folder: str) -> None:
    files = sorted((PACKAGE / folder).rglob("*.py"))
    assert len(files) > 1
    wrong = [
        f"{file.relative_to(PACKAGE)}:{line} imports {name}"
        for file in files
        for line, name in imported(file)
        for forbidden in FORBIDDEN[folder].split()
        if f"{name}.".startswith(f"{forbidden}.")
    ]
    assert wrong == []


def test_a_change_of_the_method_makes_its_stages_run_again() -> None:
    # A network that is written in another form decides no result.
    files = {f"learning/{path.name}" for path in (PACKAGE / "learning").glob("*.py")} - {
        "learning/__init__.py",
        "learning/onnx.py",
    }
    watched = {*SOURCES["train"], *SOURCES["evaluate"]}
    assert files - watched == set()
    assert {name for sources in SOURCES.values() for name in sources if not (PACKAGE / name).exists()} == set()
