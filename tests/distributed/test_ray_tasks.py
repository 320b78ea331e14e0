"""The cells of a large data set on a real Ray cluster: the same data set, and the same refusals, as on one machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hep2flow.distributed.ray_cluster import _shared_address, prestart_cluster, shared_cluster
from hep2flow.errors import UserError
from hep2flow.stages import mask as mask_stage
from hep2flow.stages.ingest import ingest
from hep2flow.stages.mask import mask
from hep2flow.store.datasets import open_dataset
from hep2flow.store.s3 import Store
from tests.sources import builders
from tests.stages.cells_in_store import another, cells_of


@pytest.fixture
def cluster(store: Store) -> Iterator[str]:
    """Address of a cluster whose workers inherit where the store is."""
    with shared_cluster():
        prestart_cluster()
        yield _shared_address()


def not_here(*_: Any) -> Any:
    pytest.fail("worked on this machine")


def test_a_cluster_makes_the_data_set_that_this_machine_makes(
    store: Store, tmp_path: Path, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = str(builders.write(tmp_path / "cells", builders.contest()))
    own = another(store)
    here = mask(own, ingest(own, source).uri)
    parent = ingest(store, source).uri
    parts = open_dataset(store, parent).manifest["parts"]
    assert len(parts) == 2

    monkeypatch.setenv("RAY_ADDRESS", cluster)
    monkeypatch.setattr(mask_stage, "parallel_map", not_here)
    there = mask(store, parent)
    assert store.key(there.uri) == own.key(here.uri)
    assert there.summary == here.summary
    assert list(cells_of(store, there.uri).items()) == list(cells_of(own, here.uri).items())

    # A part that is damaged in the store raises the same error as here.
    damaged = f"{store.key(parent)}/{parts[1]['file']}"
    store.put_bytes(damaged, bytes(len(store.get_bytes(damaged))))
    with pytest.raises(UserError, match=f"{parts[1]['file']}: damaged in the store"):
        mask(store, parent, "crop")
