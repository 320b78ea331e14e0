"""ICPR 2012, both forms, with every trap that the real distribution is known to hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from hep2flow.errors import Fault
from tests.sources import builders

Files = dict[str, bytes | str]


def one_fault(folder: Path, files: Files) -> Fault:
    """The only fault of the data set: one mistake is reported once."""
    (fault,) = builders.all_faults(builders.opened(folder, files))
    return fault


def replaced(files: Files, name: str, old: str, new: str) -> Files:
    text = files[name]
    assert isinstance(text, str)
    assert old in text
    return files | {name: text.replace(old, new, 1)}


def test_the_contest_form_gives_ids_labels_and_specimens(tmp_path: Path) -> None:
    source = builders.opened(tmp_path, builders.contest())
    assert (source.format, source.name, source.synthetic, source.notes) == ("icpr2012", "icpr2012", False, [])
    assert (source.given_split, source.id_order_is_proxy) == (None, False)
    found = [(c.cell_id, c.official_split, c.pattern, c.intensity, c.specimen_id) for c in source.listings]
    assert found == [
        ("train-001", "train", "homogeneous", "positive", "01"),
        ("train-002", "train", "cytoplasmatic", "intermediate", "25"),
        ("test-001", "test", "fine_speckled", "positive", "23"),
    ]
    assert builders.all_faults(source) == []


def test_without_cells_csv_specimens_are_unknown_and_a_note_says_so(tmp_path: Path) -> None:
    files = builders.contest()
    del files["cells.csv"]
    source = builders.opened(tmp_path, files)
    assert {listing.specimen_id for listing in source.listings} == {None}
    assert any("specimens are unknown" in note for note in source.notes)


def test_one_split_alone_is_a_note(tmp_path: Path) -> None:
    files = {name: data for name, data in builders.contest().items() if name.startswith("training/")}
    source = builders.opened(tmp_path, files)
    assert (len(source.listings), source.faults) == (2, [])
    assert "no test/ in this source" in source.notes


@pytest.mark.parametrize(
    ("spelled", "canonical"),
    [("cytoplasmic", "cytoplasmatic"), ("centromeric", "centromere"), ("Coarse-Speckled", "coarse_speckled")],
)
def test_known_spellings_are_read_with_a_note(tmp_path: Path, spelled: str, canonical: str) -> None:
    files = builders.contest()
    del files["cells.csv"]
    files = replaced(files, "training/gt_training.csv", "2;cytoplasmatic", f"2;{spelled}")
    source = builders.opened(tmp_path, files)
    assert source.listings[1].pattern == canonical
    assert any(repr(spelled) in note and repr(canonical) in note for note in source.notes)


def test_cr_only_line_ends_are_read(tmp_path: Path) -> None:
    files = builders.contest()
    plain = builders.opened(tmp_path / "lf", files).listings
    crs: Files = {n: d.replace("\n", "\r") if isinstance(d, str) else d for n, d in files.items()}
    source = builders.opened(tmp_path / "cr", crs)
    assert source.faults == []
    assert source.listings == plain


@pytest.mark.parametrize(
    ("name", "old", "new", "where", "what"),
    [
        ("training/gt_training.csv", "2;cyto", "2;golgi", "gt_training.csv, row 3", "unknown pattern"),
        ("training/gt_training.csv", "1;homogeneous\n", "", "training.csv, row 2", "ID 1 is not in"),
        ("training/training.csv", "2;intermediate;9;7\n", "", "gt_training.csv, row 3", "ID 2 is not in"),
        ("training/training.csv", "1;positive;9;7", "1;positive;8;7", "cells.csv, row 2", "contradicts 8 x 7"),
        ("training/training.csv", "1;positive", "1;negative", "training.csv, row 2", "unknown intensity"),
        ("training/training.csv", "1;positive;9", "1;positive;wide", "training.csv, row 2", "'wide' is not a whole"),
        ("training/gt_training.csv", "ID;pattern", "ID,pattern", "gt_training.csv, row 1", "is comma-separated"),
        ("test/gt_test.csv", "1;fine", "1;homogeneous\n1;fine", "gt_test.csv, row 3", "duplicate"),
        ("cells.csv", "1;test", "1;exam", "cells.csv, row 4", "unknown split"),
        ("cells.csv", "1;test;23", "1;test;x", "cells.csv, row 4", "Image 'x' is not a whole number"),
        ("cells.csv", "5;homogeneous", "5;nucleolar", "cells.csv, row 2", "nucleolar contradicts homogeneous"),
        ("cells.csv", "1;positive;5", "1;intermediate;5", "cells.csv, row 2", "intermediate contradicts positive"),
        ("cells.csv", "1;training;1;positive;5;homogeneous;9;7\n", "", "gt_training.csv, row 2", "not in cells.csv"),
        ("cells.csv", "1;test", "3;test;1;positive;5;homogeneous;9;7\n1;test", "cells.csv, row 4", "no label"),
    ],
)
def test_a_mistake_in_the_labels_is_reported(
    tmp_path: Path, name: str, old: str, new: str, where: str, what: str
) -> None:
    faults = builders.opened(tmp_path, replaced(builders.contest(), name, old, new)).faults
    assert any(where in fault.where and what in fault.what and fault.remedy for fault in faults), faults


def test_ten_faults_are_reported_together(tmp_path: Path) -> None:
    files = builders.contest()
    files["training/gt_training.csv"] = "ID;pattern\n" + "".join(f"{number};wrong\n" for number in range(1, 11))
    files["training/training.csv"] = "ID;intensity;width;height\n" + "".join(
        f"{n};positive;9;7\n" for n in range(1, 11)
    )
    faults = builders.opened(tmp_path, files).faults
    assert sum("unknown pattern" in fault.what for fault in faults) == 10


def test_an_unknown_pattern_is_reported_once_with_the_allowed_ones(tmp_path: Path) -> None:
    files = replaced(builders.contest(), "training/gt_training.csv", "2;cytoplasmatic", "2;golgi")
    fault = one_fault(tmp_path, files)
    assert fault.where == "training/gt_training.csv, row 3"
    assert "coarse_speckled, centromere" in fault.remedy


def test_a_label_without_its_image_is_reported_once(tmp_path: Path) -> None:
    files = builders.contest()
    del files["training/002.png"]
    fault = one_fault(tmp_path, files)
    assert (fault.where, fault.what) == ("training/gt_training.csv, row 3", "no image training/002.png")


def test_an_image_without_its_label_is_reported_once(tmp_path: Path) -> None:
    fault = one_fault(tmp_path, builders.contest() | {"test/009.png": builders.png(builders.grey(9))})
    assert (fault.where, fault.what) == ("test/009.png", "image without a label")


def test_a_missing_label_file_is_reported_once(tmp_path: Path) -> None:
    files = builders.contest()
    del files["training/gt_training.csv"]
    fault = one_fault(tmp_path, files)
    assert (fault.where, fault.what) == ("training/gt_training.csv", "label file is missing")


def test_an_image_of_another_size_than_its_labels_say(tmp_path: Path) -> None:
    files = builders.contest() | {
        "training/001.png": builders.png(builders.grey(1, 10, 7)),
        "training/001_mask.png": builders.png(builders.disc(10, 7)),
    }
    fault = one_fault(tmp_path, files)
    assert fault.where == "training/001.png"
    assert "is 10 x 7, but training/training.csv, row 2 says 9 x 7" in fault.what


def test_an_empty_mask_is_reported(tmp_path: Path) -> None:
    files = builders.contest() | {"test/001_mask.png": builders.png(builders.disc() & False)}
    fault = one_fault(tmp_path, files)
    assert (fault.where, fault.what) == ("test/001_mask.png", "mask is empty")


def test_two_images_of_one_number_are_reported(tmp_path: Path) -> None:
    fault = one_fault(tmp_path, builders.contest() | {"test/1.png": builders.png(builders.grey(9))})
    assert fault.where == "test/1.png"
    assert "test/001.png" in fault.what


def test_the_main_form_takes_splits_from_the_published_specimens(tmp_path: Path) -> None:
    source = builders.opened(tmp_path, builders.main_dataset())
    assert builders.all_faults(source) == []
    assert any("published specimen numbers" in note for note in source.notes)
    assert [(c.cell_id, c.specimen_id, c.pattern) for c in source.listings] == [
        ("train-01-005", "01", "homogeneous"),
        ("train-25-001", "25", "cytoplasmatic"),
        ("test-23-002", "23", "fine_speckled"),
    ]


def test_the_main_form_with_cells_csv_gives_the_cells_of_the_contest_form(tmp_path: Path) -> None:
    files = builders.main_dataset() | {"cells.csv": builders.contest()["cells.csv"]}
    main, contest = builders.opened(tmp_path, files), builders.opened(tmp_path / "contest", builders.contest())
    assert list(main.cells([])) == list(contest.cells([]))
    assert main.faults == []


def test_cells_that_cells_csv_does_not_list_are_left_out_with_a_note(tmp_path: Path) -> None:
    files = builders.main_dataset() | {"cells.csv": builders.contest()["cells.csv"]}
    files = replaced(files, "Images/01/01.csv", "positive;5", "positive;6;3;3;cell;homogeneous;1;1;9;7\npositive;5")
    files["Cells/Cell_Images/01/006.png"] = files["Cells/Cell_Images/01/005.png"]
    source = builders.opened(tmp_path, files)
    assert (len(source.listings), source.faults) == (3, [])
    assert "1 cells that cells.csv does not list were left out" in source.notes


@pytest.mark.parametrize(
    ("name", "old", "new", "what"),
    [
        ("Images/01/01.csv", "homogeneous", "golgi", "unknown pattern"),
        ("Images/01/01.csv", "positive;5", "positive;6", "no image Cells/Cell_Images/01/006.png"),
    ],
)
def test_a_mistake_in_the_main_form_is_reported(tmp_path: Path, name: str, old: str, new: str, what: str) -> None:
    faults = builders.opened(tmp_path, replaced(builders.main_dataset(), name, old, new)).faults
    assert any(fault.where == f"{name}, row 2" and what in fault.what for fault in faults)


def test_a_specimen_that_is_not_published_needs_cells_csv(tmp_path: Path) -> None:
    files = {name.replace("23", "29"): data for name, data in builders.main_dataset().items()}
    fault = one_fault(tmp_path, files)
    assert (fault.where, fault.remedy) == ("Images/29/29.csv, row 2", "add cells.csv")
