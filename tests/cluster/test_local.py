"""Pipelines on this machine, through Kubeflow's local runner."""

from pathlib import Path

import pytest
from kfp import dsl, local

from hep2flow.cluster.local import tried_once


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def fail(log: str) -> None:
    with open(log, "a") as file:
        file.write("tried\n")
    raise SystemExit(2)


@dsl.pipeline(name="inner")
def inner(log: str) -> None:
    fail(log=log).set_retry(2, backoff_duration="0s")


@dsl.pipeline(name="outer")
def outer(log: str) -> None:
    inner(log=log)


@pytest.mark.parametrize(("pipeline", "tries"), [(outer, 3), (tried_once(outer), 1)])
def test_a_mistake_is_not_tried_again_here(pipeline: object, tries: int, tmp_path: Path) -> None:
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"), raise_on_error=False)
    pipeline(log=str(tmp_path / "log"))  # type: ignore[operator]
    assert (tmp_path / "log").read_text().splitlines() == ["tried"] * tries
