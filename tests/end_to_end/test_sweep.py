"""A sweep as a user runs it: real store, real Ray Tune, real Kubeflow local runner, small networks."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from .conftest import Command

SPACE = "--set=search.space={optim.lr: {loguniform: [1.0e-4, 1.0e-1]}, optim.name: {choice: [adamw, sgd]}}"
SMALL = (
    "--profile=laptop",
    "--recipe=convnext-b",
    "--set=model.network=test_convnext",
    "--set=model.layer_scale=null",
    "--set=model.image_size=32",
    "--set=train.max_updates=36",
    "--set=train.validate_every=1",
    "--set=search.length=1",
    SPACE,
)


@pytest.fixture(scope="module")
def swept(command: Command, twin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "swept"
    done = command("sweep", "--source", str(twin), "--run-id=swept", f"--out={out}", "--trials=3", "--judge=1", *SMALL)
    assert done.returncode == 0, done.stderr + (out / "log.txt").read_text()[-3000:]
    assert "best recipe: " in done.stdout
    assert "Sweep of test_convnext" in done.stdout
    return out


def test_a_sweep_leaves_tables_a_recipe_and_a_section_of_the_report(swept: Path) -> None:
    trials = pd.read_parquet(swept / "sweeps" / "convnext-b" / "trials.parquet")
    assert list(trials["trial"]) == [0, 1, 2]
    assert list(pd.read_csv(swept / "sweeps" / "convnext-b" / "trials.csv").columns) == list(trials.columns)
    page = (swept / "report" / "index.html").read_text(encoding="utf-8")
    assert 'id="sweeps"' in page
    metrics = json.loads((swept / "evaluations" / "convnext-b-tuned" / "metrics.json").read_text())
    assert (metrics["subset"], metrics["seed"]) == ("test", 6)


def test_the_best_recipe_trains_as_it_is(command: Command, swept: Path) -> None:
    shown = json.loads(command("runs", "show", "swept", "--json").stdout)
    results = {stage["stage"]: stage["result"]["uri"] for stage in shown["stages"]}
    best = swept / "sweeps" / "convnext-b" / "best.yaml"
    shared = (f"--recipe={best}", f"--dataset={results['mask']}", f"--split={results['split']}", "--json")
    trained = command("train", *shared, "--set=train.max_updates=2")
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["summary"]["updates"] == 2


def test_a_name_belongs_to_one_specification(command: Command, twin: Path, swept: Path) -> None:
    other = command("sweep", "--source", str(twin), "--run-id=swept", "--trials=4", "--judge=1", *SMALL)
    assert other.returncode == 2
    assert "belongs to a run with other parameters" in other.stderr
    nothing = command("sweep", "--recipe=convnext-b", "--trials=4")
    assert nothing.returncode == 2
    assert "--source" in nothing.stderr
    unknown = command("sweep", "--resume=nowhere")
    assert unknown.returncode == 2
    assert "there is no such run" in unknown.stderr
