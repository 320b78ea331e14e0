"""Opening: folder, archives and object storage give equal results; what cannot be opened is reported in one line."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hep2flow.errors import Fault, UserError
from hep2flow.sources import Source, open_source
from hep2flow.sources.source import ReadCell
from tests.sources import builders

FORMS = {
    "icpr2012": builders.contest,
    "i3a": builders.i3a,
    "folder": builders.classes,
}


def content(source: Source) -> list[ReadCell]:
    with source:
        return list(source.cells([]))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("above", ["", "Some folder/"])
def test_a_folder_and_its_archives_give_equal_cells(tmp_path: Path, form: str, above: str) -> None:
    files = {f"{above}{name}": data for name, data in FORMS[form]().items()}
    places = [
        builders.write(tmp_path / "data", files),
        builders.zipped(tmp_path / "data.zip", files),
        builders.tarred(tmp_path / "data.tar", files),
        builders.tarred(tmp_path / "data.tar.gz", files),
        builders.tarred(tmp_path / "data.tgz", files),
    ]
    opened = [open_source(str(place)) for place in places]
    assert {(source.format, source.name, tuple(source.faults)) for source in opened} == {
        (form, "data" if form == "folder" else form, ())
    }
    first, *others = map(content, opened)
    assert len(first) == 3
    assert all(other == first for other in others)


def test_object_storage_is_read_through_the_download_given(tmp_path: Path) -> None:
    archive = builders.zipped(tmp_path / "cells.zip", builders.i3a())
    folder = builders.write(tmp_path / "cells", builders.i3a())
    downloaded: list[Path] = []

    def download_archive(uri: str, to: Path) -> None:
        downloaded.append(to)
        shutil.copy(archive, to)

    def download_folder(uri: str, to: Path) -> None:
        shutil.copytree(folder, to, dirs_exist_ok=True)

    cells = content(open_source("s3://bucket/cells.zip", download=download_archive))
    assert len(cells) == 3
    assert cells == content(open_source("s3://bucket/cells", download=download_folder))
    assert not downloaded[0].exists(), "downloads are removed when the source is closed"


def test_nothing_temporary_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with open_source(str(builders.tarred(tmp_path / "a.tgz", builders.i3a()))):
        assert os.listdir(scratch)
    with pytest.raises(UserError):
        open_source(str(builders.tarred(tmp_path / "b.tgz", {"readme.txt": "nothing"})))
    assert not os.listdir(scratch)


def not_an_archive(folder: Path) -> Path:
    return builders.write(folder, {"a.txt": "x"}) / "a.txt"


def damaged_zip(folder: Path) -> Path:
    return builders.write(folder, {"a.zip": b"PK\3\4 and no more"}) / "a.zip"


def damaged_tgz(folder: Path) -> Path:
    complete = builders.tarred(folder / "a.tgz", builders.i3a()).read_bytes()
    return builders.write(folder, {"b.tgz": complete[: len(complete) // 2]}) / "b.tgz"


def tar_cut_between_members(folder: Path) -> Path:
    complete = builders.tarred(folder / "a.tar", {"A/1.png": b"x" * 512, "B/1.png": b"y" * 512}).read_bytes()
    return builders.write(folder, {"b.tar": complete[:1024]}) / "b.tar"


def empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def unrelated_folder(folder: Path) -> Path:
    return builders.write(folder / "data", {"a.txt": "x"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "missing", "no such file or folder"),
        (not_an_archive, "not a folder or an archive"),
        (damaged_zip, "not a complete .zip archive"),
        (damaged_tgz, "not a complete .tgz archive"),
        (tar_cut_between_members, "not a complete .tar archive"),
        (empty_folder, "holds no files"),
        (unrelated_folder, "looked for icpr2012: .*; i3a: .*; folder: "),
    ],
)
def test_what_cannot_be_opened_is_reported_in_one_line(
    tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        open_source(str(make(tmp_path)))
    assert "\n" not in str(raised.value)


def test_an_unknown_format_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="icpr2012, i3a, folder"):
        open_source(str(tmp_path), format="icpr")


def test_a_wrong_format_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"i3a: gt_training\.csv"):
        builders.opened(tmp_path, builders.contest(), format="i3a")


@pytest.mark.parametrize("form", ["icpr2012", "i3a"])
def test_two_data_sets_in_one_place_are_ambiguous(tmp_path: Path, form: str) -> None:
    files = {f"{above}/{name}": data for name, data in FORMS[form]().items() for above in ("one", "two")}
    with pytest.raises(UserError, match=r"several .* give the folder of one"):
        builders.opened(tmp_path, files)


def test_hidden_and_system_files_are_passed_over(tmp_path: Path) -> None:
    files = builders.classes() | {
        "Class A/.DS_Store": "x",
        "b/Thumbs.db": "x",
        "__MACOSX/b/._x.png": "x",
        ".git/z/1.png": "x",
    }
    source = builders.opened(tmp_path, files)
    assert (len(source.listings), source.faults) == (3, [])
    assert not any("ignored" in note for note in source.notes)


def test_cells_come_in_order_train_then_test(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    with builders.opened(tmp_path, builders.contest()) as source:
        ids = [read.cell.cell_id for read in source.cells([], lambda done, total: calls.append((done, total)))]
    assert ids == ["train-001", "train-002", "test-001"]
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_masks_of_some_cells_only_are_a_fault(tmp_path: Path) -> None:
    files = builders.i3a()
    del files["00002_Mask.png"]
    (fault,) = builders.opened(tmp_path, files).faults
    assert fault.where == "00002.png"
    assert "no mask" in fault.what


def test_no_masks_at_all_is_a_note(tmp_path: Path) -> None:
    files = {name: data for name, data in builders.i3a().items() if "Mask" not in name}
    source = builders.opened(tmp_path, files)
    assert (source.faults, source.notes) == ([], ["no masks in this source"])


def test_pixel_faults_are_collected_and_the_other_cells_read(tmp_path: Path) -> None:
    files = builders.i3a()
    files["00001.png"] = b"not an image"
    files["00002_Mask.png"] = builders.png(builders.disc(width=8))
    faults: list[Fault] = []
    with builders.opened(tmp_path, files) as source:
        read = [cell.cell.cell_id for cell in source.cells(faults)]
    assert read == ["13596"]
    assert [fault.where for fault in faults] == ["00001.png", "00002_Mask.png"]
    assert "8 x 7" in faults[1].what
    assert "9 x 7" in faults[1].what


def test_a_damaged_archive_member_is_a_fault_of_that_file(tmp_path: Path) -> None:
    path = builders.zipped(tmp_path / "cells.zip", builders.i3a())
    data = bytearray(path.read_bytes())
    at = data.index(b"00002.png") + 40
    data[at] ^= 0xFF
    path.write_bytes(data)
    with open_source(str(path)) as source:
        (fault,) = builders.all_faults(source)
    assert fault.where == "00002.png"


def test_data_set_names_are_safe_in_paths(tmp_path: Path) -> None:
    folder = builders.write(tmp_path / "My Cells (2024) é", builders.classes())
    assert open_source(str(folder)).name == "my-cells-2024"
