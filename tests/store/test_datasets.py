from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hep2flow.cells import Cell, CellWriter, OfficialSplit, encode_png, pixel_sha256
from hep2flow.errors import UserError
from hep2flow.store.datasets import open_dataset, publish_dataset
from hep2flow.store.s3 import Store

PATTERNS = ("homogeneous", "centromere")


def write_cells(folder: Path, splits: dict[OfficialSplit | None, int], brightest: int = 255) -> CellWriter:
    """Closed writer of ``splits[official_split]`` cells of 6 x 5 pixels each, patterns in turn."""
    with CellWriter(folder) as writer:
        for split, count in splits.items():
            for i in range(count):
                pixels = np.full((5, 6), i, dtype=np.uint16 if brightest > 255 else np.uint8)
                pixels[0, 0] = brightest
                cell = Cell(
                    cell_id=f"{split}-{i:03d}",
                    official_split=split,
                    pattern=PATTERNS[i % 2],
                    intensity=None,
                    specimen_id=None,
                    width=6,
                    height=5,
                    image=encode_png(pixels),
                    mask=None,
                    sha256=pixel_sha256(pixels),
                )
                writer.add(cell, brightest, None)
    return writer


def test_a_data_set_comes_back_with_its_facts(store: Store, tmp_path: Path) -> None:
    writer = write_cells(tmp_path, {"train": 5, "test": 2}, brightest=4000)
    uri = publish_dataset(store, "mine", writer, {"format": "folder", "synthetic": False})
    assert uri == store.uri(f"datasets/mine/{writer.digest}")
    dataset = open_dataset(store, uri)
    manifest = dataset.manifest
    assert (manifest["schema_version"], manifest["name"], manifest["count"]) == (1, "mine", 7)
    assert manifest["digest"] == dataset.digest == writer.digest
    assert manifest["bits"] == 12
    assert manifest["labels"] == dataset.labels == ["centromere", "homogeneous"]
    assert manifest["counts"] == {
        "train": {"homogeneous": 3, "centromere": 2},
        "test": {"homogeneous": 1, "centromere": 1},
    }
    assert manifest["facts"] == {"format": "folder", "synthetic": False}
    assert manifest["created_by"].startswith("hep2flow ")
    rows = list(dataset.rows())
    assert [row["cell_id"] for row in rows] == [f"train-{i:03d}" for i in range(5)] + ["test-000", "test-001"]
    assert all(row["image"].startswith(b"\x89PNG") for row in rows)


def test_rows_can_be_chosen_by_id_and_column(store: Store, tmp_path: Path) -> None:
    dataset = open_dataset(store, publish_dataset(store, "mine", write_cells(tmp_path, {None: 4}), {}))
    assert dataset.manifest["counts"] == {"none": {"homogeneous": 2, "centromere": 2}}
    rows = list(dataset.rows(keep={"None-001", "None-003"}, columns=["cell_id", "width"]))
    assert rows == [{"cell_id": "None-001", "width": 6}, {"cell_id": "None-003", "width": 6}]


def test_test_cells_are_never_fetched_when_training(store: Store, tmp_path: Path) -> None:
    dataset = open_dataset(store, publish_dataset(store, "mine", write_cells(tmp_path, {"train": 3, "test": 2}), {}))
    test_part = next(part["file"] for part in dataset.manifest["parts"] if part["official_split"] == "test")
    store.delete([f"{store.key(dataset.uri)}/{test_part}"])
    assert [row["cell_id"] for row in dataset.rows(official_splits={"train"})] == [
        "train-000",
        "train-001",
        "train-002",
    ]


def test_the_table_holds_no_images_unless_requested(store: Store, tmp_path: Path) -> None:
    dataset = open_dataset(store, publish_dataset(store, "mine", write_cells(tmp_path, {"train": 3}), {}))
    table = dataset.table()
    assert len(table) == 3
    assert {"image", "mask"}.isdisjoint(table.columns)
    assert {"cell_id", "pattern", "official_split", "specimen_id"} <= set(table.columns)
    assert list(dataset.table(["cell_id", "image"]).columns) == ["cell_id", "image"]


def test_a_complete_data_set_is_not_uploaded_again(store: Store, tmp_path: Path) -> None:
    writer = write_cells(tmp_path, {"train": 3})
    uri = publish_dataset(store, "mine", writer, {"notes": ["first"]})
    before = list(store.list_objects("datasets"))
    assert publish_dataset(store, "mine", writer, {"notes": ["second"]}) == uri
    assert list(store.list_objects("datasets")) == before
    store.delete([f"{store.key(uri)}/{writer.parts[0]['file']}"])
    with pytest.raises(UserError, match="no complete data set"):
        open_dataset(store, uri)
    publish_dataset(store, "mine", writer, {})
    assert len(list(open_dataset(store, uri).rows())) == 3


def test_a_wrong_uri_or_name_is_reported(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no complete data set"):
        open_dataset(store, store.uri("datasets/none"))
    with pytest.raises(UserError, match="outside this store"):
        open_dataset(store, "s3://elsewhere/datasets/x")
    with pytest.raises(UserError, match="not allowed"):
        publish_dataset(store, "Not A/Name", write_cells(tmp_path, {"train": 1}), {})
