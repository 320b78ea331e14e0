"""The whole pipeline, as a user runs it: real store, real Ray Train, real Kubeflow local runner, small networks."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from .conftest import Command

SMALL = (
    "--profile=laptop",
    "--set=model.network=test_convnext",
    "--set=model.layer_scale=null",
    "--set=train.max_updates=12",
    "--set=train.validate_every=1",
)
STAGES = ["ingest", "mask", "split", "train-coat-mini", "train-convnext-b", "evaluate-coat-mini", "evaluate-convnext-b"]


def run(command: Command, twin: Path, out: Path, name: str, *more: str) -> subprocess.CompletedProcess[str]:
    return command("run", "--source", str(twin), "--run-id", name, "--out", str(out), *SMALL, *more)


@pytest.fixture(scope="module")
def first(command: Command, twin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "first"
    done = run(command, twin, out, "first")
    assert done.returncode == 0, done.stderr + (out / "log.txt").read_text()[-3000:]
    assert "report: " in done.stdout
    return out


def test_the_report_shows_both_models_by_their_own_network_and_says_synthetic(first: Path) -> None:
    page = (first / "report" / "index.html").read_text(encoding="utf-8")
    assert page.count("test_convnext @ 64 px") >= 2
    assert "Synthetic data" in page
    assert "Stand-ins, not the paper" in page.replace("’", "'") or "stand-in" in page


@pytest.mark.parametrize("model", ["convnext-b", "coat-mini"])
def test_the_evaluation_contract_is_kept(first: Path, model: str) -> None:
    folder = first / "evaluations" / model
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    predictions = pd.read_parquet(folder / "predictions.parquet")
    assert {
        "aca", "mca", "macro_f1", "weighted_f1", "per_class", "confusion", "labels", "roc_auc", "ece", "nll", "by_intensity",
        "by_specimen", "specimen_vote_accuracy", "ci95", "tta", "protocol", "subset", "selected_on_test", "network", "n",
        "seed", "updates", "timing",
    } <= set(metrics)  # fmt: skip
    assert metrics["subset"] == "test"
    assert metrics["protocol"] == "stratified"
    assert metrics["selected_on_test"] is False
    assert metrics["network"] == "test_convnext"
    assert metrics["updates"] == 12
    assert metrics["tta"] == (model == "convnext-b")
    assert metrics["n"] == len(predictions) == sum(map(sum, metrics["confusion"]))
    assert metrics["aca"] == pytest.approx((predictions["truth"] == predictions["predicted"]).mean())
    assert predictions["cell_id"].str.startswith("test-").all()
    for figure in ("confusion_matrix", "learning_curves"):
        assert (folder / f"{figure}.svg").stat().st_size > 1000
        assert (folder / f"{figure}.png").read_bytes().startswith(b"\x89PNG")


def test_a_training_is_weights_history_and_recipe(first: Path) -> None:
    folder = first / "trainings" / "convnext-b"
    history = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [epoch["epoch"] for epoch in history] == list(range(1, len(history) + 1))
    assert history[-1]["updates"] == 12
    assert (folder / "best.safetensors").stat().st_size > 10_000
    assert "test_convnext" in (folder / "recipe.yaml").read_text()


def test_a_second_run_computes_nothing_and_gives_the_same_figures(
    command: Command, twin: Path, first: Path, tmp_path: Path
) -> None:
    done = run(command, twin, tmp_path / "again", "second")
    assert done.returncode == 0, done.stderr
    shown = json.loads(command("runs", "show", "second", "--json").stdout)
    cached = {
        f"{stage['stage']}-{stage['model']}" if stage["model"] else stage["stage"]: stage["cached"]
        for stage in shown["stages"]
    }
    assert {name: cached[name] for name in STAGES} == dict.fromkeys(STAGES, True)
    same = "evaluations/convnext-b/metrics.json"
    assert (tmp_path / "again" / same).read_bytes() == (first / same).read_bytes()


def test_runs_are_listed_shown_and_pulled(command: Command, first: Path, tmp_path: Path) -> None:
    assert "first" in command("runs", "list").stdout
    shown = command("runs", "show", "first").stdout
    assert "succeeded" in shown
    assert all(name in shown for name in STAGES)
    pulled = command("pull", "first", "--to", str(tmp_path / "pulled"), "--only", "metrics")
    assert pulled.returncode == 0, pulled.stderr
    assert (tmp_path / "pulled" / "evaluations" / "coat-mini" / "metrics.json").exists()
    assert not (tmp_path / "pulled" / "report").exists()


@pytest.mark.slow
def test_equal_recipes_train_to_equal_bytes(command: Command, twin: Path, first: Path, tmp_path: Path) -> None:
    shown = json.loads(command("runs", "show", "first", "--json").stdout)
    results = {
        stage["stage"]: stage["result"]["uri"] for stage in shown["stages"] if stage["model"] in {None, "convnext-b"}
    }
    prefix = ("train", "--recipe", "convnext-b", "--dataset", results["mask"], "--split", results["split"], "--json")
    again = command(*prefix, *SMALL)
    assert json.loads(again.stdout)["cached"] is True, again.stderr
    # Other loader workers, the same training: it is not even made again.
    assert json.loads(command(*prefix, *SMALL, "--set=train.loader_workers=1").stdout)["cached"] is True
    other = json.loads(command(*prefix, *SMALL, "--set=train.seed=1").stdout)
    assert other["cached"] is False
    assert other["uri"] != results["train"]


@pytest.mark.slow
def test_a_whole_train_run_says_that_it_is_optimistic(command: Command, twin: Path, tmp_path: Path) -> None:
    more = ("--recipe=convnext-b", "--set=data.split.protocol=whole-train", "--set=eval.tta=none")
    done = run(command, twin, tmp_path / "out", "whole", *more)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "out" / "evaluations" / "convnext-b" / "metrics.json").read_text())
    assert metrics["selected_on_test"] is True
    said = "selected on the test set: optimistic, not a test result"
    assert said in metrics["warning"]
    assert said in (tmp_path / "out" / "report" / "index.html").read_text(encoding="utf-8").lower()
    assert said in done.stdout.lower()


def test_a_source_with_faults_ends_the_run_with_all_of_them_and_no_data_set(
    command: Command, twin: Path, tmp_path: Path
) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(twin, broken)
    (broken / "training" / "001.png").write_bytes(b"not an image")
    (broken / "training" / "002_mask.png").unlink()
    done = run(command, broken, tmp_path / "out", "broken")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "001.png" in done.stderr
    assert "002" in done.stderr
    shown = command("runs", "show", "broken").stdout
    assert "failed" in shown
    assert command("pull", "broken").returncode == 2


def test_two_models_that_see_different_cells_are_refused_before_anything_runs(
    command: Command, twin: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "other.yaml"
    recipe.write_text(
        "name: other\nmodel: {network: test_convnext, weights: none, image_size: 64}\noptim: {lr: 0.1}\ndata: {mask: none}\n"
    )
    done = run(command, twin, tmp_path / "out", "refused", "--recipe=convnext-b", f"--recipe={recipe}")
    assert done.returncode == 2
    assert "data.mask" in done.stderr
    assert "refused" not in command("runs", "list").stdout


def test_a_training_that_diverges_is_told_as_such(command: Command, twin: Path, tmp_path: Path) -> None:
    more = ("--recipe=convnext-b", "--set=optim.lr=1e30", "--set=train.clipping=null", "--set=eval.tta=none")
    done = run(command, twin, tmp_path / "out", "diverged", *more)
    assert done.returncode == 2, done.stderr
    assert "diverged" in done.stderr
    assert "optim.lr" in done.stderr
