"""Population based training: which trial continues from which follows from the records alone."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hep2flow.errors import UserError
from hep2flow.recipe import Recipe, load_recipe
from hep2flow.search.population_based_training import Population
from hep2flow.search.trials import CurvePoint, Trial

SPACE = "search.space={optim.lr: {loguniform: [1.0e-5, 1.0e-1]}, batch.mixup: {choice: [0, 0.2, 0.8]}}"
EPOCHS = 12


def searching(*overrides: str) -> Recipe:
    more = ["search.algorithm=pbt", "search.population=4", "train.validate_every=1", *overrides]
    return load_recipe("convnext-b", "laptop", [SPACE, *more])


def ended(trial: Trial, accuracy: float, epoch: int) -> Trial:
    point = CurvePoint(epoch=epoch, updates=epoch, train_loss=1, val_loss=1, val_accuracy=accuracy, seconds=epoch)
    return trial.model_copy(update={"status": "finished", "points": [point]})


def played(recipe: Recipe, trials: int, chance: random.Random) -> list[Trial]:
    population, records = Population(recipe, trials, EPOCHS), list[Trial]()
    for number in range(trials):
        trial = population.propose(number)
        assert isinstance(trial, Trial)
        records.append(ended(trial, chance.random(), population.end_epoch(number)))
        population.observe(records[-1])
    assert population.propose(trials) is None
    return records


@given(st.integers(0, 2**31))
def test_every_generation_continues_from_the_one_before_and_the_worst_from_the_best(seed: int) -> None:
    recipe = searching()
    records = played(recipe, 12, random.Random(seed))
    assert records[0].changes == {}
    for trial in records[4:]:
        parent = records[trial.parent or 0]
        assert parent.number // 4 == trial.number // 4 - 1
        before = records[parent.number // 4 * 4 : parent.number // 4 * 4 + 4]
        ranked = sorted(before, key=lambda one: -one.points[-1].val_accuracy)
        if parent.number % 4 == trial.number % 4 and parent != ranked[0]:
            assert trial.changes == parent.changes
        assert parent != ranked[-1], "none continues from the last"
        assert 1e-5 <= recipe.changed(trial.changes).optim.lr <= 1e-1
    last = [records[n] for n in range(4, 12) if records[n].parent is not None and records[n].parent % 4 != n % 4]
    assert all(trial.changes != records[trial.parent or 0].changes for trial in last), "what is taken over is moved"


@given(st.integers(0, 2**31), st.integers(0, 12))
def test_what_comes_next_follows_from_the_records(seed: int, known: int) -> None:
    recipe = searching()
    records = played(recipe, 12, random.Random(seed))
    again = Population(recipe, 12, EPOCHS, records[:known])
    for number in range(known // 4 * 4, min(known // 4 * 4 + 4, 12)):
        proposed = again.propose(number)
        assert isinstance(proposed, Trial)
        assert (proposed.changes, proposed.parent) == (records[number].changes, records[number].parent)
    if known < 8:
        assert again.propose(known // 4 * 4 + 4) == "later"


def test_a_failed_trial_is_replaced_and_a_generation_of_failures_ends_it() -> None:
    population = Population(searching(), 8, EPOCHS)
    for number in range(4):
        trial = population.propose(number)
        assert isinstance(trial, Trial)
        failed = number in (0, 2)
        population.observe(trial.model_copy(update={"status": "failed"}) if failed else ended(trial, 0.5, 6))
    parents = {trial.parent for number in range(4, 8) if isinstance(trial := population.propose(number), Trial)}
    assert parents <= {1, 3}
    nothing = Population(searching(), 8, EPOCHS, [Trial(number=n, changes={}, status="failed") for n in range(4)])
    assert nothing.propose(4) is None


def test_states_stay_for_the_next_generation_and_no_longer() -> None:
    population, gone = Population(searching(), 8, EPOCHS), list[list[int]]()
    for number in range(8):
        trial = population.propose(number)
        assert isinstance(trial, Trial)
        record = ended(trial, 0.5, population.end_epoch(number))
        population.observe(record)
        gone.append(population.obsolete_states(record))
    assert gone == [[], [], [], [], [], [], [], list(range(8))]


def test_generations_end_at_validated_epochs() -> None:
    population = Population(searching("train.validate_every=2"), 12, 11)
    assert [population.end_epoch(number) for number in (0, 4, 8)] == [4, 8, 11]


@pytest.mark.parametrize(
    ("trials", "epochs", "message"),
    [(4, 12, "give a multiple, 8"), (10, 12, "give a multiple, 12"), (40, 8, "give at most 32")],
)
def test_trials_that_are_no_generations_are_refused(trials: int, epochs: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Population(searching(), trials, epochs)


def test_what_cannot_change_in_a_training_is_no_key_of_it() -> None:
    space = "search.space={model.aux_features: {choice: [[], [radius]]}}"
    with pytest.raises(UserError, match=r"model\.aux_features cannot change in the middle of a training"):
        load_recipe("convnext-b", "laptop", [space, "search.algorithm=pbt"])
