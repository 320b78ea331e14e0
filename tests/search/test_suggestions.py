"""What a sweep tries next, and that all it knows stands in the records of its trials."""

from __future__ import annotations

import math

import pytest

from hep2flow.errors import UserError
from hep2flow.recipe import Recipe, load_recipe
from hep2flow.search.suggestions import Suggestions
from hep2flow.search.trials import CurvePoint, Trial, best_trial, read_trials, write_trial
from hep2flow.store import layout
from hep2flow.store.s3 import Store

SWEEP = "0" * 32


def searching(space: str, *overrides: str) -> Recipe:
    return load_recipe("convnext-b", "laptop", [f"search.space={space}", *overrides])


def point(epoch: int, accuracy: float, loss: float = 1.0) -> CurvePoint:
    return CurvePoint(epoch=epoch, updates=epoch, train_loss=1, val_loss=loss, val_accuracy=accuracy, seconds=epoch)


def proposed(suggestions: Suggestions) -> dict[str, str] | None:
    trial = suggestions.propose(0)
    return None if trial is None else trial.changes


def run(recipe: Recipe, suggestions: Suggestions, count: int, best_rate: float, first: int = 0) -> list[Trial]:
    """Trials whose accuracy is the better the nearer their rate is to the best one."""
    trials = []
    for number in range(first, first + count):
        changes = proposed(suggestions)
        assert changes is not None
        away = abs(math.log10(recipe.changed(changes).optim.lr / best_rate))
        trial = Trial(number=number, changes=changes, status="finished", points=[point(1, 1 - away / 4)])
        suggestions.observe(trial)
        trials.append(trial)
    return trials


def test_the_recipes_own_values_are_tried_first_and_nothing_twice() -> None:
    recipe = searching("{optim.lr: {choice: [1.0e-3, 2.0e-3]}, batch.mixup: {choice: [0, 0.2, 0.8]}}")
    suggestions, tried = Suggestions(recipe), []
    while (changes := proposed(suggestions)) is not None:
        tried.append(recipe.changed(changes))
    assert tried[0] == recipe
    assert len({one.to_yaml() for one in tried[1:]}) == len(tried) - 1 == 6


def test_values_that_are_impossible_together_are_not_suggested() -> None:
    recipe = searching("{train.accumulation: {choice: [1, 2, 5]}, train.clipping: {choice: [null, 1.0]}}")
    suggestions = Suggestions(recipe)
    while (changes := proposed(suggestions)) is not None:
        assert changes.get("train.accumulation") != "5"  # does not divide the batch of 64


def test_a_grid_tries_every_combination_once_and_ends() -> None:
    space = (
        "{optim.lr: {loguniform: [1.0e-4, 1.0e-2]}, batch.mixup: {choice: [0, 0.8]}, train.ema: {choice: [null, 0.9]}}"
    )
    recipe = searching(space, "search.algorithm=grid")
    suggestions, tried = Suggestions(recipe), []
    while (changes := proposed(suggestions)) is not None:
        tried.append(changes)
    rates = {recipe.changed(changes).optim.lr for changes in tried[1:]}
    assert rates == {1e-4, 1e-3, 1e-2}
    assert len(tried) == len({str(sorted(changes.items())) for changes in tried}) == 1 + 3 * 2 * 2
    assert tried[1:] != sorted(tried[1:], key=str), "not in order: a part of a grid is to be spread over it"


def test_a_grid_that_nobody_could_walk_is_refused() -> None:
    recipe = load_recipe("convnext-b", "laptop", ["search.algorithm=grid"])
    with pytest.raises(UserError, match=r"more than 10,000 points; lower search\.grid_points"):
        Suggestions(recipe)


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_tpe_learns_and_random_does_not(algorithm: str) -> None:
    recipe = searching("{optim.lr: {loguniform: [1.0e-5, 1.0e-1]}}", f"search.algorithm={algorithm}")
    trials = run(recipe, Suggestions(recipe), 60, 1e-4)
    rates = [recipe.changed(trial.changes).optim.lr for trial in trials[30:]]
    near = sum(3e-5 < rate < 3e-4 for rate in rates) / len(rates)
    assert near > 0.5 if algorithm == "tpe" else near < 0.5


def test_a_sweep_continues_from_its_records_as_well_as_from_memory() -> None:
    recipe = searching("{optim.lr: {loguniform: [1.0e-5, 1.0e-1]}}")
    before = run(recipe, Suggestions(recipe), 30, 1e-4)
    after = run(recipe, Suggestions(recipe, before), 40, 1e-4, first=30)
    assert not {str(trial.changes) for trial in before} & {str(trial.changes) for trial in after}
    rates = [recipe.changed(trial.changes).optim.lr for trial in after]
    # A quarter of the space, and what a draw by chance would hit so often.
    assert sum(3e-5 < rate < 3e-4 for rate in rates) / len(rates) > 0.5


def test_failed_and_stopped_trials_teach_what_they_can() -> None:
    recipe = searching("{optim.lr: {loguniform: [1.0e-5, 1.0e-1]}}")
    suggestions = Suggestions(recipe)
    for number, status in enumerate(("failed", "stopped", "finished", "running")):
        changes = proposed(suggestions)
        assert changes is not None
        points = [] if status == "failed" else [point(1, 0.5), point(2, 0.6)]
        suggestions.observe(Trial(number=number, changes=changes, status=status, points=points))  # type: ignore[arg-type]
    assert proposed(suggestions) is not None


def test_the_best_trial_is_the_highest_then_the_surest_then_the_first() -> None:
    trials = [
        Trial(number=0, changes={}, status="finished", points=[point(1, 0.8, 0.5), point(2, 0.7, 0.4)]),
        Trial(number=1, changes={"a": "1"}, status="stopped", points=[point(1, 0.8, 0.3)]),
        Trial(number=2, changes={"a": "2"}, status="finished", points=[point(1, 0.8, 0.3)]),
        Trial(number=3, changes={"a": "3"}, status="failed", points=[point(1, 0.9)]),
        Trial(number=4, changes={"a": "4"}, status="finished"),
    ]
    best = best_trial(trials, "accuracy")
    assert best is not None
    assert best.number == 1
    assert trials[0].curve("accuracy") == {1: 0.8, 2: 0.8}
    assert trials[0].curve("loss") == {1: -0.5, 2: -0.4}
    assert best_trial(trials[3:], "accuracy") is None


def test_records_come_back_from_the_store_and_a_damaged_one_is_named(store: Store) -> None:
    trials = [Trial(number=n, changes={"optim.lr": "0.1"}, points=[point(1, 0.5)]) for n in (2, 0, 1)]
    for trial in trials:
        write_trial(store, SWEEP, trial)
    assert read_trials(store, SWEEP) == sorted(trials, key=lambda trial: trial.number)
    store.put_json(f"{layout.output_prefix('tune', SWEEP)}/trials/00003.json", {"number": 3})
    with pytest.raises(UserError, match=r"00003\.json: no record of a trial; delete it"):
        read_trials(store, SWEEP)
