"""Small data sets of every form, written by the tests."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from hep2flow.errors import Fault
from hep2flow.sources import Source, open_source


def png(pixels: npt.NDArray[Any]) -> bytes:
    """PNG of grey, RGB, RGBA or bool pixels as another program would write it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def raw_png(samples: npt.NDArray[Any], colour_type: int, extra: bytes = b"") -> bytes:
    """PNG of (height, width, channels) uint8 or uint16 in a colour type that Pillow cannot write."""
    height, width, _ = samples.shape
    depth = samples.dtype.itemsize * 8
    big_endian = samples.astype(samples.dtype.newbyteorder(">"))
    lines = b"".join(b"\0" + row.tobytes() for row in big_endian)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def chunk(kind: bytes, data: bytes) -> bytes:
    """One PNG chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def grey(seed: int, width: int = 9, height: int = 7) -> npt.NDArray[np.uint8]:
    """Noise, different for each seed."""
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def disc(width: int = 9, height: int = 7) -> npt.NDArray[np.bool_]:
    """A mask that is neither empty nor full."""
    mask = np.zeros((height, width), bool)
    mask[1:-1, 1:-1] = True
    return mask


def write(folder: Path, files: dict[str, bytes | str]) -> Path:
    """Write files below ``folder``."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def zipped(path: Path, files: dict[str, bytes | str]) -> Path:
    """The files as a zip archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, files: dict[str, bytes | str]) -> Path:
    """The files as a tar archive, gzipped where the name says so."""
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as archive:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def contest() -> dict[str, bytes | str]:
    """ICPR 2012, contest form: two training cells, one test cell, cells.csv."""
    files: dict[str, bytes | str] = {}
    for number, folder in enumerate(("training/001", "training/002", "test/001")):
        files[f"{folder}.png"] = png(np.stack([grey(number)] * 3, axis=-1))
        files[f"{folder}_mask.png"] = png(disc())
    files["training/training.csv"] = "ID;intensity;width;height\n1;positive;9;7\n2;intermediate;9;7\n"
    files["training/gt_training.csv"] = "ID;pattern\n1;homogeneous\n2;cytoplasmatic\n"
    files["test/test.csv"] = "ID;intensity;width;height\n1;positive;9;7\n"
    files["test/gt_test.csv"] = "ID;pattern\n1;fine_speckled\n"
    files["cells.csv"] = (
        "ICPR2012Contest_Cell_ID;Set;Image;Intensity;Original_cell_ID;Cell_class;Cell_width;Cell_height\n"
        "1;training;1;positive;5;homogeneous;9;7\n"
        "2;training;25;intermediate;1;cytoplasmatic;9;7\n"
        "1;test;23;positive;2;fine_speckled;9;7\n"
    )
    return files


def main_dataset() -> dict[str, bytes | str]:
    """ICPR 2012, Main_Dataset form: the cells of :func:`contest`."""
    columns = "intensity;cell_ID;seed_pointX;seed_pointY;object_type;pattern;minX;minY;maxX;maxY"
    files: dict[str, bytes | str] = {}
    rows = (("01", 5, "positive", "homogeneous"), ("25", 1, "intermediate", "cytoplasmatic"))
    for seed, (specimen, cell, intensity, pattern) in enumerate((*rows, ("23", 2, "positive", "fine_speckled"))):
        files[f"Cells/Cell_Images/{specimen}/{cell:03d}.png"] = png(np.stack([grey(seed)] * 3, axis=-1))
        files[f"Cells/Cell_Masks/{specimen}/{cell:03d}.png"] = png(disc())
        files[f"Images/{specimen}/{specimen}.csv"] = f"{columns}\n{intensity};{cell};3;3;cell;{pattern};1;1;9;7\n"
    return files


def i3a() -> dict[str, bytes | str]:
    """I3A: three cells with labels and masks."""
    files: dict[str, bytes | str] = {
        "gt_training.csv": "Image ID,Image class\n00001,Homogeneous\n2,NuMem\n13596,Golgi\n"
    }
    for number in (1, 2, 13596):
        files[f"{number:05d}.png"] = png(grey(number))
        files[f"{number:05d}_Mask.png"] = png(disc())
    return files


def classes() -> dict[str, bytes | str]:
    """A plain folder: two classes, three cells."""
    return {f"{name}.png": png(grey(seed)) for seed, name in enumerate(("Class A/x", "Class A/y", "b/x"))}


def opened(folder: Path, files: dict[str, bytes | str], format: str = "auto") -> Source:
    """The files, written and opened."""
    return open_source(str(write(folder / "data", files)), format)


def all_faults(source: Source) -> list[Fault]:
    """Faults of labels and of pixels."""
    faults = list(source.faults)
    list(source.cells(faults))
    return faults
