"""An opened data set: its listings, and its cells decoded and checked one by one."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from hep2flow.cells import Cell, encode_png, pixel_sha256
from hep2flow.errors import Fault
from hep2flow.parallel import parallel_map
from hep2flow.sources.file_tree import FileTree, UnreadableFileError
from hep2flow.sources.image_files import BadImageError, decode_image, decode_mask
from hep2flow.sources.listing import Labels, Listing

Decoded = TypeVar("Decoded")


class ReadCell(NamedTuple):
    """One decoded cell, ready for ``CellWriter.add(cell, max_value, mask_sha256)``."""

    cell: Cell
    max_value: int  # of the image, in the image's own units
    mask_sha256: str | None  # of the boolean mask, None where there is none


@dataclass(kw_only=True)
class Source(Labels):
    """An opened data set: its labels and files; a context manager that closes archives and removes temporary files."""

    name: str  # default name of the data set, safe in paths: ``icpr2012``, ``i3a``, or the folder's name
    format: str  # icpr2012, i3a or folder
    id_order_is_proxy: bool  # neighbouring IDs look alike, so that blocks of IDs can stand in for unknown specimens
    tree: FileTree
    resources: ExitStack

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self.resources.close()

    def cells(self, faults: list[Fault], progress: Callable[[int, int], None] | None = None) -> Iterator[ReadCell]:
        """Every good cell, in the order of ``listings``; many are decoded on all cores.

        ``faults`` gets what is wrong with the other cells; ``progress`` is called with (cells read, cells in all).
        """
        count = len(self.listings)
        raw = map(self._read_files, self.listings)
        for done, (cell, found) in enumerate(parallel_map(_decode_cell, raw, count, _RawCell.size), start=1):
            faults.extend(found)
            if progress is not None:
                progress(done, count)
            if cell is not None:
                yield cell

    def _read_files(self, listing: Listing) -> "_RawCell":
        mask = None if listing.mask is None else self._read_file(listing.mask)
        return _RawCell(listing, self._read_file(listing.image), mask)

    def _read_file(self, name: str) -> bytes | Fault:
        try:
            return self.tree.read(name)
        except UnreadableFileError as error:
            return Fault(name, f"cannot be read: {error}", "replace it by a good copy")


class _RawCell(NamedTuple):
    """The undecoded bytes of one cell's files, or why they cannot be read; sent to the process that decodes them."""

    listing: Listing
    image: bytes | Fault
    mask: bytes | Fault | None

    def size(self) -> int:
        return sum(len(file) for file in (self.image, self.mask) if isinstance(file, bytes))


def _decode_cell(raw: _RawCell) -> tuple[ReadCell | None, list[Fault]]:
    """Decode and check one cell; None and all of its faults where something is wrong."""
    listing = raw.listing
    faults: list[Fault] = []
    decoded = _decode(listing.image, raw.image, decode_image, faults)
    mask = None if raw.mask is None else _decode(str(listing.mask), raw.mask, decode_mask, faults)
    if decoded is None or faults:
        return None, faults
    pixels, png = decoded
    height, width = pixels.shape[:2]
    if (size := listing.size) is not None and (width, height) != (size.width, size.height):
        what = f"is {width} x {height}, but {size.where} says {size}"
        faults.append(Fault(listing.image, what, "correct the row or the image"))
    if mask is not None and mask.shape != (height, width):
        what = f"mask is {mask.shape[1]} x {mask.shape[0]}, its image {width} x {height}"
        faults.append(Fault(str(listing.mask), what, "make them the same size"))
    if faults:
        return None, faults
    labels = (listing.cell_id, listing.official_split, listing.pattern, listing.intensity, listing.specimen_id)
    encoded_mask = None if mask is None else encode_png(mask)
    cell = Cell(*labels, width, height, png, encoded_mask, pixel_sha256(pixels))
    return ReadCell(cell, int(pixels.max()), None if mask is None else pixel_sha256(mask)), []


def _decode(name: str, file: bytes | Fault, decode: Callable[[bytes], Decoded], faults: list[Fault]) -> Decoded | None:
    try:
        if isinstance(file, bytes):
            return decode(file)
        faults.append(file)
    except BadImageError as error:
        faults.append(Fault(name, error.what, error.remedy))
    return None
