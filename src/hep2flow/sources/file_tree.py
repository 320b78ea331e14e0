"""A read-only tree of files over a folder, a zip archive or a tar archive.

Archives come from anywhere: a member that would leave the folder, a link, a device or a bomb is refused before
anything is read from it.
"""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

from hep2flow.errors import UserError

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_TOTAL_BYTES = 20 * 2**30
MAX_RATIO = 200
RATIO_MATTERS_FROM = 10 * 2**20
MAX_MEMBERS = 5_000_000
MAX_FILE_BYTES = 512 * 2**20  # an image of 64 megapixels, three channels of 16 bit, is smaller

_SYSTEM_FILES = {"__macosx", "thumbs.db", "desktop.ini"}


class UnreadableFileError(Exception):
    """One file of the tree cannot be read; the message says why."""


class FileTree(ABC):
    """Files by their relative name with forward slashes; hidden and system files are left out.

    names: sorted
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = sorted(name for name in names if not _hidden(name))
        self._known = frozenset(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self._known

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Content of one file.

        Raises:
            UnreadableFileError: damaged, not permitted, or larger than 512 MiB
        """


class FolderTree(FileTree):
    """A folder on disk. Links are followed, as the user placed them there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(_files_below(folder))

    def read(self, name: str) -> bytes:
        path = os.path.join(self.folder, name)  # a Path for each of millions of files costs more than reading them
        try:
            _refuse_large(os.stat(path).st_size)
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise UnreadableFileError(error.strerror or str(error)) from error


class ZipTree(FileTree):
    """A zip archive, members read on demand."""

    def __init__(self, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> None:
        self._archive = archive
        self._members = members
        super().__init__(members)

    def read(self, name: str) -> bytes:
        member = self._members[name]
        _refuse_large(member.file_size)
        try:
            return self._archive.read(member)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise UnreadableFileError(f"damaged in the archive ({error})") from error


def open_tree(location: Path, stack: ExitStack) -> FileTree:
    """Open a folder, ``.zip``, ``.tar``, ``.tar.gz`` or ``.tgz``.

    A tar archive is unpacked once to a temporary folder, since it allows no random access.

    Args:
        stack: closes the archive and removes the temporary folder

    Raises:
        UserError: nothing there, not an archive, damaged, or unsafe
    """
    if location.is_dir():
        return FolderTree(location)
    if not location.exists():
        raise UserError(f"{location}: no such file or folder; check the path")
    name = location.name.lower()
    if not name.endswith(ARCHIVE_SUFFIXES):
        raise UserError(f"{location}: not a folder or an archive; give a folder, {', '.join(ARCHIVE_SUFFIXES)}")
    try:
        if name.endswith(".zip"):
            archive = stack.enter_context(zipfile.ZipFile(location))
            return ZipTree(archive, _safe_zip_members(location, archive))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hep2flow-")))
        _unpack_tar(location, folder)
        return FolderTree(folder)
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError) as error:
        raise UserError(
            f"{location}: not a whole {_suffix(name)} archive ({error}); copy or download it again"
        ) from error
    except OSError as error:
        raise UserError(
            f"{location}: cannot be opened ({error.strerror or error}); check permissions and free space in TMPDIR"
        ) from error


def _suffix(name: str) -> str:
    return next(suffix for suffix in ARCHIVE_SUFFIXES if name.endswith(suffix))


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part.lower() in _SYSTEM_FILES for part in name.split("/"))


def _refuse_large(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise UnreadableFileError(f"{size / 2**20:.0f} MiB, more than the {MAX_FILE_BYTES // 2**20} MiB allowed")


def _files_below(folder: Path) -> Iterable[str]:
    seen: set[str] = set()

    def fail(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be listed ({error.strerror}); check its permissions")

    for parent, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        real = os.path.realpath(parent)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        below = "".join(f"{part}/" for part in Path(parent).relative_to(folder).parts)
        for file in files:
            path = os.path.join(parent, file)
            if not _is_text(path):
                raise UserError(f"{os.fsencode(path)!r}: file name is not UTF-8; rename it")
            if os.path.isfile(path):
                yield below + file


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _safe_name(location: Path, name: str) -> str:
    """The member's name with forward slashes and without ``./``; UserError where it would leave the folder."""
    forward = name.replace("\\", "/")
    parts = [part for part in forward.split("/") if part not in ("", ".")]
    if forward.startswith("/") or ".." in parts or "\0" in name or (parts and parts[0].endswith(":")):
        raise UserError(
            f"{location}: unsafe archive, member {name!r} leads outside; pack it again from inside its folder"
        )
    return "/".join(parts)


