"""A training whose processes are killed ends bit for bit as one that was never interrupted.

Everything is real: `hep2flow train` as a process, its Ray, its embedded store; SIGKILL.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from hep2flow.sources.synthetic import write_twin
from hep2flow.stages.ingest import ingest
from hep2flow.stages.split import split
from hep2flow.store import embedded_server, layout
from hep2flow.store.open_store import open_store
from hep2flow.store.s3 import Store

from ..stages.test_train import tiny

EPOCHS = 10
TIMES = ("images_per_second", "seconds")
SECONDS = 180


class Laboratory:
    """A store of its own with a data set, and the command that trains on it."""

    def __init__(self, folder: Path, epochs: int, *overrides: str) -> None:
        self.store: Store = open_store()
        self.log = folder / "log.txt"
        small = ["train.max_updates=null", f"train.epochs={epochs}", "batch.mixup=0.8", "model.image_size=32"]
        recipe = tiny(*small, *overrides)
        (folder / "recipe.yaml").write_text(recipe.to_yaml())
        write_twin(folder / "twin", seed=0, specimens=12)
        dataset = ingest(self.store, str(folder / "twin")).uri
        division = split(self.store, dataset, recipe.data.split).uri
        self.command = [sys.executable, "-m", "hep2flow.cli", "train", "--json"]
        self.command += ["--recipe", str(folder / "recipe.yaml"), "--dataset", dataset, "--split", division]

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=self.log.open("a"), text=True)

    def finish(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        output, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, self.log.read_text()
        return dict(json.loads(output))

    def outcome(self, result: dict[str, Any]) -> dict[str, Any]:
        """What must be equal: the network byte for byte, metrics and manifest without their times."""
        folder = self.store.key(result["uri"])
        history = [json.loads(line) for line in self.store.get_bytes(f"{folder}/metrics.jsonl").splitlines()]
        manifest = self.store.get_json(f"{folder}/manifest.json")
        for line in (*history, manifest["best"]):
            for name in TIMES:
                del line[name]
        timed = ("metrics.jsonl", "tensorboard/events.out.tfevents.hep2flow")
        manifest["files"] = {name: facts for name, facts in manifest["files"].items() if name not in timed}
        del manifest["timing"]
        network = self.store.get_bytes(f"{folder}/best.safetensors")
        return {"network": network, "history": history, "manifest": manifest}

    def notices(self, result: dict[str, Any]) -> list[str]:
        folder = self.store.key(result["uri"])
        return list(self.store.get_json(f"{folder}/manifest.json")["timing"]["notices"])

    def forget(self, result: dict[str, Any]) -> None:
        self.store.delete_folder(self.store.key(result["uri"]))
        self.store.delete([layout.cache_key("train", result["key"])])

    def wait_for_epoch(self, epoch: int, process: subprocess.Popen[str]) -> None:
        self._wait(f"epoch {epoch}", process, lambda: self._saved_epoch() >= epoch)

    def wait_for_notice(self, text: str, process: subprocess.Popen[str]) -> None:
        self._wait(text, process, lambda: any(text in notice for notice in self._live_notices()))

    def _wait(self, what: str, process: subprocess.Popen[str], holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if holds():
                return
            time.sleep(0.05)
        pytest.fail(f"{what} was never seen: {self.log.read_text()}")

    def _saved_epoch(self) -> int:
        lists = [item.key for item in self.store.list_objects("trainings") if item.key.endswith("/resume/states.json")]
        return max((self.store.get_json(key)["states"][0]["epoch"] for key in lists), default=0)

    def _live_notices(self) -> list[str]:
        keys = [item.key for item in self.store.list_objects("trainings") if "/live/notices/" in item.key]
        return [self.store.get_json(key)["text"] for key in keys]

    def kill(self, what: str, process: subprocess.Popen[str]) -> bool:
        """Returns whether there was something to kill: the training may have ended just now."""
        if what == "driver":
            process.kill()
            process.wait()
        elif what == "worker":
            deadline = time.monotonic() + SECONDS
            while not (workers := self._workers(process)):  # the last one is just being replaced
                if process.poll() is not None or time.monotonic() > deadline:
                    return False
                time.sleep(0.05)
            workers[0].kill()
        else:
            pid = embedded_server.status()["pid"]
            os.kill(pid, signal.SIGKILL)
            psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)
            embedded_server.ensure_running()
        return True

    def _workers(self, process: subprocess.Popen[str]) -> list[psutil.Process]:
        found = []
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if "RayTrainWorker" in " ".join(child.cmdline()):
                    found.append(child)
        return found


@pytest.fixture
def laboratory(request: pytest.FixtureRequest, tmp_path: Path, own_server: None) -> Laboratory:
    return Laboratory(tmp_path, getattr(request, "param", EPOCHS))


def test_killed_worker_store_and_driver_change_nothing(laboratory: Laboratory) -> None:
    undisturbed = laboratory.finish(laboratory.start())
    expected = laboratory.outcome(undisturbed)
    assert [line["epoch"] for line in expected["history"]] == list(range(1, EPOCHS + 1))
    laboratory.forget(undisturbed)

    process = laboratory.start()
    for epoch, what in ((2, "store"), (3, "worker"), (5, "driver")):
        laboratory.wait_for_epoch(epoch, process)
        laboratory.kill(what, process)
    again = laboratory.finish(laboratory.start())
    assert again["key"] == undisturbed["key"]
    assert laboratory.outcome(again) == expected
    told = " ".join(laboratory.notices(again))
    assert "a worker was lost" in told
    assert "resuming after epoch" in told
    assert not [
        item.key
        for item in laboratory.store.list_objects("trainings")
        if "/live/" in item.key or "/resume/" in item.key
    ]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kills_at_random_epochs_change_nothing(laboratory: Laboratory) -> None:
    undisturbed = laboratory.finish(laboratory.start())
    expected = laboratory.outcome(undisturbed)
    laboratory.forget(undisturbed)
    kills = 0
    for seed in range(20):
        chance = random.Random(seed)
        process = laboratory.start()
        for epoch in sorted(chance.sample(range(1, EPOCHS - 1), 2)):
            what = chance.choice(["worker", "driver", "store"])
            laboratory.wait_for_epoch(epoch, process)
            kills += laboratory.kill(what, process)
            if what == "driver":
                process = laboratory.start()
        result = laboratory.finish(process)
        assert laboratory.outcome(result) == expected, f"seed {seed}"
        print(f"seed {seed}: equal, {kills} kills so far")
        laboratory.forget(result)
    assert kills > 30, "most of the 40 were to hit a running training"


@pytest.mark.slow
def test_a_store_that_is_away_for_a_minute_ends_nothing(laboratory: Laboratory) -> None:
    undisturbed = laboratory.finish(laboratory.start())
    expected = laboratory.outcome(undisturbed)
    laboratory.forget(undisturbed)
    process = laboratory.start()
    laboratory.wait_for_epoch(2, process)
    embedded_server.down()
    time.sleep(60)  # what is tested
    assert process.poll() is None, laboratory.log.read_text()
    embedded_server.ensure_running()
    again = laboratory.finish(process)
    assert laboratory.outcome(again) == expected
    told = laboratory.notices(again)
    assert sum("is unreachable" in notice for notice in told) == 1
    assert sum("is back" in notice for notice in told) == 1


# Long enough to be asked in the middle.
@pytest.mark.slow
@pytest.mark.parametrize("laboratory", [50], indirect=True)
def test_sigterm_saves_in_the_middle_and_the_same_command_goes_on(laboratory: Laboratory) -> None:
    undisturbed = laboratory.finish(laboratory.start())
    expected = laboratory.outcome(undisturbed)
    laboratory.forget(undisturbed)
    process = laboratory.start()
    laboratory.wait_for_epoch(1, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert "the state is saved" in laboratory.log.read_text()
    again = laboratory.finish(laboratory.start())
    assert laboratory.outcome(again) == expected
    assert any("stopped at update" in notice for notice in laboratory.notices(again))
