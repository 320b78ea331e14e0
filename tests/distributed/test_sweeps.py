"""A sweep whose processes are killed: no finished trial is repeated, and a crashed one is named.

Everything is real: `hep2flow tune` as a process, its Ray, its embedded store; SIGKILL.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from hep2flow.search.trials import Trial, read_trials
from hep2flow.sources.synthetic import write_twin
from hep2flow.store.layout import output_prefix
from hep2flow.store.s3 import Store

from ..stages.test_train import prepared
from ..stages.test_tune import searching

SECONDS = 240
TRIALS = 6


def command_of(store: Store, folder: Path, *overrides: str) -> list[str]:
    recipe = searching("train.epochs=30", "search.early_stopping=none", *overrides)
    dataset, division = prepared(store, folder, recipe)
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    command = [sys.executable, "-m", "hep2flow.cli", "tune", "--json", f"--trials={TRIALS}", "--judge=0"]
    return [*command, "--recipe", str(folder / "recipe.yaml"), "--dataset", dataset, "--split", division]


def records(store: Store) -> list[Trial]:
    keys = {item.key.split("/")[1] for item in store.list_objects("sweeps")}
    return [trial for key in sorted(keys) for trial in read_trials(store, key)]


def wait_for(store: Store, ended: int, process: subprocess.Popen[str]) -> list[Trial]:
    deadline = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        done = [trial for trial in records(store) if trial.status != "running"]
        going = [trial for trial in records(store) if trial.status == "running" and trial.points]
        if len(done) >= ended and going:
            return done
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"{ended} trials that ended were never seen: {process.communicate()[1]}")


def kill_a_trial(process: subprocess.Popen[str]) -> None:
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):
            if "ray::ImplicitFunc" in " ".join(child.cmdline()):
                child.kill()
                return
    pytest.fail("no trial is running")


@pytest.mark.slow
def test_a_killed_driver_and_a_killed_trial(store: Store, tmp_path: Path) -> None:
    command = command_of(store, tmp_path)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    before = wait_for(store, 2, process)
    process.kill()
    process.communicate()

    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(store, len(before) + 1, process)
    kill_a_trial(process)
    output, told = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, told
    result = json.loads(output)
    after = read_trials(store, result["key"])
    assert [trial.number for trial in after] == list(range(TRIALS))
    assert [after[trial.number] for trial in before] == before, "finished trials were not repeated"
    for trial in before:
        assert f"trial {trial.number}:" not in told
    assert result["summary"]["failed"] == 1
    (reason,) = result["summary"]["failures"].values()
    assert "died" in reason
    finished = [trial for trial in after if trial.status == "finished"]
    assert len(finished) == TRIALS - 1
    assert all([point.epoch for point in trial.points] == list(range(1, 31)) for trial in finished)
    assert not list(store.list_objects(f"{output_prefix('tune', result['key'])}/running"))


def test_a_crash_and_a_loss_that_is_no_number_end_no_sweep(store: Store, tmp_path: Path) -> None:
    space = "search.space={optim.lr: {choice: [1.0e-3, 2.0e-3, 1.0e+30]}}"
    command = command_of(store, tmp_path, space, "search.algorithm=grid", "train.clipping=null")
    command += ["--trials=4", "--concurrency=1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(store, 1, process)
    kill_a_trial(process)
    output, told = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, told
    summary = json.loads(output)["summary"]
    assert (summary["trials"], summary["failed"]) == (4, 2)
    assert sorted(reason.split()[0] for reason in summary["failures"].values()) == ["The", "training"]
    for number, reason in summary["failures"].items():
        assert "died" in reason or "diverged" in reason
        assert f"trial {number}: failed" in told


@pytest.mark.slow
def test_a_killed_run_with_a_sweep_goes_on_by_its_name_alone(store: Store, tmp_path: Path) -> None:
    """The command and every process it started die in the middle."""
    recipe = searching("train.epochs=30", "search.early_stopping=none", "name=convnext-b")
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    write_twin(tmp_path / "twin", seed=0, specimens=12)
    base = [sys.executable, "-m", "hep2flow.cli", "sweep", f"--out={tmp_path / 'out'}"]
    asked = [f"--recipe={tmp_path / 'recipe.yaml'}", f"--source={tmp_path / 'twin'}", "--run-id=killed"]
    asked += [f"--trials={TRIALS}", "--judge=1"]
    process = subprocess.Popen([*base, *asked], stderr=subprocess.PIPE, text=True, start_new_session=True)
    before = wait_for(store, 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    again = subprocess.run([*base, "--resume=killed"], capture_output=True, text=True, check=False, timeout=600)
    assert again.returncode == 0, again.stderr
    after = records(store)
    assert len(after) == TRIALS
    assert [after[trial.number] for trial in before] == before, "finished trials were not repeated"
    best = max(after, key=lambda trial: (trial.score("accuracy") or 0, -min(p.val_loss for p in trial.points)))
    tuned = (tmp_path / "out" / "sweeps" / "convnext-b" / "best.yaml").read_text()
    assert f"lr: {best.changes.get('optim.lr', recipe.optim.lr)}" in tuned
