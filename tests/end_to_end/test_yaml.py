"""The YAML that `hep2flow submit` sends, as a Kubeflow reads it, run by Kubeflow's local runner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hep2flow.execution.kubeflow.compile import compile_pipeline
from hep2flow.execution.run_request import RunRequest, pipeline_arguments
from hep2flow.pipelines.unrolled import unrolled
from hep2flow.recipe import load_recipe
from hep2flow.search.settings import SweepSettings
from hep2flow.stages.begin import begin
from hep2flow.store.runs import show_run
from hep2flow.store.s3 import Store

SMALL = ["model.network=test_convnext", "model.layer_scale=null", "train.max_updates=4", "train.validate_every=1"]
# A process of its own: the runner and Ray leave their settings behind.
RUNNER = """
import json, sys, tempfile
from kfp import components, local
from hep2flow.distributed.ray_cluster import shared_cluster
with tempfile.TemporaryDirectory() as root, shared_cluster():
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root)
    components.load_component_from_file(sys.argv[1])(**json.loads(sys.argv[2]))
"""


@pytest.mark.parametrize(
    "sweep",
    [None, pytest.param(SweepSettings(trials=1, judge=0, beside=True), marks=pytest.mark.slow)],
    ids=["plain", "tuned"],
)
def test_the_yaml_that_is_submitted_runs(sweep: SweepSettings | None, twin: Path, store: Store, tmp_path: Path) -> None:
    request = RunRequest(str(twin), [load_recipe("convnext-b", "laptop", SMALL)], sweep=sweep)
    begin(store, "yaml", request.parameters(request.source), request.recipes, status="submitted")
    compile_pipeline(unrolled(request.pipeline, request.models), tmp_path / "pipeline.yaml")
    arguments = pipeline_arguments(request, request.source, "yaml", store.address)
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, str(tmp_path / "pipeline.yaml"), json.dumps(arguments)],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    view = show_run(store, "yaml")
    assert (view.status, view.run.status) == ("succeeded", "succeeded"), "its last step closes it"
    assert view.run.attempt, "the first step took it over"
    models = {"convnext-b"} if sweep is None else {"convnext-b", "convnext-b-tuned"}
    stages = {f"{stage}-{model}" for stage in ("train", "evaluate") for model in models}
    assert set(view.stage_status) == {
        "ingest",
        "mask",
        "split",
        "report",
        *stages,
        *({"tune-convnext-b"} if sweep else ()),
    }
