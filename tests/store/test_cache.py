from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hep2flow.errors import UserError
from hep2flow.store import cache
from hep2flow.store.s3 import Store

KEY = "0" * 32
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
INPUTS = st.dictionaries(st.text(), JSON, max_size=4)


@given(INPUTS)
def test_a_key_does_not_depend_on_the_order_of_the_inputs(inputs: dict[str, Any]) -> None:
    key = cache.stage_key("train", inputs, "code")
    assert re.fullmatch(r"[0-9a-f]{32}", key)
    assert cache.stage_key("train", dict(reversed(inputs.items())), "code") == key
    assert cache.stage_key("train", json.loads(json.dumps(inputs)), "code") == key


@given(INPUTS, JSON)
def test_every_input_the_stage_and_the_code_decide_the_key(inputs: dict[str, Any], more: Any) -> None:
    key = cache.stage_key("train", inputs, "code")
    assert cache.stage_key("evaluate", inputs, "code") != key
    assert cache.stage_key("train", inputs, "code 2") != key
    assert cache.stage_key("train", {**inputs, "one more, not drawn by chance": more}, "code") != key


def test_a_key_over_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        cache.stage_key("train", {"lr": math.nan}, "code")


def test_code_versions_differ_and_stay() -> None:
    versions = [cache.code_version(stage) for stage in cache.SOURCES]
    assert versions == [cache.code_version(stage) for stage in cache.SOURCES]
    assert all(re.fullmatch(r"[0-9a-f]{64}", version) for version in versions)
    assert cache.code_version("ingest") != cache.code_version("split")


def test_an_entry_counts_only_while_its_output_is_whole(store: Store, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"123")
    entry = {"output": {"uri": store.uri("trainings/x"), "kind": "folder"}, "best": 0.5}
    assert cache.lookup(store, "train", KEY) is None
    cache.commit(store, "train", KEY, entry)
    assert cache.lookup(store, "train", KEY) is None
    store.publish(tmp_path, "trainings/x", {})
    assert cache.lookup(store, "train", KEY) == entry
    assert cache.lookup(store, "evaluate", KEY) is None
    store.put_bytes("trainings/x/weights", b"12")
    assert cache.lookup(store, "train", KEY) is None


def test_an_entry_may_name_a_single_object(store: Store) -> None:
    store.put_bytes("splits/x.parquet", b"1")
    entry = {"output": {"uri": store.uri("splits/x.parquet"), "kind": "object"}}
    cache.commit(store, "split", KEY, entry)
    assert cache.lookup(store, "split", KEY) == entry
    store.delete(["splits/x.parquet"])
    assert cache.lookup(store, "split", KEY) is None


def test_an_entry_of_another_store_does_not_count_and_is_not_written(store: Store) -> None:
    foreign = {"output": {"uri": "s3://elsewhere/splits/x.parquet", "kind": "object"}}
    store.put_json(f"cache/split/{KEY}.json", foreign)
    assert cache.lookup(store, "split", KEY) is None
    with pytest.raises(UserError, match="outside this store"):
        cache.commit(store, "split", KEY, foreign)
    with pytest.raises(ValueError, match="folder or an object"):
        cache.commit(store, "split", KEY, {"output": {"uri": store.uri("x"), "kind": "table"}})
