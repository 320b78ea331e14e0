"""The Cell table: one row per cell, its schema, its pixels, its digest."""

import hashlib
import io
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from hep2flow.errors import UserError

OfficialSplit = Literal["train", "test"]
Intensity = Literal["positive", "intermediate"]
Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

DIGEST_LENGTH = 32  # hexadecimal digits, 128 bits
PART_BYTES = 64 * 2**20

SCHEMA = pa.schema(
    [
        pa.field("cell_id", pa.string(), nullable=False),
        pa.field("official_split", pa.string()),
        pa.field("pattern", pa.string(), nullable=False),
        pa.field("intensity", pa.string()),
        pa.field("specimen_id", pa.string()),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("mask", pa.binary()),
        pa.field("sha256", pa.string(), nullable=False),
    ]
)
DIGESTED = tuple(name for name in SCHEMA.names if name not in ("image", "mask"))  # a cell's pixels have their own hash
DIGESTS = pa.schema([SCHEMA.field("cell_id"), pa.field("digest", pa.binary(32), nullable=False)])


@dataclass(frozen=True)
class Cell:
    """One row of the Cell table."""

    cell_id: str  # unique in the data set
    official_split: OfficialSplit | None  # None where the source has no official split
    pattern: str  # the label, for example `homogeneous`
    intensity: Intensity | None  # of the fluorescence
    specimen_id: str | None  # the slide the cell was cut from, or None where unknown
    width: int  # pixels
    height: int
    image: bytes  # lossless PNG, grey or RGB, 8 or 16 bit
    mask: bytes | None  # PNG, one channel, 0 or 255, of the image's size; None where there is none
    sha256: str  # of the decoded pixels of `image`, see :func:`pixel_sha256`

    def pixels(self) -> Pixels:
        """Decode the image: (height, width) or (height, width, 3), uint8 or uint16."""
        return decode_png(self.image)

    def mask_pixels(self) -> npt.NDArray[np.bool_] | None:
        """Decode the mask: (height, width), True inside the cell; None where there is none."""
        return None if self.mask is None else decode_png(self.mask) > 127


def pixel_sha256(pixels: npt.NDArray[Any]) -> str:
    """Compute the SHA-256 of an image's decoded pixels, shape and type included: independent of the file format."""
    little_endian = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("<"), copy=False))
    header = f"{little_endian.dtype.name}:{','.join(map(str, little_endian.shape))}:".encode()
    return hashlib.sha256(header + little_endian.tobytes()).hexdigest()


def row_digest(cell: Cell, mask_sha256: str | None) -> bytes:
    """Compute the SHA-256 over every column of one row, pixels by their own hash."""
    columns = [*(getattr(cell, name) for name in DIGESTED), mask_sha256]
    return hashlib.sha256(json.dumps(columns, ensure_ascii=False, separators=(",", ":")).encode()).digest()


def dataset_digest(rows: pa.Table) -> str:
    """Compute the digest of a data set from its rows' ``cell_id`` and ``digest`` (see :func:`row_digest`), in any order."""
    import pyarrow.compute as pc  # slow to import, and most modules only read cells

    rows = rows.sort_by("cell_id").combine_chunks()  # by the bytes of UTF-8, which is Python's order of strings too
    ids = rows["cell_id"]
    assert not pc.any(pc.equal(ids[1:], ids[:-1])).as_py(), "a cell was added twice"
    return hashlib.sha256(b"".join(rows["digest"].to_pylist())).hexdigest()[:DIGEST_LENGTH]


