"""I3A Task 1: written by hand, and the real cells where HEP2FLOW_I3A names them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hep2flow.errors import Fault
from hep2flow.sources import open_source
from hep2flow.sources.check import check
from tests.sources import builders

SPLIT = "Image ID,split\n00001,train\n2,Validation\n13596,test\n"


def only_fault(folder: Path, files: dict[str, bytes | str]) -> Fault:
    (fault,) = builders.all_faults(builders.opened(folder, files))
    return fault


def test_ids_patterns_and_masks(tmp_path: Path) -> None:
    source = builders.opened(tmp_path, builders.i3a())
    assert (source.format, source.id_order_is_proxy, source.given_split, source.notes) == ("i3a", True, None, [])
    assert [(c.cell_id, c.official_split, c.pattern, c.mask) for c in source.listings] == [
        ("00001", None, "homogeneous", "00001_Mask.png"),
        ("00002", None, "numem", "00002_Mask.png"),
        ("13596", None, "golgi", "13596_Mask.png"),
    ]
    for read in source.cells([]):
        np.testing.assert_array_equal(read.cell.pixels(), builders.grey(int(read.cell.cell_id)))
        np.testing.assert_array_equal(read.cell.mask_pixels(), builders.disc())


def test_a_header_from_a_spreadsheet_and_intensities_are_read(tmp_path: Path) -> None:
    table = "image id, IMAGE  CLASS ,intensity\n1,Homogeneous,Positive\n2,NuMem,intermediate\n13596,Golgi,\n"
    source = builders.opened(tmp_path, builders.i3a() | {"gt_training.csv": table})
    assert source.faults == []
    assert [listing.intensity for listing in source.listings] == ["positive", "intermediate", None]


def test_a_split_that_comes_with_it_is_given(tmp_path: Path) -> None:
    source = builders.opened(tmp_path, builders.i3a() | {"public_split.csv": SPLIT})
    assert source.given_split == {"00001": "train", "00002": "val", "13596": "test"}


def test_images_may_lie_below_the_labels(tmp_path: Path) -> None:
    files = {f"images/{name}" if name.endswith("png") else name: data for name, data in builders.i3a().items()}
    source = builders.opened(tmp_path, files)
    assert (len(source.listings), source.faults) == (3, [])


@pytest.mark.parametrize(
    ("changed", "where", "what"),
    [
        ({"public_split.csv": SPLIT.replace("test", "exam")}, "public_split.csv, row 4", "unknown split 'exam'"),
        ({"public_split.csv": SPLIT + "7,train\n"}, "public_split.csv, row 5", "cell 00007 has no label"),
        ({"public_split.csv": SPLIT.replace("2,Validation\n", "")}, "gt_training.csv, row 3", "not in public_split"),
        ({"00007.png": builders.png(builders.grey(7))}, "00007.png", "image without a label"),
        ({"00007_Mask.png": builders.png(builders.disc())}, "00007_Mask.png", "image without a label"),
        ({"b/00001.png": builders.png(builders.grey(7))}, "b/00001.png", "the same ID as 00001.png"),
        (
            {"gt_training.csv": "Image ID;Image class\n1;Homogeneous\n"},
            "gt_training.csv, row 1",
            "is semicolon-separated",
        ),
    ],
)
def test_a_mistake_is_reported_once(tmp_path: Path, changed: dict[str, bytes | str], where: str, what: str) -> None:
    fault = only_fault(tmp_path, builders.i3a() | changed)
    assert fault.where == where
    assert what in fault.what


def test_rows_that_cannot_be_used_are_reported(tmp_path: Path) -> None:
    table = "Image ID,Image class\nA1,Golgi\n1,Homogeneous\n00001,Golgi\n2,Speckly\n13596,Golgi\n3,Golgi\n"
    faults = builders.opened(tmp_path, builders.i3a() | {"gt_training.csv": table}).faults
    assert [(fault.where.removeprefix("gt_training.csv, "), fault.what.split(",")[0]) for fault in faults] == [
        ("row 2", "Image ID 'A1' is not a whole number"),
        ("row 4", "duplicate"),
        ("row 5", "unknown pattern 'Speckly'"),
        ("row 7", "no image 00003.png"),
    ]


def test_the_real_cells_have_their_published_counts(i3a_zip: Path) -> None:
    with open_source(str(i3a_zip)) as source:
        report = check(source)
    assert report["faults"] == []
    assert report["cells"] == 10_876
    assert report["given_split"] == {"train": 8701, "val": 2175}
    assert report["depths"] == {"grey, 8 bit": 10_876}
    assert (report["width"]["smallest"], report["width"]["largest"]) == (78, 78)
    # The contest's IDs are ordered by class.
    ends = {"homogeneous": 2494, "speckled": 5325, "nucleolar": 7923, "centromere": 10664, "numem": 12872}
    starts = dict(zip(["speckled", "nucleolar", "centromere", "numem", "golgi"], ends.values(), strict=True))
    for listing in source.listings:
        number = int(listing.cell_id)
        assert starts.get(listing.pattern, 0) < number <= ends.get(listing.pattern, 13596)
