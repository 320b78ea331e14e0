"""A run whose steps are containers is the run whose steps are processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hep2flow.execution.local.docker_runner import LABEL, DockerSteps, Images
from hep2flow.store.runs import RunView, show_run
from hep2flow.store.s3 import Store
from tests.end_to_end.test_termination import in_the_middle

from .conftest import as_caller, inside

pytestmark = pytest.mark.images

SMALL = ["--recipe=convnext-b", "--profile=laptop", "--set=train.max_updates=8", "--set=train.validate_every=1"]
ENDLESS = [
    "--recipe=convnext-b",
    "--profile=laptop",
    "--set=model.network=test_convnext",
    "--set=model.layer_scale=null",
]
ENDLESS += ["--set=train.epochs=60", "--set=train.max_updates=null", "--set=model.image_size=32", "--set=eval.tta=none"]
SECONDS = 400

Say = Callable[..., dict[str, Any]]


def hep2flow(*words: str) -> list[str]:
    return [sys.executable, "-m", "hep2flow.cli", *words]


def beside(store: Store, name: str) -> Store:
    """An empty store, which the environment names from here on."""
    os.environ["HEP2FLOW_PREFIX"] = f"{store.address.prefix}-{name}"
    return Store(store.address.model_copy(update={"prefix": os.environ["HEP2FLOW_PREFIX"]}))


def run(source: Path, run_id: str, out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = hep2flow("run", "--source", str(source), "--run-id", run_id, "--out", str(out), *words)
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


def containers(engine: Any) -> list[Any]:
    return list(engine.containers.list(all=True, filters={"label": LABEL}))


def test_the_data_stages_give_the_same_digests(engine: Any, step_image: Any, cells: Path, store: Store) -> None:
    def here(*words: str) -> str:
        return subprocess.run(hep2flow(*words), capture_output=True, text=True, check=True).stdout

    def there(*words: str) -> str:
        return inside(
            engine,
            step_image,
            *("hep2flow", *words),
            network_mode="host",
            environment={name: value for name, value in os.environ.items() if name.startswith(("AWS_", "HEP2FLOW_"))},
            volumes={str(cells): {"bind": str(cells), "mode": "ro"}},
            user=as_caller(),
            stderr=False,
        )

    def found(say: Callable[..., str]) -> list[tuple[str, str, Any]]:
        ingested = json.loads(say("ingest", "--json", "--source", str(cells)))
        masked = json.loads(say("mask", "--json", "--dataset", ingested["uri"]))
        divided = json.loads(say("split", "--json", "--dataset", masked["uri"]))
        return [(one["key"], one["uri"].split("/")[-1], one["cached"]) for one in (ingested, masked, divided)]

    beside(store, "here")
    expected = found(here)
    beside(store, "there")
    assert found(there) == expected
    assert not any(cached for _, _, cached in expected)


@pytest.mark.slow
@pytest.mark.usefixtures("both")
def test_the_pipeline_gives_the_same_artifacts(engine: Any, cells: Path, store: Store, tmp_path: Path) -> None:
    views: dict[str, RunView] = {}
    for runner in ("subprocess", "docker"):
        there = beside(store, runner)
        done = run(cells, "same", tmp_path / runner, *SMALL, "--runner", runner)
        assert done.returncode == 0, done.stderr + (tmp_path / runner / "log.txt").read_text()[-3000:]
        assert "train convnext-b: done in" in done.stderr
        views[runner] = show_run(there, "same")
    keys = {runner: {stage.stage: stage.key for stage in view.stages} for runner, view in views.items()}
    assert keys["docker"] == keys["subprocess"]
    hosts = {stage.stage: stage.host for stage in views["docker"].stages}
    assert set(hosts) >= {"ingest", "mask", "split", "train", "evaluate", "report"}

    ours, theirs = (tmp_path / runner for runner in ("subprocess", "docker"))
    figures = [json.loads((folder / "evaluations/convnext-b/metrics.json").read_text()) for folder in (ours, theirs)]
    for told in figures:
        del told["timing"]
    assert figures[0] == figures[1]
    tables = [pd.read_parquet(folder / "evaluations/convnext-b/predictions.parquet") for folder in (ours, theirs)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    weights = [(folder / "trainings/convnext-b/best.safetensors").read_bytes() for folder in (ours, theirs)]
    assert weights[0] == weights[1]

    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    assert [path for path in theirs.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()] == []
    assert containers(engine) == []


@pytest.mark.slow
@pytest.mark.usefixtures("both")
def test_a_users_mistake_is_told_as_ever(engine: Any, cells: Path, store: Store, tmp_path: Path) -> None:
    for pattern in ("coarse_speckled", "nucleolar"):
        (tmp_path / "cells" / pattern).mkdir(parents=True)
        (tmp_path / "cells" / pattern / "broken.png").write_bytes(b"no image")
    told = []
    for runner in ("subprocess", "docker"):
        beside(store, runner)
        done = run(tmp_path / "cells", "mistaken", tmp_path / runner, *SMALL, "--runner", runner)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        told.append(done.stderr.splitlines()[-1])
    assert "broken.png" in told[0]
    assert told[0] == told[1]
    assert containers(engine) == []


@pytest.mark.slow
@pytest.mark.usefixtures("both")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_reaches_the_step_which_saves_what_it_did(
    number: int, code: int, engine: Any, cells: Path, store: Store, tmp_path: Path
) -> None:
    command = hep2flow("run", "--source", str(cells), "--run-id=stopped", f"--out={tmp_path / 'out'}", *ENDLESS)
    process = subprocess.Popen([*command, "--runner=docker"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + SECONDS
    while not in_the_middle(store, "stopped"):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(process.communicate()[1])
        time.sleep(0.2)
    (step,) = containers(engine)
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in " ".join(step.attrs["Config"]["Cmd"])
    process.send_signal(number)
    _, told = process.communicate(timeout=SECONDS)
    assert process.returncode == code, told
    assert containers(engine) == []
    assert show_run(store, "stopped").status == "interrupted"
    if number == signal.SIGTERM:
        again = subprocess.run([*command, "--runner=docker", "--set=train.epochs=60"], capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
        assert "resuming after epoch" in again.stderr


def test_a_container_that_ends_at_once_is_no_success(engine: Any, step_image: Any) -> None:
    steps = DockerSteps(Images(ray=step_image.tags[0]), source=None)
    assert [steps._run(engine, step_image.id, ["sh", "-c", "exit 2"], {}) for _ in range(3)] == [2, 2, 2]


@pytest.mark.parametrize(
    ("words", "environment", "told"),
    [
        (["--step-image=localhost:1/none:0"], {}, "make it with `make images`"),
        ([], {"DOCKER_HOST": "unix:///nowhere"}, "no Docker engine answers"),
        ([], {"RAY_ADDRESS": "10.0.0.1:6379"}, "ray://HOST:PORT"),
    ],
)
def test_what_is_missing_is_said_before_anything_begins(
    words: list[str],
    environment: dict[str, str],
    told: str,
    step_image: Any,
    cells: Path,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = run(cells, "refused", tmp_path / "out", *SMALL, "--runner=docker", *words)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr.splitlines()[-1]
    assert list(store.folders("runs")) == []
