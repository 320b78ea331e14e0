from __future__ import annotations

import io
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hep2flow.errors import UserError
from hep2flow.store.s3 import Store
from hep2flow.store.splits import SUBSETS, Split, read_split, split_digest, write_split

ROWS = st.dictionaries(st.text(min_size=1, max_size=8), st.sampled_from(SUBSETS), max_size=12)


def make(rows: dict[str, str], seed: int | None = 0, protocol: str = "official") -> Split:
    return Split(rows, protocol=protocol, ratio=0.2, seed=seed, dataset_digest="0" * 32)


def test_a_split_comes_back_as_written(store: Store) -> None:
    split = make({"b": "train", "a": "val", "ü": "test", "c": "train"})
    uri = write_split(store, split)
    assert uri == store.uri(f"splits/{split.digest}.parquet")
    assert write_split(store, split) == uri
    again = read_split(store, uri)
    assert (again.protocol, again.ratio, again.seed, again.dataset_digest) == ("official", 0.2, 0, "0" * 32)
    assert again.ids("train") == ["b", "c"]
    assert again.counts() == {"train": 2, "val": 1, "test": 1}
    assert list(again.subsets) == ["a", "b", "c", "ü"]
    nothing_drawn = make({"a": "train"}, seed=None)
    assert read_split(store, write_split(store, nothing_drawn)).seed is None


def test_the_file_says_whether_it_selects_on_the_test_set(store: Store) -> None:
    for protocol, told in (("whole-train", b"true"), ("stratified", b"false")):
        uri = write_split(store, make({"a": "train", "b": "val"}, protocol=protocol))
        metadata = pq.read_schema(io.BytesIO(store.get_bytes(store.key(uri)))).metadata
        assert metadata[b"selected_on_test"] == told
        assert (b"optimistic, not a test result" in metadata.get(b"warning", b"")) is (protocol == "whole-train")
        assert read_split(store, uri).protocol == protocol


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows: dict[str, str], order: random.Random) -> None:
    shuffled = list(rows.items())
    order.shuffle(shuffled)
    assert make(rows).digest == make(dict(shuffled)).digest


@given(ROWS, ROWS, st.integers(0, 3), st.integers(0, 3))
def test_equal_digests_mean_equal_splits(one: dict[str, str], other: dict[str, str], first: int, second: int) -> None:
    assert (make(one, first).digest == make(other, second).digest) == ((one, first) == (other, second))


def test_an_unknown_subset_is_refused() -> None:
    with pytest.raises(ValueError, match="train, val, test"):
        make({"a": "validation"})


def test_a_missing_or_damaged_split_is_reported(store: Store) -> None:
    uri = write_split(store, make({"a": "train"}))
    assert split_digest(store, uri) == make({"a": "train"}).digest
    for missing in (f"splits/{'0' * 32}.parquet", "splits/none.parquet", f"{store.key(uri)}/more"):
        for look in (read_split, split_digest):
            with pytest.raises(UserError, match="no such split"):
                look(store, store.uri(missing))
    other = write_split(store, make({"a": "val"}))
    store.put_bytes(store.key(uri), store.get_bytes(store.key(other)))
    with pytest.raises(UserError, match="does not match its name"):
        read_split(store, uri)
    twice = io.BytesIO()
    table = pq.ParquetFile(io.BytesIO(store.get_bytes(store.key(other)))).read()
    pq.write_table(pa.concat_tables([table, table]), twice)
    store.put_bytes(store.key(other), twice.getvalue())
    with pytest.raises(UserError, match="not a split"):
        read_split(store, other)
    store.put_bytes(store.key(uri), b"PAR1")
    with pytest.raises(UserError, match="not a split"):
        read_split(store, uri)
