"""The committed YAML itself, as a Kubeflow reads it, run by Kubeflow's local runner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hep2flow.recipe import load_recipe
from hep2flow.store.runs import show_run
from hep2flow.store.s3 import Store

ROOT = Path(__file__).parents[2]
SMALL = ["model.network=test_convnext", "model.layer_scale=null", "train.max_updates=4", "train.validate_every=1"]
# A process of its own: the runner and Ray leave their settings behind.
RUNNER = """
import json, sys, tempfile
from kfp import components, local
from hep2flow.distributed.cluster import shared_cluster
with tempfile.TemporaryDirectory() as root, shared_cluster():
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root)
    components.load_component_from_file(sys.argv[1])(**json.loads(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("name", "more"), [("reproduce", {}), pytest.param("sweep", {"trials": 1, "judge": 0}, marks=pytest.mark.slow)]
)
def test_the_committed_yaml_runs(name: str, more: dict[str, int], twin: Path, store: Store) -> None:
    arguments = {
        "source": str(twin),
        "recipes": [load_recipe("convnext-b", "laptop", SMALL).to_yaml()],
        "profile": "laptop",
        "run_id": name,
        "store_endpoint": store.address.endpoint,
        "store_region": store.address.region,
        "store_bucket": store.address.bucket,
        "store_prefix": store.address.prefix,
        **more,
    }
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, str(ROOT / "pipelines" / f"{name}.yaml"), json.dumps(arguments)],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    view = show_run(store, name)
    assert view.status == "succeeded"
    trained = "convnext-b" if name == "reproduce" else "convnext-b-tuned"
    assert {"mask", "split", f"train-{trained}", f"evaluate-{trained}"} <= set(view.stage_status)
    assert ("tune-convnext-b" in view.stage_status) == (name == "sweep")
