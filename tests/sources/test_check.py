"""The check of a data set: counts, sizes, depths, faults, and the comparison with what was published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hep2flow.sources import open_source
from hep2flow.sources.check import check, render
from hep2flow.sources.synthetic import write_twin
from tests.sources import builders


@pytest.fixture(scope="module")
def full_twin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("twin") / "cells"
    write_twin(folder)
    with open_source(str(folder)) as source:
        return check(source)


def test_the_full_twin_equals_the_published_counts(full_twin: dict[str, Any]) -> None:
    assert (full_twin["faults"], full_twin["published_differences"]) == ([], [])
    assert (full_twin["cells"], full_twin["masks"]) == (1455, 1455)
    assert "counts are equal to the published ones" in render(full_twin)
    assert "synthetic, not real cells" in render(full_twin)


def test_the_table_of_patterns_is_readable(full_twin: dict[str, Any]) -> None:
    lines = render(full_twin).splitlines()
    assert "pattern          train  test  total" in lines
    assert "cytoplasmatic       58    51    109" in lines
    assert "total              721   734   1455" in lines


def test_differences_from_the_published_counts_are_named(tmp_path: Path) -> None:
    with builders.opened(tmp_path, builders.contest()) as source:
        report = check(source)
    assert "train homogeneous: 1 cells, published 150" in report["published_differences"]
    assert "specimen 23: 1 cells, published 51" in report["published_differences"]


def test_a_specimen_with_other_labels_than_published_is_named(tmp_path: Path) -> None:
    files = builders.contest()
    cells = str(files["cells.csv"]).replace("1;training;1;positive", "1;training;2;positive")
    with builders.opened(tmp_path, files | {"cells.csv": cells}) as source:
        report = check(source)
    wrong = "specimen 02: train homogeneous positive, published train fine_speckled intermediate"
    assert wrong in report["published_differences"]


def test_other_data_sets_are_not_compared(tmp_path: Path) -> None:
    with builders.opened(tmp_path, builders.i3a()) as source:
        report = check(source)
    assert report["published_differences"] is None
    assert "published" not in render(report)


def test_everything_is_in_the_json(tmp_path: Path) -> None:
    files = builders.contest() | {"test/001.png": b"broken"}
    with builders.opened(tmp_path, files) as source:
        report = json.loads(json.dumps(check(source)))
    assert report["counts"]["train"] == {"homogeneous": 1, "cytoplasmatic": 1}
    assert report["intensities"] == {"train": {"positive": 1, "intermediate": 1}, "test": {"positive": 1}}
    assert report["width"] == {"smallest": 9, "median": 9, "largest": 9}
    assert (report["depths"], report["bits"]) == ({"RGB, 8 bit": 2}, 8)
    assert [fault["where"] for fault in report["faults"]] == ["test/001.png"]


def test_faults_and_notes_are_in_the_text(tmp_path: Path) -> None:
    files = {name: data for name, data in builders.i3a().items() if "Mask" not in name} | {"00002.png": b"broken"}
    with builders.opened(tmp_path, files) as source:
        text = render(check(source))
    assert "1 fault:\n  00002.png: is not a PNG, BMP or TIFF image; replace it" in text
    assert "notes:\n  no masks in this source" in text


def test_progress_counts_every_cell(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    with builders.opened(tmp_path, builders.i3a()) as source:
        check(source, lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
