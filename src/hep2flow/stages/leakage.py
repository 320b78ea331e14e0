"""Leakage: what cells of different subsets have in common: specimens, blocks of IDs, and the pixels themselves."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter

from hep2flow.cells import decode_png
from hep2flow.stages.split import id_blocks
from hep2flow.store.datasets import open_dataset
from hep2flow.store.s3 import Store
from hep2flow.store.splits import SUBSETS, read_split
from hep2flow.store.stage_cache import code_version, commit, lookup, stage_key

Descriptors = npt.NDArray[np.float32]

SIDE = 32
BLUR = 2.0  # sigma in pixels of the descriptor
THRESHOLD = 0.95  # see near_duplicates
EQUAL = np.float32(np.inf)  # stands for the correlation of equal pixels
FLAT = 1e-6  # of the brightest pixel: a deviation below that is rounding
SHOWN = 20
BLOCK = 1024  # cells of one subset at a time: with 10,000 of the other 40 MB
CHUNK = 4096  # pairs at a time: 16 MB


def leakage(store: Store, dataset: str, split: str) -> dict[str, Any]:
    """What cells of different subsets of a split share; JSON-able, and kept in the cache by data set and split.

    dataset: URI of the data set in the form the networks saw

    Returns ``test_specimens`` (specimens with cells in the test set and in training or validation; None where there is no
    test set, or specimens are unknown), ``id_blocks`` {shared, of}: the blocks of contiguous IDs, I3A's stand-in for
    specimens, with cells in more than one subset (None where the order of IDs tells nothing), and ``duplicates``, see
    :func:`near_duplicates`.
    """
    opened, division = open_dataset(store, dataset), read_split(store, split)
    key = stage_key("leakage", {"dataset": opened.ref.digest, "split": division.digest}, code_version("leakage"))
    entry = lookup(store, "leakage", key)
    if entry is not None:
        found: dict[str, Any] = entry["found"]
        return found
    rows, descriptors = [], []
    for row in opened.rows(set(division.subsets), ["cell_id", "pattern", "specimen_id", "sha256", "image"]):
        descriptors.append(describe(decode_png(row.pop("image"))))
        rows.append(row)
    cells = pd.DataFrame(rows).assign(subset=[division.subsets[row["cell_id"]] for row in rows])
    blocks = None
    if opened.manifest["facts"]["id_order_is_proxy"]:
        subsets = cells["subset"].groupby(id_blocks(cells)).nunique()
        blocks = {"shared": int((subsets > 1).sum()), "of": len(subsets)}
    found = {
        "test_specimens": _test_specimens(cells),
        "id_blocks": blocks,
        "duplicates": near_duplicates(cells, np.stack(descriptors)),
    }
    commit(store, "leakage", key, {"output": None, "found": found})
    return found


def describe(pixels: npt.NDArray[Any]) -> Descriptors:
    """The texture of an image: SIDE x SIDE means of its grey less a blur of themselves, of mean 0 and length 1.

    pixels: (height, width) or (height, width, 3), of any depth

    The product of two is their correlation: size, brightness and contrast do not count, and neither do the round outline
    and the slow shading that all cells have in common. Zeros for a flat image.
    """
    grey = pixels.astype(np.float32)
    if grey.ndim == 3:
        grey = grey.mean(axis=2)
    small = np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BOX))
    texture = small - gaussian_filter(small, BLUR, mode="nearest")
    texture -= texture.mean()
    length = float(np.linalg.norm(texture))
    if length <= FLAT * SIDE * float(small.max()):
        return np.zeros_like(texture)
    unit: Descriptors = texture / np.float32(length)
    return unit


def near_duplicates(cells: pd.DataFrame, descriptors: Descriptors) -> dict[str, Any]:
    """Pairs of cells of different subsets that show the same: equal pixels, or nearly so in one of eight views.

    The threshold stands above what unlike cells reach, and below what copies have. Of the 10,876 public cells of I3A no
    cell's closest of another pattern comes above 0.83 (masked: 0.90), and of the synthetic twin, where no cell is another's
    copy, no cell's closest at all above 0.93, masked or not. Turned, dimmed or as JPEG, I3A's cells keep 0.976 or more with
    themselves, at 0.7 of their size 0.93. From 0.95 on I3A has 118 pairs equal to the pixel, and some 45 others that show
    one cell twice, mostly within 100 IDs; such pairs go on down to 0.85, cut out by a pixel or two aside: what is counted is
    a lower bound.

    cells:       cell_id, pattern, subset (train | val | test), sha256 (of the pixels)
    descriptors: of the same cells, see :func:`describe`; (cells, SIDE, SIDE)

    Returns ``threshold`` (correlation from which two cells are near-duplicates), ``count`` (pairs), ``equal`` (how many of
    them are equal to the pixel), ``cells`` (how many cells are in a pair), and ``pairs``: the SHOWN closest, each
    ``cells``, ``subsets`` and ``patterns`` (two each) and ``correlation`` (None: equal pixels).
    """
    pixels = pd.factorize(cells["sha256"])[0]
    members = [np.flatnonzero(cells["subset"] == subset) for subset in SUBSETS]
    invariant = _invariant(descriptors)
    lengths = np.square(invariant).sum(axis=1)
    furthest = 2 * (1 - THRESHOLD) + 1e-5  # squared, of two of length 1; and the rounding of float32
    textured = np.asarray(descriptors.any(axis=(1, 2)))
    involved = np.zeros(len(cells), dtype=np.bool_)
    count = equal = 0
    closest: list[tuple[float, int, int]] = []
    for first, second in combinations(members, 2):
        for start in range(0, len(first), BLOCK):
            rows = first[start : start + BLOCK]
            same = np.equal.outer(pixels[rows], pixels[second])
            apart = lengths[rows][:, None] + lengths[second] - 2 * invariant[rows] @ invariant[second].T
            at, of = np.nonzero(same | ((apart <= furthest) & np.logical_and.outer(textured[rows], textured[second])))
            one, other, correlation = rows[at], second[of], np.where(same[at, of], EQUAL, 0)
            for chunk in range(0, len(one), CHUNK):
                part = slice(chunk, chunk + CHUNK)
                close = _close(descriptors[one[part]], descriptors[other[part]])
                correlation[part] = np.maximum(correlation[part], close)
            near = correlation >= THRESHOLD
            one, other, correlation = one[near], other[near], correlation[near]
            count, equal = count + len(one), equal + int((correlation == EQUAL).sum())
            involved[one] = involved[other] = True
            order = np.argsort(-correlation, kind="stable")[:SHOWN]
            closest += [(float(correlation[k]), int(one[k]), int(other[k])) for k in order]
    closest.sort(key=lambda pair: -pair[0])

    def both(column: str, pair: list[int]) -> list[str]:
        return [str(value) for value in cells[column].iloc[pair]]

    return {
        "threshold": THRESHOLD,
        "count": count,
        "equal": equal,
        "cells": int(involved.sum()),
        "pairs": [
            {
                "cells": both("cell_id", pair),
                "subsets": both("subset", pair),
                "patterns": both("pattern", pair),
                "correlation": None if correlation == EQUAL else min(correlation, 1.0),
            }
            for correlation, *pair in closest[:SHOWN]
        ],
    }


def _views(descriptors: Descriptors) -> Iterator[Descriptors]:
    """The eight: each quarter turn, mirrored and not."""
    for mirrored in (descriptors, descriptors[:, :, ::-1]):
        for turns in range(4):
            yield np.rot90(mirrored, turns, axes=(1, 2))


def _close(first: Descriptors, second: Descriptors) -> npt.NDArray[np.float32]:
    """Highest correlation of each cell of the first with any view of the cell at the same place of the second."""
    best: npt.NDArray[np.float32] = np.max([np.einsum("nij,nij->n", first, view) for view in _views(second)], axis=0)
    return best


def _invariant(descriptors: Descriptors) -> npt.NDArray[np.float32]:
    """The mean of each cell's views, (cells, SIDE * SIDE / 4): equal for all of them.

    A mean of views is a projection, and brings no two cells further apart: two that are not close here are close in no
    view. One quarter, twice as long, holds it all, as the others are its mirror images.
    """
    total = np.zeros_like(descriptors)
    for view in _views(descriptors):
        total += view
    total *= 2 / 8
    quarter: npt.NDArray[np.float32] = total[:, : SIDE // 2, : SIDE // 2].reshape(len(total), -1)
    return quarter


def _test_specimens(cells: pd.DataFrame) -> int | None:
    known = cells.dropna(subset=["specimen_id"])
    tested = known["subset"] == "test"
    if not tested.any():
        return None
    return len(set(known.loc[tested, "specimen_id"]) & set(known.loc[~tested, "specimen_id"]))
