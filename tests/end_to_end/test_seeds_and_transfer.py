"""Several seeds, transfer from another run, and an ablation, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Command

SMALL = (
    "--profile=laptop",
    "--recipe=convnext-b",
    "--set=model.network=test_convnext",
    "--set=model.layer_scale=null",
    "--set=train.max_updates=8",
    "--set=eval.tta=none",
)


@pytest.fixture(scope="module")
def two_seeds(command: Command, twin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("seeds") / "out"
    done = command("run", "--source", str(twin), "--run-id", "seeds", "--out", str(out), *SMALL, "--seeds=2")
    assert done.returncode == 0, done.stderr
    return out


def manifest(folder: Path, model: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "trainings" / model / "manifest.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
def test_each_seed_is_a_training_of_its_own_and_is_kept(two_seeds: Path) -> None:
    recipes = json.loads((two_seeds / "run.json").read_text(encoding="utf-8"))["recipes"]
    assert list(recipes) == ["convnext-b-seed-0", "convnext-b-seed-1"]
    assert [recipe["train"]["seed"] for recipe in recipes.values()] == [0, 1]
    weights = [(two_seeds / "trainings" / name / "best.safetensors").read_bytes() for name in recipes]
    assert weights[0] != weights[1]


@pytest.mark.slow
def test_the_report_tells_mean_and_deviation_over_the_seeds(two_seeds: Path) -> None:
    shares = [
        json.loads((two_seeds / "evaluations" / f"convnext-b-seed-{seed}" / "metrics.json").read_text())["aca"]
        for seed in (0, 1)
    ]
    page = (two_seeds / "report" / "index.html").read_text(encoding="utf-8")
    assert f"{100 * sum(shares) / 2:.1f}" in page
    assert "2 seeds" in page


@pytest.mark.slow
def test_a_run_starts_from_what_another_has_learnt(
    command: Command, twin: Path, two_seeds: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("run", "--source", str(twin), "--run-id", "transfer", "--out", str(out), *SMALL)
    done = command(*arguments, "--init-from=seeds", "--set=optim.freeze=backbone", "--set=model.aux_features=[radius]")
    assert done.returncode == 0, done.stderr
    trained = manifest(out, "convnext-b")
    origin = trained["weights"]["origin"]
    assert origin.startswith("s3://")
    assert origin.endswith("/best.safetensors")
    # The measurement made the head another one.
    assert "head.fc.weight" in trained["weights_replaced"]


@pytest.mark.slow
def test_a_run_that_trained_another_network_is_no_start(command: Command, twin: Path, two_seeds: Path) -> None:
    done = command("run", "--source", str(twin), "--profile=laptop", "--recipe=coat-mini", "--init-from=seeds")
    assert done.returncode == 2
    assert "--init-from seeds: has no training of coat_lite_tiny (coat-mini)" in done.stderr
    assert "test_convnext" in done.stderr
    assert command("run", "--source", str(twin), *SMALL, "--init-from=nobody").returncode == 2


@pytest.mark.slow
def test_an_ablation_prints_the_difference_with_its_interval(command: Command, twin: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("ablate", "data.mask=none,apply", "--source", str(twin), "--run-id", "ablation", "--out", str(out))
    done = command(*arguments, *SMALL)
    assert done.returncode == 0, done.stderr
    assert "data.mask" in done.stdout
    found = json.loads((out / "ablation.json").read_text(encoding="utf-8"))
    reference, masked = found["values"]
    assert (reference["value"], masked["value"]) == ("none", "apply")
    low, high = masked["ci95"]
    assert low <= masked["difference"] <= high
    assert masked["difference"] == pytest.approx(masked["aca"] - reference["aca"])
    assert (out / "ablation-2" / "report" / "index.html").exists()


def test_an_ablation_of_one_value_is_refused(command: Command, twin: Path) -> None:
    done = command("ablate", "data.mask=apply", "--source", str(twin), *SMALL)
    assert done.returncode == 2
    assert "two different values" in done.stderr
