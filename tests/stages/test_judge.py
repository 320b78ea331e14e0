"""A sweep's winner judged on other cells: real Ray, real store, a tiny network."""

from __future__ import annotations

from pathlib import Path

import pytest

from hep2flow.errors import UserError
from hep2flow.search.settings import SweepSettings
from hep2flow.stages import judge as module
from hep2flow.stages.finalists import finalist_names, finalists, fresh_seeds, tuned_recipe
from hep2flow.stages.judge import judge_sweep
from hep2flow.stages.split import split_validation
from hep2flow.stages.tune import tune
from hep2flow.store.datasets import open_dataset
from hep2flow.store.s3 import Store
from hep2flow.store.splits import read_split

from .test_train import prepared
from .test_tune import searching

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_the_winner_is_judged_on_cells_that_chose_nothing_with_equal_updates(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its own values cannot learn, so that one of the others wins; the sampler shows more cells per epoch.
    space = "search.space={optim.lr: {choice: [1.0e-12, 1.0e-2]}, train.sampler: {choice: [none, over]}}"
    recipe = searching(space, "optim.lr=1e-12", "search.length=0.5", "train.epochs=6")
    dataset, division = prepared(store, tmp_path, recipe)
    for part in open_dataset(store, dataset).manifest["parts"]:
        if part["official_split"] == "test":
            key = f"{store.key(dataset)}/{part['file']}"
            store.put_bytes(key, b"\0" * store.size(key))  # whoever reads it is told
    swept = tune(store, recipe, dataset, division, SweepSettings(trials=4))
    assert swept.summary["best"]["optim.lr"] == "0.01"

    told: list[str] = []
    first = judge_sweep(store, swept.uri, seeds=2, log=told.append)
    halves = read_split(store, split_validation(store, dataset, division).uri)
    found = store.get_json(store.key(first.uri))
    assert found["cells"] == len(halves.ids("test"))
    assert found["seeds"] == [2, 2]
    assert [len(found["each"][side]) for side in ("tuned", "default")] == [2, 2]
    assert found["difference"] == pytest.approx(found["first"] - found["second"])
    assert found["first"] == pytest.approx(sum(found["each"]["tuned"]) / 2)
    assert found["ci95"][0] <= found["difference"] <= found["ci95"][1]
    assert found["updates"] == 3 * -(-len(halves.ids("train")) // recipe.train.batch_size)
    assert len(told) == 4
    assert not list(store.list_objects(f"{store.key(first.uri).removesuffix('.json')}/"))

    monkeypatch.setattr(module, "_compare", None)  # nothing is trained again
    again = judge_sweep(store, swept.uri, seeds=2)
    assert (again.cached, again.uri, again.summary) == (True, first.uri, first.summary)


def test_where_the_recipes_own_values_won_there_is_nothing_to_judge(store: Store, tmp_path: Path) -> None:
    recipe = searching("search.space={optim.lr: {choice: [1.0e-12, 1.0e-13]}}", "optim.lr=1e-2")
    dataset, division = prepared(store, tmp_path, recipe)
    swept = tune(store, recipe, dataset, division, SweepSettings(trials=2))
    assert swept.summary["best"] == {}
    assert judge_sweep(store, swept.uri).summary["same"] is True


def test_what_is_no_sweep_cannot_be_judged(store: Store) -> None:
    with pytest.raises(UserError, match="there is no finished sweep"):
        judge_sweep(store, store.uri("sweeps/" + "0" * 32))


def test_seeds_of_trials_judges_and_finalists_are_different() -> None:
    recipe = searching("train.seed=7")
    assert fresh_seeds(recipe, 5) == [8, 9, 10, 11, 12]
    assert [one.train.seed for one in finalists(recipe, 2)] == [13, 14]


def test_the_names_of_finalists_are_known_before_the_sweep() -> None:
    recipe = searching("train.seed=7")
    best = tuned_recipe(recipe, {"optim.lr": "0.5"})
    for count in (1, 3):
        assert finalist_names(recipe, count) == [one.name for one in finalists(best, count)]