def _refuse_member(location: Path, name: str, what: str) -> UserError:
    return UserError(f"{location}: unsafe archive, member {name!r} is {what}; pack plain files and folders only")


def _bomb(location: Path, what: str) -> UserError:
    return UserError(f"{location}: unsafe archive, {what}; unpack it yourself and give the folder if you trust it")


def _safe_zip_members(location: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise _bomb(location, f"more than {MAX_MEMBERS:,} members")
    if sum(info.file_size for info in infos) > MAX_TOTAL_BYTES:
        raise _bomb(location, f"it unpacks to more than {MAX_TOTAL_BYTES // 2**30} GiB")
    for info in infos:
        name = _safe_name(location, info.filename)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refuse_member(location, info.filename, "a link or a device")
        if info.is_dir() or info.filename.endswith("\\"):
            continue
        if info.flag_bits & 1:
            raise UserError(f"{location}: member {info.filename!r} is encrypted; pack it again without a password")
        if info.file_size > RATIO_MATTERS_FROM and info.file_size > MAX_RATIO * info.compress_size:
            raise _bomb(location, f"member {info.filename!r} unpacks to more than {MAX_RATIO} times its size")
        if name in members:
            raise _refuse_member(location, info.filename, "there twice")
        members[name] = info
    return members


class _Metered:
    """Counts the unpacked bytes of a tar stream, headers included, and refuses a bomb while it unfolds."""

    def __init__(self, location: Path, stream: BinaryIO) -> None:
        self._location = location
        self._stream = stream
        self._packed = location.stat().st_size
        self._total = 0
        self.last = b""

    def read(self, size: int = 2**16) -> bytes:
        data = self._stream.read(size)
        self._total += len(data)
        if self._total > MAX_TOTAL_BYTES:
            raise _bomb(self._location, f"it unpacks to more than {MAX_TOTAL_BYTES // 2**30} GiB")
        if self._total > RATIO_MATTERS_FROM and self._total > MAX_RATIO * self._packed:
            raise _bomb(self._location, f"it unpacks to more than {MAX_RATIO} times its size")
        self.last = (self.last + data)[-tarfile.BLOCKSIZE :]
        return data


def _unpack_tar(location: Path, folder: Path) -> None:
    plain = location.name.lower().endswith(".tar")
    with cast(BinaryIO, location.open("rb") if plain else gzip.open(location, "rb")) as stream:
        metered = _Metered(location, stream)
        with tarfile.open(fileobj=cast(BinaryIO, metered), mode="r|") as archive:
            for count, member in enumerate(archive):
                if count >= MAX_MEMBERS:
                    raise _bomb(location, f"more than {MAX_MEMBERS:,} members")
                _unpack_member(location, archive, member, folder)
        while metered.read():
            pass
        # tarfile takes an archive cut between two members for a whole one; a whole one ends in zeros.
        if metered.last.strip(b"\0"):
            raise tarfile.ReadError("its end is missing")


def _unpack_member(location: Path, archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    name = _safe_name(location, member.name)
    if member.isdir():
        return
    if not member.isreg() or member.issparse():
        raise _refuse_member(location, member.name, "a link, a device or a sparse file")
    path = folder / name
    if path.exists():
        raise _refuse_member(location, member.name, "there twice")
    path.parent.mkdir(parents=True, exist_ok=True)
    content = archive.extractfile(member)
    assert content is not None, "a regular member has content"
    with path.open("wb") as file:
        shutil.copyfileobj(content, file)
