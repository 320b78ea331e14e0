"""SIGTERM, by which a machine that shuts down ends `hep2flow run`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hep2flow.store import layout
from hep2flow.store.runs import show_run
from hep2flow.store.s3 import Store
from hep2flow.store.training_status import TrainingStatus

SECONDS = 240


def in_the_middle(store: Store, run_id: str) -> bool:
    """Whether the run's training has made a whole epoch."""
    try:
        stages = show_run(store, run_id).stages
    except Exception:  # not begun
        return False
    for record in stages:
        if record.stage == "train" and record.key:
            progress = TrainingStatus(store, layout.output_prefix("train", record.key)).progress()
            return progress is not None and progress["epoch"] > 1
    return False


@pytest.mark.slow
def test_a_run_passes_it_on_saves_and_goes_on_later(store: Store, twin: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hep2flow.cli", "run", "--source", str(twin), "--run-id=stopped"]
    command += ["--recipe=convnext-b", "--profile=laptop", "--set=model.network=test_convnext", "--set=eval.tta=none"]
    command += ["--set=model.layer_scale=null", "--set=train.epochs=60", "--set=train.max_updates=null"]
    command += ["--set=model.image_size=32", f"--out={tmp_path / 'out'}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + SECONDS
    while not in_the_middle(store, "stopped"):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(process.communicate()[1])
        time.sleep(0.1)
    ours = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    _, told = process.communicate(timeout=SECONDS)
    assert process.returncode == 143, told
    assert "--run-id stopped resumes from here" in told
    assert psutil.wait_procs(ours, timeout=20)[1] == []
    assert show_run(store, "stopped").status == "interrupted"

    again = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert again.returncode == 0, again.stderr
    assert "resuming after epoch" in again.stderr
    (training,) = [record for record in show_run(store, "stopped").stages if record.stage == "train"]
    manifest = store.get_json(f"{layout.output_prefix('train', str(training.key))}/manifest.json")
    assert any("stopped at update" in notice for notice in manifest["timing"]["notices"])
