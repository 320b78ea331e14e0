"""Cells for the benchmarks of the data path: those of I3A Task 1, or any number of drawn ones."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hep2flow.cells import encode_png
from hep2flow.sources.synthetic import draw_cell, draw_style

CELLS = 10_876
SIDE = 78  # pixels, of the public copy of I3A
VIEWS = 8  # of one drawn cell: four quarter turns, each also mirrored
SCALED_SIDE = 64
DRAWN = 240  # different cells among those of folder_source
PATTERNS = {
    "homogeneous": "Homogeneous",
    "fine_speckled": "Speckled",
    "nucleolar": "Nucleolar",
    "centromere": "Centromere",
    "coarse_speckled": "NuMem",
    "cytoplasmatic": "Golgi",
}


def i3a_source(folder: Path) -> tuple[str, str]:
    """Return the path of the archive that HEP2FLOW_I3A names, else of one drawn in ``folder``, and a description."""
    real = os.environ.get("HEP2FLOW_I3A")
    if real and not Path(real).is_file():
        sys.exit(f"HEP2FLOW_I3A names {real}, which does not exist; name the archive, or unset it for drawn cells")
    if real:
        return real, "real I3A cells"
    path = folder / "i3a.zip"
    _draw_archive(path)
    return str(path), f"drawn cells, {SIDE} x {SIDE}, without masks"


def _draw_archive(path: Path) -> None:
    rows = ["Image ID,Image class"]
    with zipfile.ZipFile(path, "w") as archive:
        for first in range(0, CELLS, VIEWS):
            rng = np.random.default_rng(first)
            drawn, published = list(PATTERNS.items())[first // VIEWS % len(PATTERNS)]
            pixels, _ = draw_cell(rng, drawn, draw_style(rng, "positive"))
            cell = np.asarray(Image.fromarray(pixels).convert("L").resize((SIDE, SIDE)))
            for view in range(min(VIEWS, CELLS - first)):
                turned = np.rot90(cell, view)
                file = io.BytesIO()
                Image.fromarray(turned.T if view >= VIEWS // 2 else turned).save(file, format="PNG")
                archive.writestr(f"{first + view + 1:05d}.png", file.getvalue())
                rows.append(f"{first + view + 1:05d},{published}")
        archive.writestr("gt_training.csv", "\n".join(rows) + "\n")


def folder_source(folder: Path, count: int) -> str:
    """Write a folder of classes with ``count`` different cells of 64 x 64 pixels and their masks; returns its path.

    Only DRAWN of them are drawn; the others differ from those in their first four pixels.
    """
    root = folder / "cells"
    drawn = [_draw_scaled(number) for number in range(DRAWN)]
    for name in PATTERNS:
        (root / name).mkdir(parents=True)
    for number in range(count):
        name, pixels, mask = drawn[number % DRAWN]
        pixels[0, :4] = np.frombuffer(number.to_bytes(4, "big"), np.uint8)
        (root / name / f"{number:07d}.png").write_bytes(encode_png(pixels))
        (root / name / f"{number:07d}_mask.png").write_bytes(mask)
    return str(root)


def _draw_scaled(number: int) -> tuple[str, npt.NDArray[np.uint8], bytes]:
    """Draw pattern, grey pixels, and mask as PNG."""
    rng = np.random.default_rng(number)
    name = list(PATTERNS)[number % len(PATTERNS)]
    pixels, mask = draw_cell(rng, name, draw_style(rng, "positive"))
    size = (SCALED_SIDE, SCALED_SIDE)
    grey = np.array(Image.fromarray(pixels).convert("L").resize(size))
    return name, grey, encode_png(np.asarray(Image.fromarray(mask).resize(size)))
