"""A plain folder of classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from hep2flow.errors import UserError
from tests.sources import builders

CELL = builders.png(builders.grey(0))


def test_class_folders_become_patterns(tmp_path: Path) -> None:
    source = builders.opened(tmp_path, builders.classes())
    assert source.format == "folder"
    assert [(c.cell_id, c.official_split, c.pattern) for c in source.listings] == [
        ("Class A/x", None, "class_a"),
        ("Class A/y", None, "class_a"),
        ("b/x", None, "b"),
    ]
    assert "class 'Class A' is called 'class_a'" in source.notes


def test_train_and_test_folders_give_the_official_split(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {f"{split}/{name}/1.png": CELL for split in ("test", "Train") for name in "ab"}
    source = builders.opened(tmp_path, files)
    assert source.faults == []
    assert [(c.cell_id, c.official_split) for c in source.listings] == [
        ("Train/a/1", "train"),
        ("Train/b/1", "train"),
        ("test/a/1", "test"),
        ("test/b/1", "test"),
    ]


@pytest.mark.parametrize("suffix", ["_mask", "_Mask"])
def test_masks_lie_beside_their_images(tmp_path: Path, suffix: str) -> None:
    files: dict[str, bytes | str] = {}
    for name in ("a/1", "b/1"):
        files |= {f"{name}.png": CELL, f"{name}{suffix}.bmp": builders.png(builders.disc())}
    source = builders.opened(tmp_path, files)
    assert [listing.mask for listing in source.listings] == [f"a/1{suffix}.bmp", f"b/1{suffix}.bmp"]
    assert source.faults == []


@pytest.mark.parametrize(
    ("added", "where", "what"),
    [
        ("b/y_mask.png", "b/y_mask.png", "mask without an image"),
        ("b/x.bmp", "b/x.png", "the same name as b/x.bmp"),
        ("class-a/1.png", "class-a/1.png", "would both be called 'class_a'"),
        ("b/deeper/1.png", "b/deeper/1.png", "does not lie in a class folder"),
        ("loose.png", "loose.png", "does not lie in a class folder"),
        ("b/1.jpg", "b/1.jpg", "lossy"),
        ("???/1.png", "???/1.png", "no letter or digit"),
    ],
)
def test_a_mistake_is_reported_once(tmp_path: Path, added: str, where: str, what: str) -> None:
    (fault,) = builders.opened(tmp_path, builders.classes() | {added: CELL}).faults
    assert fault.where == where
    assert what in fault.what


@pytest.mark.parametrize(
    ("added", "what"), [("val/a/1.png", "unknown split 'val'"), ("train/1.png", "does not lie in a class folder")]
)
def test_a_mistake_in_the_split_folders_is_reported_once(tmp_path: Path, added: str, what: str) -> None:
    files: dict[str, bytes | str] = {f"{split}/{name}/2.png": CELL for split in ("train", "test") for name in "ab"}
    (fault,) = builders.opened(tmp_path, files | {added: CELL}).faults
    assert fault.where == added
    assert what in fault.what


def test_other_files_are_a_note(tmp_path: Path) -> None:
    source = builders.opened(tmp_path, builders.classes() | {"readme.txt": "x", "b/notes.doc": "x"})
    assert source.faults == []
    assert any("2 files that are no images" in note and "readme.txt" in note for note in source.notes)


def test_a_single_class_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least two class folders"):
        builders.opened(tmp_path, {"a/1.png": CELL, "a/2.png": CELL})


def test_photographs_only_are_reported_as_lossy(tmp_path: Path) -> None:
    faults = builders.opened(tmp_path, {"a/1.jpg": b"x", "b/1.jpeg": b"x"}).faults
    assert [fault.where for fault in faults] == ["a/1.jpg", "b/1.jpeg"]
