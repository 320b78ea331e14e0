"""Leakage: what cells of different subsets have in common: specimens, blocks of IDs, and pixels."""

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
from hep2flow.store.stage_cache import commit, lookup, stage_key

Descriptors = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]

SIDE = 32
BLUR = 2.0  # sigma in pixels of the descriptor
THRESHOLD = 0.95  # see near_duplicates
EQUAL = np.float32(np.inf)  # stands for the correlation of equal pixels
FLAT = 1e-6  # of the brightest pixel: a deviation below that is rounding
SHOWN = 20
BLOCK = 1024  # cells of one subset at a time: with 10,000 of the other 40 MB
CHUNK = 4096  # pairs at a time: 16 MB


def find_leakage(store: Store, dataset: str, split: str) -> dict[str, Any]:
    """Find what cells of different subsets of a split share; cached by data set (masked as the networks saw it) and split.

    Returns:
        JSON-able: ``test_specimens`` (specimens with cells in the test set and in training or validation; None where there
        is no test set, or specimens are unknown), ``id_blocks`` {shared, of}: the blocks of contiguous IDs, I3A's proxy for
        specimens, with cells in more than one subset (None where the order of IDs means nothing), and ``duplicates``, see
        :func:`near_duplicates`.
    """
    opened, division = open_dataset(store, dataset), read_split(store, split)
    key = stage_key("leakage", {"dataset": opened.digest, "split": division.digest})
    if (entry := lookup(store, "leakage", key)) is not None:
        return dict(entry["found"])
    rows, descriptors = [], []
    for row in opened.rows(set(division.subsets), ["cell_id", "pattern", "specimen_id", "sha256", "image"]):
        descriptors.append(texture_descriptor(decode_png(row.pop("image"))))
        rows.append({**row, "subset": division.subsets[row["cell_id"]]})
    cells = pd.DataFrame(rows)
    known = cells.dropna(subset=["specimen_id"])
    tested = known["subset"] == "test"
    specimens = set(known.loc[tested, "specimen_id"]) & set(known.loc[~tested, "specimen_id"])
    blocks = None
    if opened.manifest["facts"]["id_order_is_proxy"]:
        subsets = cells["subset"].groupby(id_blocks(cells)).nunique()
        blocks = {"shared": int((subsets > 1).sum()), "of": len(subsets)}
    found = {
        "test_specimens": len(specimens) if tested.any() else None,
        "id_blocks": blocks,
        "duplicates": near_duplicates(cells, np.stack(descriptors)),
    }
    commit(store, "leakage", key, {"output": None, "found": found})
    return found


