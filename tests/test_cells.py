"""The Cell table: what a data set's digest covers, and what it does not depend on."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hep2flow.cells import Cell, CellWriter, encode_png, pixel_sha256, row_digest

PIXELS = np.arange(20, dtype=np.uint8).reshape(4, 5)
IMAGE, SHA256 = encode_png(PIXELS), pixel_sha256(PIXELS)


def cell(cell_id: str) -> Cell:
    return Cell(cell_id, None, "homogeneous", None, None, 5, 4, IMAGE, None, SHA256)


def written(ids: list[str], part_bytes: int) -> CellWriter:
    with tempfile.TemporaryDirectory() as folder, CellWriter(Path(folder) / "cells", part_bytes) as writer:
        for cell_id in ids:
            writer.add(cell(cell_id), 19, None)
    return writer


@given(
    ids=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), unique=True, max_size=12),
    part_bytes=st.sampled_from([1, 3 * len(IMAGE), 2**20]),
)
def test_the_digest_is_of_the_rows_in_the_order_of_their_ids(ids: list[str], part_bytes: int) -> None:
    rows = b"".join(row_digest(cell(cell_id), None) for cell_id in sorted(ids))
    writer = written(ids, part_bytes)
    assert writer.digest == hashlib.sha256(rows).hexdigest()[:32]
    assert writer.count == len(ids)


def test_the_digest_stays_what_it_was_when_data_sets_were_first_published() -> None:
    ids = [f"{number:05d}" for number in (3, 1, 2)]
    assert written(ids, 2**20).digest == "7f39ed72ef556991e7e50b1d2f554196"


def test_a_cell_that_is_there_twice_is_no_data_set() -> None:
    with pytest.raises(AssertionError, match="twice"):
        written(["1", "2", "1"], 1)
