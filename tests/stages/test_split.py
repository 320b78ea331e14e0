"""Split: what every division keeps to, on any table of cells, and the paper's division in the store."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hep2flow.errors import UserError
from hep2flow.recipe import Split as SplitChoice
from hep2flow.recipe.schema import Protocol
from hep2flow.sources.published_counts import SPECIMENS
from hep2flow.stages.ingest import ingest
from hep2flow.stages.mask import mask
from hep2flow.stages.split import by_id_block, by_specimen, split, stratified
from hep2flow.store.s3 import Store
from hep2flow.store.splits import read_split
from tests.sources import builders
from tests.stages.cells_in_store import another, listing, publish

COLUMNS = ["cell_id", "official_split", "pattern", "specimen_id"]
DIVISIONS = [stratified, by_specimen, by_id_block]

Divide = Callable[[pd.DataFrame, float, int], dict[str, str]]


def table_of(specimens: dict[str, list[int]]) -> pd.DataFrame:
    """Training cells from pattern -> cells of each specimen; one pattern per specimen, as on a slide."""
    rows = [
        (f"{number:02d}-{cell:03d}-{pattern}", "train", pattern, f"{pattern}{number}")
        for pattern, counts in specimens.items()
        for number, count in enumerate(counts)
        for cell in range(count)
    ]
    table: pd.DataFrame = pd.DataFrame(rows, columns=COLUMNS)
    return table


def published() -> pd.DataFrame:
    """The 1455 cells of ICPR 2012 as its cells.csv lists them."""
    rows = [
        (f"{specimen.split}-{specimen.number:02d}-{cell:03d}", specimen.split, specimen.pattern, specimen.specimen_id)
        for specimen in SPECIMENS
        for cell in range(specimen.cells)
    ]
    table: pd.DataFrame = pd.DataFrame(rows, columns=COLUMNS)
    return table


TABLES = st.dictionaries(
    st.sampled_from("abcdef"), st.lists(st.integers(1, 9), min_size=2, max_size=5), min_size=1
).map(table_of)
FRACTIONS = st.integers(1, 99).map(lambda percent: percent / 100)
SEEDS = st.integers(0, 2**31)


@pytest.mark.parametrize("divide", DIVISIONS)
@given(cells=TABLES, fraction=FRACTIONS, seed=SEEDS, order=st.randoms(use_true_random=False))
@settings(deadline=None)
def test_every_division(divide: Divide, cells: pd.DataFrame, fraction: float, seed: int, order: random.Random) -> None:
    assignment = divide(cells, fraction, seed)
    assert sorted(assignment) == sorted(cells["cell_id"])
    sides = cells.groupby(cells["cell_id"].map(assignment))["pattern"].agg(set)
    assert set(sides.index) == {"train", "val"}
    assert sides["train"] == sides["val"] == set(cells["pattern"])
    shuffled = list(range(len(cells)))
    order.shuffle(shuffled)
    assert divide(cells.iloc[shuffled], fraction, seed) == assignment
    assert divide(cells.iloc[shuffled].reset_index(drop=True), fraction, seed) == assignment


@given(cells=TABLES, fraction=FRACTIONS, seed=SEEDS)
@settings(deadline=None)
def test_a_stratified_division_has_the_size_asked_for(cells: pd.DataFrame, fraction: float, seed: int) -> None:
    train = cells[cells["cell_id"].map(stratified(cells, fraction, seed)) == "train"]
    wanted = Fraction(str(fraction))
    counts, taken = cells["pattern"].value_counts(), train["pattern"].value_counts()
    for pattern, count in counts.items():
        assert taken[pattern] in {math.floor(wanted * count), math.ceil(wanted * count), 1, count - 1}
    if all(math.floor(wanted * n) >= 1 and math.ceil(wanted * n) < n for n in counts):
        assert len(train) == math.ceil(wanted * len(cells))


@pytest.mark.parametrize(("percent", "count"), [(55, 55), (7, 7), (28, 28), (57, 57)])
def test_a_fraction_is_what_it_was_written_as(percent: int, count: int) -> None:
    assignment = stratified(table_of({"a": [50, 50]}), percent / 100, 0)
    assert list(assignment.values()).count("train") == count


@given(cells=TABLES, fraction=FRACTIONS, seed=SEEDS)
@settings(deadline=None)
def test_a_specimen_is_never_on_both_sides(cells: pd.DataFrame, fraction: float, seed: int) -> None:
    sides = cells["cell_id"].map(by_specimen(cells, fraction, seed)).groupby(cells["specimen_id"]).nunique()
    assert (sides == 1).all()


@given(counts=st.dictionaries(st.sampled_from("abc"), st.integers(2, 60), min_size=1), seed=SEEDS)
@settings(deadline=None)
def test_an_id_block_is_never_on_both_sides(counts: dict[str, int], seed: int) -> None:
    cells = table_of({pattern: [count] for pattern, count in counts.items()})
    side = cells["cell_id"].map(by_id_block(cells, 0.5, seed))
    for _, sides in side.groupby(cells["pattern"]):
        changes = int((sides != sides.shift()).sum()) - 1
        assert changes < min(14, len(sides))


@pytest.mark.parametrize("divide", DIVISIONS)
def test_another_seed_is_another_division(divide: Divide) -> None:
    cells = published()
    drawn = {tuple(sorted(divide(cells, 0.5, seed).items())) for seed in range(5)}
    assert len(drawn) == 5


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5, 0.8, 0.9])
def test_whole_specimens_can_be_divided_at_any_ratio(fraction: float) -> None:
    cells = published().query("official_split == 'train'")
    for seed in range(10):
        assignment = by_specimen(cells, fraction, seed)
        assert cells.groupby(cells["cell_id"].map(assignment))["pattern"].nunique().tolist() == [6, 6]


def test_the_paper_divides_721_training_cells_into_361_and_360(store: Store, tmp_path: Path) -> None:
    cells = published()
    dataset = publish(store, tmp_path, cells)
    first = split(store, dataset, SplitChoice())
    assert first.summary == {
        "protocol": "stratified",
        "counts": {"train": 361, "val": 360, "test": 734},
        "shared_specimens": 14,
    }
    found = read_split(store, first.uri)
    assert (found.protocol, found.ratio, found.seed) == ("stratified", 0.5, 0)
    assert found.ids("test") == sorted(cells.loc[cells["official_split"] == "test", "cell_id"])
    second = split(store, dataset, SplitChoice())
    assert (first.cached, second.cached) == (False, True)
    assert (second.uri, second.summary) == (first.uri, first.summary)
    other = another(store)
    elsewhere = split(other, publish(other, tmp_path, cells.iloc[::-1]), SplitChoice())
    assert other.key(elsewhere.uri) == store.key(first.uri)


def test_by_specimen_the_official_test_set_stays_and_nothing_leaks(store: Store, tmp_path: Path) -> None:
    dataset = publish(store, tmp_path, published())
    result = split(store, dataset, SplitChoice(protocol="specimen", seed=3))
    counts = result.summary["counts"]
    assert (counts["train"] + counts["val"], counts["test"]) == (721, 734)
    assert result.summary["shared_specimens"] == 0


def test_whole_train_validates_on_the_test_set(store: Store, tmp_path: Path) -> None:
    cells = published()
    result = split(store, publish(store, tmp_path, cells), SplitChoice(protocol="whole-train"))
    assert result.summary["counts"] == {"train": 721, "val": 734, "test": 0}
    found = read_split(store, result.uri)
    assert found.ids("train") == sorted(cells.loc[cells["official_split"] == "train", "cell_id"])
    assert (found.ratio, found.seed) == (None, None)


def test_the_split_that_came_with_the_data_is_kept(store: Store, tmp_path: Path) -> None:
    files = builders.i3a() | {"public_split.csv": "Image ID,split\n1,train\n2,val\n13596,test\n"}
    ingested = ingest(store, str(builders.write(tmp_path / "data", files)))
    masked = mask(store, ingested.uri).uri
    result = split(store, masked, SplitChoice(), ingested.summary["given_split"])
    assert result.summary == {
        "protocol": "given",
        "counts": {"train": 1, "val": 1, "test": 1},
        "shared_specimens": None,
    }
    found = read_split(store, result.uri)
    assert [found.ids(subset) for subset in ("train", "val", "test")] == [["00001"], ["00002"], ["13596"]]


def test_the_split_of_another_data_set_is_refused(store: Store, tmp_path: Path) -> None:
    files = builders.i3a() | {"public_split.csv": "Image ID,split\n1,train\n2,val\n13596,test\n"}
    other = ingest(store, str(builders.write(tmp_path / "data", files))).summary["given_split"]
    dataset = publish(store, tmp_path / "made", table_of({"a": [2, 2]}))
    with pytest.raises(UserError, match=r"not a division of .* 7 cells are in one of the two only"):
        split(store, dataset, SplitChoice(protocol="given"), other)


def test_blocks_of_ids_serve_data_whose_ids_are_in_order(store: Store, tmp_path: Path) -> None:
    cells = table_of({"a": [10, 10], "b": [10, 10]}).assign(official_split=None, specimen_id=None)
    dataset = publish(store, tmp_path, cells, id_order_is_proxy=True)
    result = split(store, dataset, SplitChoice(protocol="id-block"))
    assert result.summary["counts"]["train"] + result.summary["counts"]["val"] == 40
    assert result.summary["shared_specimens"] is None


TWO = table_of({"a": [3, 3], "b": [3, 3]})


@pytest.mark.parametrize(
    ("cells", "protocol", "message"),
    [
        (TWO, "id-block", r"id-block is for data whose ID order stands for specimens \(I3A\), not for made"),
        (TWO, "given", r"made comes with no public_split\.csv; choose stratified, specimen or id-block"),
        (TWO, "whole-train", "whole-train needs an official test set, made has none"),
        (TWO.assign(specimen_id=None), "specimen", "12 cells have none; choose stratified"),
        (table_of({"a": [3, 3], "b": [6]}), "specimen", "cells of b on both; .* choose stratified"),
        (table_of({"a": [3, 3], "b": [1]}), "stratified", r"needs two cells, .*: b \(1 cell\); add cells or leave"),
        (table_of({"a": [3, 3], "b": [1]}), "specimen", r"needs two cells, .*: b \(1 cell\)"),
    ],
)
def test_what_cannot_be_divided_is_told(
    store: Store, tmp_path: Path, cells: pd.DataFrame, protocol: Protocol, message: str
) -> None:
    dataset = publish(store, tmp_path, cells)
    before = listing(store)
    with pytest.raises(UserError, match=message) as raised:
        split(store, dataset, SplitChoice(protocol=protocol))
    assert "\n" not in str(raised.value)
    assert listing(store) == before
