"""Mask: pixel for pixel what is kept and what goes, and what is told of derived masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from hep2flow import parallel
from hep2flow.errors import UserError
from hep2flow.stages.ingest import ingest
from hep2flow.stages.mask import derive_mask, mask
from hep2flow.store.datasets import open_dataset
from hep2flow.store.s3 import Store
from tests.sources import builders
from tests.stages.cells_in_store import another, cells_of, listing

NEARLY_FLAT = np.full((40, 40), 65535, np.uint16)
NEARLY_FLAT[3, 4] = 65534


def corner() -> npt.NDArray[np.bool_]:
    """A mask like an L: its box, rows 1 to 5 and columns 2 to 7 of 7 x 9, holds background too."""
    inside = np.zeros((7, 9), np.bool_)
    inside[1:6, 2:4] = True
    inside[4:6, 2:8] = True
    return inside


def ingested(store: Store, folder: Path, files: dict[str, bytes | str]) -> str:
    return ingest(store, str(builders.write(folder / "data", files))).uri


def with_corner_masks(files: dict[str, bytes | str]) -> dict[str, bytes | str]:
    return {name: builders.png(corner()) if "mask" in name.lower() else data for name, data in files.items()}


def without_masks() -> dict[str, bytes | str]:
    return {name: data for name, data in builders.i3a().items() if "Mask" not in name}


@pytest.mark.parametrize("form", [builders.contest, builders.i3a], ids=["RGB", "grey"])
def test_apply_blackens_the_outside_and_nothing_else(store: Store, tmp_path: Path, form: Any) -> None:
    parent = ingested(store, tmp_path, with_corner_masks(form()))
    result = mask(store, parent, "apply")
    before, after = cells_of(store, parent), cells_of(store, result.uri)
    assert before.keys() == after.keys()
    for cell_id, cell in after.items():
        pixels, original = cell.pixels(), before[cell_id].pixels()
        assert (pixels[~corner()] == 0).all()
        assert (pixels[corner()] == original[corner()]).all()
        assert (pixels.shape, pixels.dtype) == (original.shape, original.dtype)
        assert np.array_equal(np.asarray(cell.mask_pixels()), corner())
        assert (cell.pattern, cell.specimen_id, cell.official_split, cell.intensity) == (
            before[cell_id].pattern,
            before[cell_id].specimen_id,
            before[cell_id].official_split,
            before[cell_id].intensity,
        )


def test_crop_cuts_to_the_box_and_keeps_its_background(store: Store, tmp_path: Path) -> None:
    parent = ingested(store, tmp_path, with_corner_masks(builders.contest()))
    before, after = cells_of(store, parent), cells_of(store, mask(store, parent, "crop").uri)
    for cell_id, cell in after.items():
        assert (cell.height, cell.width) == (5, 6)
        assert (cell.pixels() == before[cell_id].pixels()[1:6, 2:8]).all()
        assert np.array_equal(np.asarray(cell.mask_pixels()), corner()[1:6, 2:8])


def test_none_leaves_the_data_set_as_it_is(store: Store, tmp_path: Path) -> None:
    parent = ingested(store, tmp_path, without_masks())
    before = listing(store)
    result = mask(store, parent, "none", "given")
    assert (result.uri, result.summary["derived"]) == (parent, 0)
    assert {key for key in listing(store).keys() - before.keys() if not key.startswith("cache/")} == set()


def test_derived_masks_are_counted_and_told(store: Store, tmp_path: Path) -> None:
    parent = ingested(store, tmp_path, without_masks())
    result = mask(store, parent)
    assert result.summary == {"mode": "apply", "derived": 3, "cells": 3}
    facts = open_dataset(store, result.uri).manifest["facts"]
    assert facts["mask"] == {"mode": "apply", "given": 0, "derived": 3}
    assert facts["notes"][0] == "no masks in this source"
    assert facts["notes"][1].startswith("3 masks derived from the images")
    for cell in cells_of(store, result.uri).values():
        inside = cell.mask_pixels()
        assert inside is not None
        assert inside.any()


def test_given_masks_are_not_derived(store: Store, tmp_path: Path) -> None:
    result = mask(store, ingested(store, tmp_path, builders.i3a()), source="given")
    facts = open_dataset(store, result.uri).manifest["facts"]
    assert (facts["mask"], facts["notes"]) == ({"mode": "apply", "given": 3, "derived": 0}, [])


def test_a_data_set_without_masks_is_refused_where_they_are_wanted(store: Store, tmp_path: Path) -> None:
    parent = ingested(store, tmp_path, without_masks())
    before = listing(store)
    with pytest.raises(UserError, match=r"i3a has no masks; set data\.mask_source=auto .* or data\.mask=none"):
        mask(store, parent, "apply", "given")
    assert listing(store) == before


def test_the_parent_is_named_and_the_second_call_finds_the_first(store: Store, tmp_path: Path) -> None:
    parent = ingested(store, tmp_path, builders.contest())
    first = mask(store, parent)
    assert open_dataset(store, first.uri).manifest["facts"]["parent"] == parent
    before = list(store.list_objects(""))
    second = mask(store, parent)
    assert (first.cached, second.cached) == (False, True)
    assert (second.uri, second.summary) == (first.uri, first.summary)
    assert list(store.list_objects("")) == before


def test_a_dark_cell_keeps_the_depth_of_its_camera(store: Store, tmp_path: Path) -> None:
    pixels = np.where(builders.disc(), 200, 4000).astype(np.uint16)
    files: dict[str, bytes | str] = {}
    for name in ("a", "b"):
        files |= {f"{name}/1.png": builders.png(pixels), f"{name}/1_mask.png": builders.png(builders.disc())}
    result = mask(store, ingested(store, tmp_path, files))
    assert max(cell.pixels().max() for cell in cells_of(store, result.uri).values()) == 200
    assert open_dataset(store, result.uri).manifest["bits"] == 12


def test_a_missing_data_set_is_told(store: Store) -> None:
    with pytest.raises(UserError, match="no complete data set; ingest it again, or check the URI"):
        mask(store, store.uri("datasets/none/0"))


@given(
    st.sampled_from([np.uint8, np.uint16]).flatmap(
        lambda kind: arrays(
            kind, array_shapes(min_dims=2, max_dims=2, max_side=16) | st.tuples(st.just(5), st.just(7), st.just(3))
        )
    )
)
@example(NEARLY_FLAT)
@example(np.zeros((6, 6), np.uint8))
@settings(deadline=None)
def test_a_derived_mask_is_never_empty(pixels: npt.NDArray[Any]) -> None:
    inside = derive_mask(pixels)
    assert inside.shape == pixels.shape[:2]
    assert inside.dtype == np.bool_
    assert inside.any()


def test_a_derived_mask_holds_the_cell_and_not_the_corners() -> None:
    rows, columns = np.mgrid[:80, :80]
    cell = np.hypot(rows - 40, columns - 36) < 24
    noise = np.random.default_rng(0).normal(0, 3, cell.shape)
    dots = np.random.default_rng(1).random(cell.shape) < 0.05  # a dim nucleus with bright dots, as centromere
    image = np.clip(10 + 25 * cell + 180 * (cell & dots) + noise, 0, 255).astype(np.uint8)
    inside = derive_mask(image)
    assert inside[cell].all()
    assert not inside[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert inside.sum() < 1.6 * cell.sum()


@pytest.mark.parametrize("form", [builders.contest(), without_masks()], ids=["given", "derived"])
def test_all_cores_make_the_same_data_set(
    form: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for few in (parallel.FEW, 0):
        monkeypatch.setattr(parallel, "FEW", few)
        monkeypatch.setattr(parallel, "cpu_count", lambda: 2)
        own = another(store)
        result = mask(own, ingested(own, tmp_path, form), "apply")
        made.append((own.key(result.uri), result.summary, list(cells_of(own, result.uri).values())))
    assert made[0] == made[1]
