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
from hep2flow.store import stage_cache
from hep2flow.store.publish import publish
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
    key = stage_cache.stage_key("train", inputs, "code")
    assert re.fullmatch(r"[0-9a-f]{32}", key)
    assert stage_cache.stage_key("train", dict(reversed(inputs.items())), "code") == key
    assert stage_cache.stage_key("train", json.loads(json.dumps(inputs)), "code") == key


@given(INPUTS, JSON)
def test_every_input_the_stage_and_the_code_decide_the_key(inputs: dict[str, Any], more: Any) -> None:
    key = stage_cache.stage_key("train", inputs, "code")
    assert stage_cache.stage_key("evaluate", inputs, "code") != key
    assert stage_cache.stage_key("train", inputs, "code 2") != key
    assert stage_cache.stage_key("train", {**inputs, "one more, not drawn by chance": more}, "code") != key


def test_a_key_over_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        stage_cache.stage_key("train", {"lr": math.nan}, "code")


def test_code_versions_differ_and_stay() -> None:
    versions = [stage_cache.code_version(stage) for stage in stage_cache.SOURCES]
    assert versions == [stage_cache.code_version(stage) for stage in stage_cache.SOURCES]
    assert all(re.fullmatch(r"[0-9a-f]{64}", version) for version in versions)
    assert stage_cache.code_version("ingest") != stage_cache.code_version("split")


def test_an_entry_counts_only_while_its_output_is_complete(store: Store, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"123")
    entry = {"output": {"uri": store.uri("trainings/x"), "kind": "folder"}, "best": 0.5}
    assert stage_cache.lookup(store, "train", KEY) is None
    stage_cache.commit(store, "train", KEY, entry)
    assert stage_cache.lookup(store, "train", KEY) is None
    publish(store, tmp_path, "trainings/x", {})
    assert stage_cache.lookup(store, "train", KEY) == entry
    assert stage_cache.lookup(store, "evaluate", KEY) is None
    store.put_bytes("trainings/x/weights", b"12")
    assert stage_cache.lookup(store, "train", KEY) is None


def test_an_entry_may_name_a_single_object(store: Store) -> None:
    store.put_bytes("splits/x.parquet", b"1")
    entry = {"output": {"uri": store.uri("splits/x.parquet"), "kind": "object"}}
    stage_cache.commit(store, "split", KEY, entry)
    assert stage_cache.lookup(store, "split", KEY) == entry
    store.delete(["splits/x.parquet"])
    assert stage_cache.lookup(store, "split", KEY) is None


def test_an_entry_of_another_store_does_not_count_and_is_not_written(store: Store) -> None:
    foreign = {"output": {"uri": "s3://elsewhere/splits/x.parquet", "kind": "object"}}
    store.put_json(f"cache/split/{KEY}.json", foreign)
    assert stage_cache.lookup(store, "split", KEY) is None
    with pytest.raises(UserError, match="outside this store"):
        stage_cache.commit(store, "split", KEY, foreign)
    with pytest.raises(ValueError, match="folder or an object"):
        stage_cache.commit(store, "split", KEY, {"output": {"uri": store.uri("x"), "kind": "table"}})
