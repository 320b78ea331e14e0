"""A sweep as a stage: real Ray Tune, real store, a tiny network."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest

from hep2flow.errors import UserError
from hep2flow.recipe import Recipe, load_recipe
from hep2flow.search.settings import SweepSettings
from hep2flow.search.trials import read_trials
from hep2flow.stages.mask import mask
from hep2flow.stages.tune import tune
from hep2flow.store.datasets import open_dataset
from hep2flow.store.s3 import Store

from .test_train import prepared, tiny

SPACE = "search.space={optim.lr: {loguniform: [1.0e-4, 1.0e-1]}, batch.mixup: {choice: [0, 0.2, 0.8]}}"


pytestmark = pytest.mark.usefixtures("ray_cluster")


def searching(*overrides: str) -> Recipe:
    more = [
        "search.length=1",
        "train.max_updates=null",
        "train.epochs=4",
        "train.validate_every=1",
        "model.image_size=32",
    ]
    return tiny(*more, SPACE, *overrides)


def test_a_sweep_reads_no_test_cell_leaves_a_recipe_and_is_gone_on_with(store: Store, tmp_path: Path) -> None:
    recipe = searching()
    dataset, division = prepared(store, tmp_path, recipe)
    parts = [part for part in open_dataset(store, dataset).manifest["parts"] if part["official_split"] == "test"]
    assert parts
    for part in parts:
        key = f"{store.key(dataset)}/{part['file']}"
        store.put_bytes(key, b"\0" * store.size(key))  # whoever reads it is told
    told: list[str] = []
    first = tune(store, recipe, dataset, division, SweepSettings(trials=3), log=told.append)
    assert not first.cached
    assert first.summary["trials"] == 3
    assert first.summary["finished"] + first.summary["stopped"] == 3
    assert [line.split(":")[0] for line in sorted(told)] == ["trial 0", "trial 1", "trial 2"]

    folder = store.key(first.uri)
    store.get_file(f"{folder}/best.yaml", tmp_path / "best.yaml")
    best = load_recipe(str(tmp_path / "best.yaml"))
    assert best.name == "convnext-b-tuned"
    table = pd.read_parquet(io.BytesIO(store.get_bytes(f"{folder}/trials.parquet"))).set_index("trial")
    assert list(table.index) == [0, 1, 2]
    assert table.loc[0, "optim.lr"] == recipe.optim.lr, "the recipe's own values are the first trial"
    winner = table.loc[first.summary["best_trial"]]
    assert winner["val_accuracy"] == table["val_accuracy"].max() == first.summary["val_accuracy"]
    assert best.optim.lr == winner["optim.lr"]

    again = tune(store, recipe, dataset, division, SweepSettings(trials=3))
    assert (again.cached, again.uri, again.summary) == (True, first.uri, first.summary)
    before = read_trials(store, first.key)
    more = tune(store, recipe, dataset, division, SweepSettings(trials=5), log=told.append)
    assert (more.key, more.summary["trials"]) == (first.key, 5)
    assert read_trials(store, more.key)[:3] == before, "what was finished is kept as it was"
    other = tune(
        store, searching("optim.weight_decay=0.01"), dataset, division, SweepSettings(trials=1, earlier=first.uri)
    )
    assert other.key != first.key


def test_trials_that_diverge_are_named_and_end_nothing(store: Store, tmp_path: Path) -> None:
    space = "search.space={optim.lr: {choice: [1.0e-3, 1.0e+30]}, optim.name: {choice: [adamw, sgd]}}"
    recipe = searching(space, "optim.lr=1e-3", "train.clipping=null")
    dataset, division = prepared(store, tmp_path, recipe)
    done = tune(store, recipe, dataset, division, SweepSettings(trials=4))
    assert done.summary["failed"] == 2
    assert all("diverged" in reason and "optim.lr" in reason for reason in done.summary["failures"].values())
    assert done.summary["best"].get("optim.lr", "0.001") == "0.001"


def test_a_sweep_of_which_nothing_comes_says_why(store: Store, tmp_path: Path) -> None:
    space = "search.space={optim.lr: {loguniform: [1.0e+30, 1.0e+31]}}"
    recipe = searching(space, "optim.lr=1e30", "train.clipping=null")
    dataset, division = prepared(store, tmp_path, recipe)
    with pytest.raises(UserError, match=r"none of 2 trials came to a validated epoch; .*diverged"):
        tune(store, recipe, dataset, division, SweepSettings(trials=2))


def test_what_is_no_sweep_is_not_learnt_from(store: Store, tmp_path: Path) -> None:
    recipe = searching()
    dataset, division = prepared(store, tmp_path, recipe)
    with pytest.raises(UserError, match=r"--from .*there is no sweep"):
        tune(store, recipe, dataset, division, SweepSettings(trials=1, earlier=store.uri("sweeps/" + "0" * 32)))


def test_cells_are_masked_as_each_trial_wants_them(store: Store, tmp_path: Path) -> None:
    recipe = searching("search.space={data.mask: {choice: [none, apply, crop]}}", "search.algorithm=grid")
    dataset, division = prepared(store, tmp_path, recipe)
    dataset = mask(store, dataset, "apply").uri
    done = tune(store, recipe, dataset, division, SweepSettings(trials=3))
    losses = {
        trial.changes.get("data.mask", "apply"): trial.points[-1].train_loss for trial in read_trials(store, done.key)
    }
    assert sorted(losses) == ["apply", "crop", "none"]
    assert len(set(losses.values())) == 3


def test_a_population_goes_on_from_its_best(store: Store, tmp_path: Path) -> None:
    recipe = searching("search.algorithm=pbt", "search.population=4", "train.epochs=4")
    dataset, division = prepared(store, tmp_path, recipe)
    done = tune(store, recipe, dataset, division, SweepSettings(trials=8))
    trials = read_trials(store, done.key)
    assert [trial.status for trial in trials] == ["finished"] * 8
    for trial in trials[:4]:
        assert [point.epoch for point in trial.points] == [1, 2]
    for trial in trials[4:]:
        assert [point.epoch for point in trial.points] == [1, 2, 3, 4]
        assert trial.points[:2] == trials[trial.parent or 0].points
    assert done.summary["best_trial"] >= 4
    assert not list(store.list_objects(f"{store.key(done.uri)}/running"))
    with pytest.raises(UserError, match=r"search\.population=4 trials"):
        tune(store, recipe, dataset, division, SweepSettings(trials=9))


@pytest.mark.slow
def test_trials_of_several_workers_learn_what_those_of_one_learn(store: Store, tmp_path: Path) -> None:
    space = "search.space={optim.lr: {choice: [1.0e-3, 2.0e-3]}}"
    recipes = [searching(space, "train.epochs=2", "model.drop_path_rate=0", f"resources.workers={n}") for n in (1, 2)]
    dataset, division = prepared(store, tmp_path, recipes[0])
    losses = []
    for number, recipe in enumerate(recipes):
        # The number of workers is no part of a sweep's key: another space is another sweep.
        searched = recipe.model_copy(update={"search": recipe.search.model_copy(update={"grid_points": 2 + number})})
        done = tune(store, searched, dataset, division, SweepSettings(trials=2))
        assert done.summary["failed"] == 0, done.summary["failures"]
        losses.append([[point.train_loss for point in trial.points] for trial in read_trials(store, done.key)])
    assert losses[1] == [pytest.approx(curve, rel=1e-4) for curve in losses[0]]
