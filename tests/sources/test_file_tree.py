"""Archives from anywhere: nothing leaves the folder, nothing explodes."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from hep2flow.errors import UserError
from hep2flow.sources import file_tree
from hep2flow.sources.file_tree import open_tree
from tests.sources import builders


def refused(path: Path) -> str:
    with ExitStack() as stack, pytest.raises(UserError) as raised:
        open_tree(path, stack)
    assert "unsafe archive" in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
@pytest.mark.parametrize("name", ["../escape.png", "a/../../escape.png", "/escape.png", "..\\escape.png", "C:\\escape"])
def test_a_member_that_leaves_the_folder_is_refused(tmp_path: Path, suffix: str, name: str) -> None:
    pack = builders.zipped if suffix == ".zip" else builders.tarred
    message = refused(pack(tmp_path / f"inner{suffix}", {"a/good.png": b"x", name: b"x"}))
    assert "leads outside" in message
    assert not list(tmp_path.parent.rglob("escape*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_link_or_device_in_a_tar_is_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("a/link.png")
        member.type, member.linkname = kind, "/etc/hostname"
        archive.addfile(member)
    assert "a link" in refused(tmp_path / "a.tar")


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        member = zipfile.ZipInfo("a/link.png")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, "/etc/hostname")
    assert "a link" in refused(tmp_path / "a.zip")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_a_member_that_is_there_twice_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr("a.png", "x")
            packed.writestr("a.png", "y")
    else:
        with tarfile.open(path, "w") as archive:
            for _ in range(2):
                archive.addfile(tarfile.TarInfo("a.png"), io.BytesIO())
    assert "there twice" in refused(path)


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_a_bomb_is_refused(tmp_path: Path, suffix: str) -> None:
    pack = builders.zipped if suffix == ".zip" else builders.tarred
    assert "200 times" in refused(pack(tmp_path / f"a{suffix}", {"a.png": bytes(11 * 2**20)}))


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize(("limit", "value"), [("MAX_TOTAL_BYTES", 5000), ("MAX_MEMBERS", 2)])
def test_archives_beyond_the_limits_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, limit: str, value: int
) -> None:
    monkeypatch.setattr(file_tree, limit, value)
    pack = builders.zipped if suffix == ".zip" else builders.tarred
    refused(pack(tmp_path / f"a{suffix}", {f"{i}.png": bytes(3000) for i in range(3)}))


def test_an_encrypted_zip_asks_for_one_without_password(tmp_path: Path) -> None:
    path = builders.zipped(tmp_path / "a.zip", {"a.png": "x"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1  # the flag in the central directory
    path.write_bytes(data)
    with ExitStack() as stack, pytest.raises(UserError, match="encrypted"):
        open_tree(path, stack)


def test_a_file_too_large_to_be_a_cell_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_tree, "MAX_FILE_BYTES", 10)
    with ExitStack() as stack:
        files = open_tree(builders.write(tmp_path / "data", {"a.png": bytes(11)}), stack)
        with pytest.raises(file_tree.UnreadableFileError, match="more than"):
            files.read("a.png")


def test_windows_separators_in_a_zip_are_understood(tmp_path: Path) -> None:
    path = builders.zipped(tmp_path / "a.zip", {"train\\00001.png": b"x"})
    with ExitStack() as stack:
        files = open_tree(path, stack)
        assert files.names == ["train/00001.png"]
        assert files.read("train/00001.png") == b"x"


def test_links_of_the_users_own_folder_are_followed_once(tmp_path: Path) -> None:
    builders.write(tmp_path / "elsewhere", {"a.png": b"x"})
    folder = builders.write(tmp_path / "data", {"b/c.png": b"y"})
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "b" / "up").symlink_to(folder)
    with ExitStack() as stack:
        assert open_tree(folder, stack).names == ["b/c.png", "linked/a.png"]


def test_a_file_name_that_is_not_text_is_reported(tmp_path: Path) -> None:
    with open(bytes(tmp_path) + b"/\xff.png", "wb") as file:
        file.write(b"x")
    with ExitStack() as stack, pytest.raises(UserError, match="not UTF-8"):
        open_tree(tmp_path, stack)