class CellWriter(AbstractContextManager["CellWriter"]):
    """Writes cells to Parquet parts in a folder, one part in memory at a time; of the others their ids and digests.

    A part never mixes official splits, so that reading the training cells never touches a part with test cells.
    Use as a context manager; ``digest``, ``parts``, ``count`` and ``max_value`` are complete once it has closed.
    """

    def __init__(self, folder: Path, part_bytes: int = PART_BYTES) -> None:
        self.folder, self.part_bytes = folder, part_bytes
        self.parts: list[dict[str, Any]] = []
        self.digest, self.max_value, self._bytes = "", 0, 0
        self._rows: list[Cell] = []
        self._digests: list[bytes] = []
        self._flushed: list[pa.Table] = []
        folder.mkdir(parents=True, exist_ok=True)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
            self.digest = dataset_digest(pa.concat_tables([DIGESTS.empty_table(), *self._flushed]))

    def add(self, cell: Cell, max_value: int, mask_sha256: str | None) -> None:
        """Append one cell, with the largest value of its pixels and :func:`pixel_sha256` of its boolean mask, if any."""
        full = self._bytes + len(cell.image) > self.part_bytes
        if full or (self._rows and self._rows[-1].official_split != cell.official_split):
            self._flush()
        self._digests.append(row_digest(cell, mask_sha256))
        self.max_value = max(self.max_value, max_value)
        self._rows.append(cell)
        self._bytes += len(cell.image) + len(cell.mask or b"")

    def _flush(self) -> None:
        if not self._rows:
            return
        path = self.folder / f"part-{len(self.parts):05d}.parquet"
        table = pa.Table.from_pylist([vars(cell) for cell in self._rows], schema=SCHEMA)
        # The images are PNG: compressing them again costs time and gains nothing.
        with _translate_disk_full("cells"):
            pq.write_table(table, path, compression="none", row_group_size=1024)
        self.parts.append({"file": path.name, "rows": len(self._rows), "official_split": self._rows[0].official_split})
        self._flushed.append(pa.table([table["cell_id"].combine_chunks(), self._digests], schema=DIGESTS))
        self._rows, self._digests, self._bytes = [], [], 0

    @property
    def count(self) -> int:
        """Cells written."""
        return sum(part["rows"] for part in self.parts)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a temporary folder to write cells in; UserError where this machine has no space for one."""
    with _translate_disk_full("a folder"):
        folder = tempfile.TemporaryDirectory(prefix="hep2flow-")
    with folder as name:
        yield Path(name)


@contextmanager
def _translate_disk_full(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"no space for {what} in the temporary folder ({error}); free some space, or set TMPDIR to another disk"
        ) from error


def read_part(path: Path, keep: set[str] | None, columns: Iterable[str] | None) -> Iterator[dict[str, Any]]:
    """Read rows of one Parquet part as dictionaries, a row group at a time; only those in ``keep`` unless None."""
    names = list(columns) if columns is not None else SCHEMA.names
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            if keep is None:
                yield from file.read_row_group(group, columns=names).to_pylist()
                continue
            ids = file.read_row_group(group, columns=["cell_id"]).column("cell_id").to_pylist()
            if rows := [row for row, cell_id in enumerate(ids) if cell_id in keep]:
                yield from file.read_row_group(group, columns=names).take(rows).to_pylist()


def decode_png(data: bytes) -> Pixels:
    """Decode a PNG written by :func:`encode_png`: (height, width[, 3]), uint8 or uint16."""
    with Image.open(io.BytesIO(data)) as image:
        if image.mode == "I":  # Pillow's old name for 16-bit grey
            return np.asarray(image).astype(np.uint16)
        return np.array(image.convert("L") if image.mode == "1" else image)


def encode_png(pixels: npt.NDArray[Any], compress_level: int = 1) -> bytes:
    """Encode (height, width) uint8, uint16 or bool, or (height, width, 3) uint8 as PNG; booleans become 0 and 255."""
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=compress_level)
    return buffer.getvalue()


def significant_bits(max_value: int) -> int:
    """Return the bits a camera really used: the smallest of 8, 10, 12, 14, 16 that holds ``max_value``.

    A 12-bit camera that writes 16-bit files has its white at 4095, not at 65535.
    """
    return next(bits for bits in (8, 10, 12, 14, 16) if max_value < 2**bits)