def texture_descriptor(pixels: npt.NDArray[Any]) -> Descriptors:
    """The high-pass filtered, downsampled image, of mean 0 and length 1: (SIDE, SIDE); zeros for a flat image.

    The inner product of two is their correlation. It ignores size, brightness and contrast, and, by the high pass, also the
    round outline and the slow shading that all cells have in common. The image is (height, width) or (height, width, 3), of
    any depth.
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
    return np.asarray(texture / np.float32(length))


def near_duplicates(cells: pd.DataFrame, descriptors: Descriptors) -> dict[str, Any]:
    """Find pairs of cells of different subsets with equal pixels, or nearly so in one of eight views.

    The threshold is above what different cells reach, and below what copies have. Of the 10,876 public cells of I3A no
    cell's closest of another pattern is above 0.83 (masked: 0.90), and of the synthetic twin, which has no copies, no cell's
    closest at all is above 0.93, masked or not. Turned, dimmed or as JPEG, I3A's cells keep 0.976 or more with themselves,
    at 0.7 of their size 0.93. From 0.95 on I3A has 118 pairs equal to the pixel, and some 45 others that show one cell
    twice, mostly within 100 IDs; such pairs continue down to 0.85, cropped a pixel or two apart: the count is a lower bound.

    Args:
        cells: cell_id, pattern, subset (train | val | test), sha256 (of the pixels).
        descriptors: Of the same cells, see :func:`texture_descriptor`; (cells, SIDE, SIDE).

    Returns:
        ``threshold`` (correlation from which two cells are near-duplicates), ``count`` (pairs), ``equal`` (pairs equal to
        the pixel), ``cells`` (cells that are in a pair), and ``pairs``: the SHOWN closest, each ``cells``, ``subsets`` and
        ``patterns`` (two each) and ``correlation`` (None: equal pixels).
    """
    search = _PairSearch(pd.factorize(cells["sha256"])[0], descriptors)
    members = [np.flatnonzero(cells["subset"] == subset) for subset in SUBSETS]
    involved = np.zeros(len(cells), dtype=np.bool_)
    count = equal = 0
    closest: list[tuple[float, int, int]] = []
    for first, second in combinations(members, 2):
        for start in range(0, len(first), BLOCK):
            one, other, correlation = search.near_pairs(first[start : start + BLOCK], second)
            count, equal = count + len(one), equal + int((correlation == EQUAL).sum())
            involved[one] = involved[other] = True
            order = np.argsort(-correlation, kind="stable")[:SHOWN]
            closest += [(float(correlation[k]), int(one[k]), int(other[k])) for k in order]
    closest.sort(key=lambda pair: -pair[0])
    columns = {"cells": "cell_id", "subsets": "subset", "patterns": "pattern"}
    return {
        "threshold": THRESHOLD,
        "count": count,
        "equal": equal,
        "cells": int(involved.sum()),
        "pairs": [
            {
                **{name: cells[column].iloc[pair].astype(str).tolist() for name, column in columns.items()},
                "correlation": None if correlation == EQUAL else min(correlation, 1.0),
            }
            for correlation, *pair in closest[:SHOWN]
        ],
    }


class _PairSearch:
    """Finds near-duplicates: a cheap bound on the distance of all pairs, then the correlation of the pairs within it."""

    def __init__(self, pixels: npt.NDArray[np.intp], descriptors: Descriptors) -> None:
        self.pixels, self.descriptors = pixels, descriptors
        self.invariant = _view_invariant(descriptors)
        self.squared_norms = np.square(self.invariant).sum(axis=1)
        self.textured = np.asarray(descriptors.any(axis=(1, 2)))

    def near_pairs(self, rows: Indices, columns: Indices) -> tuple[Indices, Indices, npt.NDArray[np.float32]]:
        """Pairs of a cell of each set whose correlation reaches the threshold, EQUAL for equal pixels."""
        same = np.equal.outer(self.pixels[rows], self.pixels[columns])
        norms, products = self.squared_norms, self.invariant[rows] @ self.invariant[columns].T
        squared_distance = norms[rows][:, None] + norms[columns] - 2 * products
        # |a - b|^2 = 2 (1 - a b) for descriptors of length 1; the summand covers the rounding of float32.
        within = squared_distance <= 2 * (1 - THRESHOLD) + 1e-5
        textured = np.logical_and.outer(self.textured[rows], self.textured[columns])
        at, of = np.nonzero(same | (within & textured))
        one, other, correlation = rows[at], columns[of], np.where(same[at, of], EQUAL, 0)
        for start in range(0, len(one), CHUNK):
            part = slice(start, start + CHUNK)
            first = self.descriptors[one[part]]
            for view in _views(self.descriptors[other[part]]):
                correlation[part] = np.maximum(correlation[part], np.einsum("nij,nij->n", first, view))
        near = correlation >= THRESHOLD
        return one[near], other[near], correlation[near]


def _views(descriptors: Descriptors) -> Iterator[Descriptors]:
    """The eight views: each quarter turn, mirrored and not."""
    for mirrored in (descriptors, descriptors[:, :, ::-1]):
        for turns in range(4):
            yield np.rot90(mirrored, turns, axes=(1, 2))


def _view_invariant(descriptors: Descriptors) -> npt.NDArray[np.float32]:
    """The mean of each cell's views, (cells, SIDE * SIDE / 4), which is equal for all of them.

    A mean of views is a projection, which increases no distance: two cells that are far apart here are so in every view.
    """
    total = np.zeros_like(descriptors)
    for view in _views(descriptors):
        total += view
    # The other quarters are mirror images of the first, which therefore counts fourfold: twice the length.
    total *= 2 / 8
    return total[:, : SIDE // 2, : SIDE // 2].reshape(len(total), -1)
