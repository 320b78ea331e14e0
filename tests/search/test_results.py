"""Results of a sweep, computed by hand."""

from __future__ import annotations

import pytest

from hep2flow.recipe import load_recipe
from hep2flow.search.results import (
    early_stopping_savings,
    learning_curves,
    parameter_importance,
    sweep_progress,
    trial_table,
)
from hep2flow.search.trials import CurvePoint, Trial

SPACE = "search.space={optim.lr: {loguniform: [1.0e-4, 1.0e-1]}, batch.label_smoothing: {uniform: [0, 0.2]}}"
RECIPE = load_recipe("convnext-b", "laptop", [SPACE])


def point(epoch: int, accuracy: float, seconds: float) -> CurvePoint:
    return CurvePoint(epoch=epoch, updates=epoch, train_loss=1, val_loss=1, val_accuracy=accuracy, seconds=seconds)


FINISHED = Trial(number=0, changes={}, status="finished", points=[point(5, 0.5, 10), point(10, 0.6, 20)])
STOPPED = Trial(number=1, changes={"optim.lr": "0.1"}, status="stopped", points=[point(2, 0.3, 5)])
CHILD = Trial(number=2, changes={}, parent=1, status="finished", points=[point(2, 0.3, 5), point(6, 0.7, 13)])
RUNNING = Trial(number=3, changes={"optim.lr": "0.01"}, points=[point(1, 0.2, 2)])
FAILED = Trial(number=4, changes={}, status="failed", reason="diverged")


def test_early_stopping_saves_what_a_stopped_trial_had_left() -> None:
    result = early_stopping_savings([FINISHED, STOPPED, FAILED], 10)
    assert result == {"epochs_run": 12, "epochs_saved": 8, "seconds_run": 25.0, "seconds_saved": 20.0}


def test_epochs_of_a_parent_are_not_counted_twice() -> None:
    result = early_stopping_savings([STOPPED.model_copy(update={"status": "finished"}), CHILD], 6)
    assert (result["epochs_run"], result["seconds_run"]) == (2 + 4, 5 + 8)


def test_curves_are_one_row_for_each_epoch() -> None:
    table = learning_curves([FINISHED, STOPPED, FAILED])
    assert list(table["trial"]) == [0, 0, 1]
    assert list(table["val_accuracy"]) == [0.5, 0.6, 0.3]
    assert list(learning_curves([FAILED]).columns) == list(table.columns)


def test_the_key_that_matters_is_the_more_important_one() -> None:
    trials = [
        Trial(
            number=number,
            changes={
                "optim.lr": f"{10 ** (-4 + 3 * number / 39)}",
                "batch.label_smoothing": f"{number * 7 % 40 / 200}",
            },
            status="finished",
            points=[point(1, 0.2 + 0.02 * number, 1)],
        )
        for number in range(40)
    ]
    found = parameter_importance(RECIPE, trials)
    assert found is not None
    assert sum(found.values()) == pytest.approx(1, abs=1e-3)
    assert found["optim.lr"] > 0.8
    assert parameter_importance(RECIPE, trials[:7]) is None, "too few"


def test_a_table_writes_a_value_one_way() -> None:
    space = "search.space={batch.mixup: {choice: [0, 0.2]}, optim.lr: {loguniform: [1.0e-4, 1.0e-1]}}"
    recipe = load_recipe("convnext-b", "laptop", [space])
    other = Trial(
        number=1, changes={"batch.mixup": "0", "optim.lr": "0.01"}, status="finished", points=[point(1, 0.5, 1)]
    )
    table = trial_table(recipe, [FINISHED, other, FAILED.model_copy(update={"changes": {"optim.lr": "0.02"}})])
    assert table["batch.mixup"].tolist()[:2] == ["0", "0"], "0.0 in the recipe, 0 in the space"
    assert table["batch.mixup"].isna().tolist() == [False, False, True]
    assert table["optim.lr"].tolist() == [recipe.optim.lr, 0.01, 0.02]


def test_progress_has_the_best_trial_and_the_time_left() -> None:
    result = sweep_progress(RECIPE, [FINISHED, STOPPED, RUNNING, FAILED], count=7, seconds=20.0, had_ended=1)
    assert (result["ended"], result["stopped"], result["failed"], result["trials"]) == (3, 1, 1, 7)
    assert result["best"]["trial"] == 0
    assert result["running"] == [{"trial": 3, "epoch": 1, "val_accuracy": 0.2, "changes": {"optim.lr": "0.01"}}]
    assert result["seconds_left"] == 40.0  # 10 s for each of the two that ended in this process, four to go
    assert sweep_progress(RECIPE, [RUNNING], count=2, seconds=9.0, had_ended=0)["seconds_left"] is None
