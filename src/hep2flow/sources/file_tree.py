"""A read-only tree of files over a folder, a zip archive or a tar archive.

Archives come from anywhere: a member that would leave the folder, a link, a device or a bomb is refused before
anything is read from it.
"""

import gzip
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
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

_HIDDEN = re.compile(r"(?:^|/)(?:\.[^/]*|__macosx|thumbs\.db|desktop\.ini)(?:/|\Z)", re.IGNORECASE | re.ASCII)


class UnreadableFileError(Exception):
    """One file of the tree cannot be read; the message says why."""


class FileTree:
    """Files by their relative name with forward slashes, sorted; hidden and system files are left out.

    Args:
        names: Of all files.
        read: Content of one file; UnreadableFileError where it is damaged, not permitted, or larger than 512 MiB.
    """

    def __init__(self, names: Iterable[str], read: Callable[[str], bytes]) -> None:
        self.names = sorted(name for name in names if not _HIDDEN.search(name))
        self.read = read
        self._known = frozenset(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self._known


def _check_file_size(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise UnreadableFileError(f"{size / 2**20:.0f} MiB, more than the {MAX_FILE_BYTES // 2**20} MiB allowed")


def folder_tree(folder: Path, names: Iterable[str] | None = None) -> FileTree:
    """These files of a folder on disk, or all. Links are followed, as the user placed them there."""

    def read(name: str) -> bytes:
        path = os.path.join(folder, name)  # a Path for each of millions of files costs more than reading them
        try:
            _check_file_size(os.stat(path).st_size)
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise UnreadableFileError(error.strerror or str(error)) from error

    return FileTree(_walk(folder) if names is None else names, read)


def _walk(folder: Path) -> Iterable[str]:
    """Names of all files below a folder."""
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
            try:
                path.encode()
            except UnicodeEncodeError:
                raise UserError(f"{os.fsencode(path)!r}: file name is not UTF-8; rename it") from None
            if os.path.isfile(path):
                yield below + file


def _zip_tree(location: Path, archive: zipfile.ZipFile) -> FileTree:
    """Files of a zip archive, read on demand."""
    members = _safe_zip_members(location, archive)

    def read(name: str) -> bytes:
        _check_file_size(members[name].file_size)
        try:
            return archive.read(members[name])
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise UnreadableFileError(f"damaged in the archive ({error})") from error

    return FileTree(members, read)


def open_tree(location: Path, stack: ExitStack) -> FileTree:
    """Open a folder, ``.zip``, ``.tar``, ``.tar.gz`` or ``.tgz``.

    Args:
        location: Path of one of those. A tar archive is unpacked to a temporary folder, since it allows no random access.
        stack: Closes the archive and removes the temporary folder.

    Raises:
        UserError: It does not exist, is no archive, or the archive is damaged or unsafe.
    """
    if location.is_dir():
        return folder_tree(location)
    if not location.exists():
        raise UserError(f"{location}: no such file or folder; check the path")
    suffix = next((suffix for suffix in ARCHIVE_SUFFIXES if location.name.lower().endswith(suffix)), None)
    if suffix is None:
        raise UserError(f"{location}: not a folder or an archive; give a folder, {', '.join(ARCHIVE_SUFFIXES)}")
    try:
        if suffix == ".zip":
            return _zip_tree(location, stack.enter_context(zipfile.ZipFile(location)))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hep2flow-")))
        with cast(BinaryIO, location.open("rb") if suffix == ".tar" else gzip.open(location, "rb")) as stream:
            _unpack_tar(location, stream, folder)
        return folder_tree(folder)
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError) as error:
        raise UserError(f"{location}: not a complete {suffix} archive ({error}); copy or download it again") from error
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"{location}: cannot be opened ({why}); check permissions and free space in TMPDIR") from error


def _safe_zip_members(location: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Members by their safe names. A zip's directory states every size, so a bomb is seen before it unfolds."""
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise _bomb_error(location, f"more than {MAX_MEMBERS:,} members")
    if sum(info.file_size for info in infos) > MAX_TOTAL_BYTES:
        raise _bomb_error(location, f"it unpacks to more than {MAX_TOTAL_BYTES // 2**30} GiB")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = _safe_name(location, info.filename)
        # Archives made on Unix keep the file's mode in the upper half; others leave it 0.
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _member_error(location, info.filename, "a link or a device")
        if info.is_dir() or info.filename.endswith("\\"):
            continue
        if info.flag_bits & 1:
            raise UserError(f"{location}: member {info.filename!r} is encrypted; pack it again without a password")
        if info.file_size > RATIO_MATTERS_FROM and info.file_size > MAX_RATIO * info.compress_size:
            raise _bomb_error(location, f"member {info.filename!r} unpacks to more than {MAX_RATIO} times its size")
        if name in members:
            raise _member_error(location, info.filename, "there twice")
        members[name] = info
    return members


def _unpack_tar(location: Path, stream: BinaryIO, folder: Path) -> None:
    limited = _LimitedReader(location, stream)
    with tarfile.open(fileobj=cast(BinaryIO, limited), mode="r|") as archive:
        for count, member in enumerate(archive):
            if count >= MAX_MEMBERS:
                raise _bomb_error(location, f"more than {MAX_MEMBERS:,} members")
            path = folder / _safe_name(location, member.name)
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise _member_error(location, member.name, "a link, a device or a sparse file")
            if path.exists():
                raise _member_error(location, member.name, "there twice")
            path.parent.mkdir(parents=True, exist_ok=True)
            content = archive.extractfile(member)
            assert content is not None, "a regular member has content"
            with path.open("wb") as file:
                shutil.copyfileobj(content, file)
    while limited.read():
        pass
    # tarfile takes an archive cut between two members for a complete one; a complete one ends in zeros.
    if limited.last_block.strip(b"\0"):
        raise tarfile.ReadError("its end is missing")


class _LimitedReader:
    """Counts the unpacked bytes of a tar stream, headers included, and refuses a bomb while it unfolds."""

    def __init__(self, location: Path, stream: BinaryIO) -> None:
        self._location, self._stream = location, stream
        self._packed, self._total = location.stat().st_size, 0
        self.last_block = b""

    def read(self, size: int = 2**16) -> bytes:
        data = self._stream.read(size)
        self._total += len(data)
        if self._total > MAX_TOTAL_BYTES:
            raise _bomb_error(self._location, f"it unpacks to more than {MAX_TOTAL_BYTES // 2**30} GiB")
        if self._total > RATIO_MATTERS_FROM and self._total > MAX_RATIO * self._packed:
            raise _bomb_error(self._location, f"it unpacks to more than {MAX_RATIO} times its size")
        self.last_block = (self.last_block + data)[-tarfile.BLOCKSIZE :]
        return data


def _safe_name(location: Path, name: str) -> str:
    """The member's name with forward slashes and without ``./``; UserError where it would leave the folder."""
    forward = name.replace("\\", "/")
    parts = [part for part in forward.split("/") if part not in ("", ".")]
    if forward.startswith("/") or ".." in parts or "\0" in name or (parts and parts[0].endswith(":")):
        what = f"member {name!r} leads outside"
        raise UserError(f"{location}: unsafe archive, {what}; pack it again from inside its folder")
    return "/".join(parts)


def _member_error(location: Path, name: str, what: str) -> UserError:
    return UserError(f"{location}: unsafe archive, member {name!r} is {what}; pack plain files and folders only")


def _bomb_error(location: Path, what: str) -> UserError:
    return UserError(f"{location}: unsafe archive, {what}; unpack it yourself and give the folder if you trust it")
