"""Leakage: near-duplicates that are found whatever was done to them, and cells that are none."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from hep2flow.cells import Cell, CellWriter, encode_png, pixel_sha256
from hep2flow.errors import UserError
from hep2flow.recipe import Split as SplitChoice
from hep2flow.sources.synthetic import write_twin
from hep2flow.stages.ingest import ingest
from hep2flow.stages.leakage import BLOCK, SHOWN, THRESHOLD, find_leakage, near_duplicates, texture_descriptor
from hep2flow.stages.split import split
from hep2flow.store.datasets import publish_dataset
from hep2flow.store.s3 import Store
from hep2flow.store.splits import Split, Subset, write_split
from tests.stages.cells_in_store import listing, publish

Image8 = npt.NDArray[np.uint8]


def drawn(seed: int, size: int = 78) -> Image8:
    """A cell as a picture: a bright disk with a texture of its own, and the camera's noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - size / 2
    inside = (x / (0.36 * size)) ** 2 + (y / (0.42 * size)) ** 2 < 1
    texture = gaussian_filter(rng.normal(size=(size, size)), 2.5)
    cell = 20 + inside * (90 + 60 * texture / np.abs(texture).max())
    return np.clip(cell + rng.normal(0, 3, cell.shape), 0, 255).astype(np.uint8)


def searched(images: dict[str, list[Image8]]) -> dict[str, object]:
    """What is found among images of subsets; cells are called by their subset and number."""
    named = [(f"{subset}-{k}", subset, image) for subset, found in images.items() for k, image in enumerate(found)]
    cells = pd.DataFrame(
        [
            {"cell_id": name, "subset": subset, "pattern": "golgi", "sha256": pixel_sha256(image)}
            for name, subset, image in named
        ]
    )
    return near_duplicates(cells, np.stack([texture_descriptor(image) for *_, image in named]))


VIEWS: dict[str, Callable[[Image8], Image8]] = {
    f"{'mirrored, ' if mirrored else ''}turned {90 * turns}": (
        lambda image, turns=turns, mirrored=mirrored: np.rot90(image[:, ::-1] if mirrored else image, turns)
    )
    for turns, mirrored in itertools.product(range(4), (False, True))
}


def resized(image: Image8) -> Image8:
    return np.asarray(Image.fromarray(image).resize((55, 60), Image.Resampling.BICUBIC))


