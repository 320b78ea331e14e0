"""Imports point one way: cli, components, execution -> stages -> distributed -> training, evaluation -> network -> data."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import hep2flow
from hep2flow.store.stage_cache import SOURCES

PACKAGE = Path(hep2flow.__file__).parent

# What a folder may not import, by the layer that it belongs to.
METHOD = "ray kfp boto3 botocore kubernetes"
ABOVE_METHOD = "hep2flow.store hep2flow.stages hep2flow.distributed hep2flow.sources hep2flow.reporting"
ENTRANCES = "hep2flow.execution hep2flow.components hep2flow.pipelines hep2flow.cli"
TORCH = "hep2flow.data hep2flow.network hep2flow.training hep2flow.evaluation"

FORBIDDEN = {
    "data": f"{METHOD} {ABOVE_METHOD} {ENTRANCES} hep2flow.network hep2flow.training hep2flow.evaluation",
    "network": f"{METHOD} {ABOVE_METHOD} {ENTRANCES} hep2flow.training hep2flow.evaluation",
    "training": f"{METHOD} {ABOVE_METHOD} {ENTRANCES}",
    "evaluation": f"{METHOD} {ABOVE_METHOD} {ENTRANCES}",
    "search": f"ray kfp boto3 botocore kubernetes {ENTRANCES} hep2flow.stages hep2flow.distributed hep2flow.reporting",
    "store": f"ray kfp kubernetes torch {TORCH} hep2flow.stages hep2flow.distributed {ENTRANCES} hep2flow.sources "
    "hep2flow.reporting",
    "sources": f"{METHOD} {TORCH} hep2flow.store hep2flow.stages hep2flow.distributed {ENTRANCES} hep2flow.reporting",
    "reporting": f"{METHOD} hep2flow.store hep2flow.stages hep2flow.distributed {ENTRANCES} hep2flow.sources",
    "tracking": f"{METHOD} torch {TORCH} {ABOVE_METHOD} {ENTRANCES}",
    "stages": f"kfp kubernetes {ENTRANCES}",
    "distributed": f"kfp kubernetes hep2flow.stages {ENTRANCES}",
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
    method = ("data", "network", "training", "evaluation")
    files = {f"{folder}/{path.name}" for folder in method for path in (PACKAGE / folder).glob("*.py")}
    files -= {"evaluation/onnx_export.py"} | {name for name in files if name.endswith("__init__.py")}
    watched = {*SOURCES["train"], *SOURCES["evaluate"]}
    assert {name for name in files if not {name, name.split("/")[0]} & watched} == set()
    assert {name for sources in SOURCES.values() for name in sources if not (PACKAGE / name).exists()} == set()
