"""Halve: one half of the validation cells chooses, the other judges, and no test cell is in either."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from hep2flow.errors import UserError
from hep2flow.recipe import Split as SplitChoice
from hep2flow.stages.split import split, split_validation
from hep2flow.store.s3 import Store
from hep2flow.store.splits import Split, read_split
from tests.stages.cells_in_store import publish
from tests.stages.test_split import table_of


def made(store: Store, folder: Path, specimens: dict[str, list[int]], protocol: str) -> tuple[str, str, pd.DataFrame]:
    cells = table_of(specimens)
    tests = cells.assign(cell_id="t" + cells["cell_id"], official_split="test")
    table = pd.concat([cells, tests])
    dataset = publish(store, folder, table)
    choice = SplitChoice.model_validate({"protocol": protocol})
    return dataset, split(store, dataset, choice).uri, table.set_index("cell_id")


@pytest.mark.parametrize("protocol", ["stratified", "specimen"])
def test_the_halves_are_the_validation_cells_and_nothing_else(store: Store, tmp_path: Path, protocol: str) -> None:
    dataset, division, table = made(store, tmp_path, {"a": [6, 7, 8, 9, 5, 6], "b": [9, 4, 7, 8, 6, 7]}, protocol)
    whole, done = read_split(store, division), split_validation(store, dataset, division)
    halves = read_split(store, done.uri)
    assert halves.ids("train") == whole.ids("train")
    assert sorted(halves.ids("val") + halves.ids("test")) == whole.ids("val")
    assert not set(halves.subsets) & set(whole.ids("test"))
    assert done.summary == {"by": "specimen", "trains": len(halves.ids("train")), **both(halves)}
    choosing, judging = (table.loc[halves.ids(half)] for half in ("val", "test"))
    assert not set(choosing["specimen_id"]) & set(judging["specimen_id"])
    assert set(choosing["pattern"]) == set(judging["pattern"]) == {"a", "b"}
    assert abs(len(choosing) - len(judging)) <= 9, "as near as whole specimens allow"
    again = split_validation(store, dataset, division)
    assert (again.uri, again.cached) == (done.uri, True)


def both(halves: Split) -> dict[str, int]:
    counts = halves.counts()
    return {"chooses": counts["val"], "judges": counts["test"]}


def test_where_a_pattern_has_one_specimen_cells_are_drawn_and_the_summary_says_so(store: Store, tmp_path: Path) -> None:
    dataset, division, table = made(store, tmp_path, {"a": [20], "b": [10, 11]}, "stratified")
    done = split_validation(store, dataset, division)
    assert done.summary["by"] == "cell"
    halves = read_split(store, done.uri)
    for half in ("val", "test"):
        assert set(table.loc[halves.ids(half), "pattern"]) == {"a", "b"}


def test_what_cannot_be_halved_is_refused(store: Store, tmp_path: Path) -> None:
    dataset, division, _ = made(store, tmp_path / "few", {"a": [2], "b": [10, 11]}, "stratified")
    with pytest.raises(UserError, match=r"one validation cell of a cannot both choose and judge"):
        split_validation(store, dataset, division)
    dataset, division, _ = made(store, tmp_path / "whole", {"a": [9], "b": [10, 11]}, "whole-train")
    with pytest.raises(UserError, match=r"whole-train validates on the test set"):
        split_validation(store, dataset, division)