CHANGES: dict[str, Callable[[Image8], npt.NDArray[np.uint8] | npt.NDArray[np.uint16]]] = {
    "darker": lambda image: (0.6 * image + 10).astype(np.uint8),
    "of more bits": lambda image: image.astype(np.uint16) * 16,
    "in colour": lambda image: np.stack([image // 8, image, image // 6], axis=-1),
    "smaller": resized,
    "noisier": lambda image: np.clip(image + np.random.default_rng(0).normal(0, 5, image.shape), 0, 255).astype(
        np.uint8
    ),
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_turned_or_mirrored_copy_is_found(view: str) -> None:
    train = [drawn(seed) for seed in range(20)]
    found = searched({"train": train, "val": [drawn(100), VIEWS[view](train[7]), drawn(101)]})
    assert found["count"] == 1
    assert found["equal"] == (view == "turned 0")
    assert found["cells"] == 2
    (pair,) = found["pairs"]  # type: ignore[misc]
    assert pair["cells"] == ["train-7", "val-1"]
    assert pair["subsets"] == ["train", "val"]
    assert pair["patterns"] == ["golgi", "golgi"]
    assert pair["correlation"] is None or pair["correlation"] > 0.98


@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_that_was_worked_on_is_found(change: str) -> None:
    train = [drawn(seed) for seed in range(20)]
    found = searched({"train": train, "test": [drawn(100), np.rot90(CHANGES[change](train[7]))]})
    assert found["count"] == 1
    assert found["equal"] == 0
    assert found["pairs"][0]["cells"] == ["train-7", "test-1"]  # type: ignore[index]
    assert THRESHOLD <= found["pairs"][0]["correlation"] <= 1  # type: ignore[index]


@pytest.mark.parametrize("seed", range(3))
def test_no_pair_is_overlooked(seed: int) -> None:
    # Copies ever more blended with other cells: of some the correlation lies just above the threshold, of some just below.
    rng = np.random.default_rng(seed)
    train = [drawn(number) for number in range(30)]
    others = [drawn(number) for number in range(100, 130)]
    shares = np.linspace(0.0, 0.5, 30)
    blended = [
        ((1 - share) * VIEWS[str(rng.choice(list(VIEWS)))](one) + share * other).astype(np.uint8)
        for one, other, share in zip(train, others, shares, strict=True)
    ]
    ours, theirs = (np.stack([texture_descriptor(image) for image in images]) for images in (train, blended))
    expected = sum(
        max(float((one * view(other)).sum()) for view in VIEWS.values()) >= THRESHOLD
        for one, other in itertools.product(ours, theirs)
    )
    assert 5 < expected < 25
    assert searched({"train": train, "val": blended})["count"] == expected


def test_unrelated_cells_and_cells_of_one_subset_are_none() -> None:
    train = [drawn(seed) for seed in range(60)]
    found = searched({"train": [*train, train[0]], "val": [drawn(seed) for seed in range(100, 160)], "test": []})
    assert found == {"threshold": THRESHOLD, "count": 0, "equal": 0, "cells": 0, "pairs": []}


def test_flat_cells_are_near_none_but_their_equals() -> None:
    flat = [np.full((70, 70), value, np.uint8) for value in (0, 90, 91)]
    found = searched({"train": [flat[0], flat[1], drawn(0)], "val": [flat[2], flat[0], drawn(1)]})
    assert (found["count"], found["equal"]) == (1, 1)


def test_the_closest_are_named_and_all_are_counted_over_every_two_subsets() -> None:
    # More than one block, and more pairs than are shown: of each cell a copy in every other subset.
    few = [drawn(seed) for seed in range(12)]
    noisy = [CHANGES["noisier"](image) for image in few]
    filler = [np.full((8, 8), 1, np.uint8)] * BLOCK
    found = searched({"train": [*filler, *few], "val": [image[::-1] for image in noisy], "test": few})  # type: ignore[misc]
    assert (found["count"], found["equal"], found["cells"]) == (36, 12, 36)
    pairs = found["pairs"]
    assert len(pairs) == SHOWN  # type: ignore[arg-type]
    assert [pair["correlation"] is None for pair in pairs] == [True] * 12 + [False] * 8  # type: ignore[attr-defined]
    correlations = [pair["correlation"] for pair in pairs][12:]  # type: ignore[attr-defined]
    assert correlations == sorted(correlations, reverse=True)


def test_the_store_keeps_what_was_found_by_data_set_and_split(store: Store, tmp_path: Path) -> None:
    images = {"a": drawn(0), "b": drawn(1), "c": drawn(0)[:, ::-1], "d": drawn(2)}
    with CellWriter(tmp_path / "cells") as writer:
        for name, image in images.items():
            cell = Cell(name, None, "golgi", None, None, 78, 78, encode_png(image), None, pixel_sha256(image))
            writer.add(cell, 255, None)
    dataset = publish_dataset(store, "made", writer, {"id_order_is_proxy": False})

    def divided(**subsets: Subset) -> str:
        return write_split(store, Split(subsets, "given", None, None, writer.digest))

    apart = divided(a="train", b="train", c="val", d="val")
    found = find_leakage(store, dataset, apart)
    assert found["id_blocks"] is None
    assert found["test_specimens"] is None
    assert [pair["cells"] for pair in found["duplicates"]["pairs"]] == [["a", "c"]]
    for key, size in listing(store).items():
        if key.startswith("datasets/") and key.endswith(".parquet"):
            store.put_bytes(key, bytes(size))
    assert find_leakage(store, dataset, apart) == found  # without a look at the cells, which are damaged now
    with pytest.raises(UserError, match="damaged"):
        find_leakage(store, dataset, divided(a="train", b="train", c="val", d="test"))


def test_blocks_of_ids_are_told_where_they_stand_for_specimens(store: Store, tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "cell_id": [f"{number:05d}" for number in range(280)],
            "official_split": None,
            "pattern": ["golgi"] * 140 + ["numem"] * 140,
            "specimen_id": None,
        }
    )
    dataset = publish(store, tmp_path / "cells", table, id_order_is_proxy=True)
    whole = split(store, dataset, SplitChoice(protocol="id-block")).uri
    assert find_leakage(store, dataset, whole)["id_blocks"] == {"shared": 0, "of": 28}
    mixed = split(store, dataset, SplitChoice(protocol="stratified")).uri
    found = find_leakage(store, dataset, mixed)
    assert found["id_blocks"] == {"shared": 28, "of": 28}
    # All cells of this data set are one and the same black square.
    assert found["duplicates"]["count"] == found["duplicates"]["equal"] == 140 * 140
    assert len(found["duplicates"]["pairs"]) == SHOWN


def test_specimens_of_the_test_set_are_looked_for_elsewhere(store: Store, tmp_path: Path) -> None:
    rows = [(f"{number:02d}", "test" if number > 7 else "train", "golgi", str(number // 3)) for number in range(12)]
    table = pd.DataFrame(rows, columns=["cell_id", "official_split", "pattern", "specimen_id"])
    dataset = publish(store, tmp_path / "cells", table)
    assert find_leakage(store, dataset, split(store, dataset, SplitChoice()).uri)["test_specimens"] == 1


def test_no_two_cells_of_the_twin_are_near_duplicates(store: Store, tmp_path: Path) -> None:
    write_twin(tmp_path / "twin", seed=3, specimens=14)
    dataset = ingest(store, str(tmp_path / "twin")).uri
    found = find_leakage(store, dataset, split(store, dataset, SplitChoice()).uri)
    assert found["duplicates"]["count"] == 0
    assert found["test_specimens"] == 0
