"""Two models, or two trainings of one, on the same cells: how far apart, and whether chance alone would part them so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from hep2flow.evaluation.bootstrap import Integers, clusters, resample

ENUMERATED = 14  # specimens, as many as ICPR 2012's test set has: 16,384 ways to set their signs


class OtherCellsError(ValueError):
    """What shall be compared cell by cell is not of the same cells."""

    def __init__(self) -> None:
        super().__init__("the predictions are not all of the same cells")


def paired_difference(
    first: Sequence[pd.DataFrame],
    second: Sequence[pd.DataFrame],
    cells: pd.DataFrame,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """ACA of ``first`` minus ACA of ``second`` on the same cells, with a paired bootstrap interval.

    first, second: predictions with cell_id, truth, predicted, all of the same cells; one table per seed, at least one
    cells:         cell_id, specimen_id (nullable)

    Returns ``difference`` and ``ci95`` [low, high], both in [-1, 1], ``ci95_method``, ``first`` and ``second`` (mean ACA
    over the side's seeds), and for both sides ``seeds`` (how many) and ``seed_sd`` (standard deviation of ACA over them,
    None for one).
    Specimens, or cells where specimens are unknown, are drawn once for all predictions, so that what is hard for all
    cancels out. Seeds are averaged, not drawn: the interval tells of other cells, ``seed_sd`` of other seeds.

    Raises OtherCellsError where they do not hold the same cells.
    """
    both, gain, groups, method = _paired(first, second, cells)
    # Per unit of the bootstrap: cells the first gains, cells in all.
    if groups is None:
        # Kinds by first appearance, not by size: with the sides swapped the same cells are drawn.
        kinds, values = pd.factorize(gain.to_numpy())
        units, counts = np.stack([values, np.ones(len(values))], axis=1), np.bincount(kinds)
    else:
        units = np.stack([np.bincount(groups, weights=gain), np.bincount(groups).astype(float)], axis=1)
        counts = np.ones(len(units), dtype=np.int64)
    drawn = resample(units, counts, bootstrap, seed)
    difference = float(gain.mean())
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    each = [side.mean(axis=1) for side in both]
    return {
        "difference": difference,
        "ci95": [min(float(low), difference), max(float(high), difference)],
        "ci95_method": method,
        "first": float(each[0].mean()),
        "second": float(each[1].mean()),
        "seeds": [len(accuracies) for accuracies in each],
        "seed_sd": [float(accuracies.std()) if len(accuracies) > 1 else None for accuracies in each],
    }


def permutation_test(
    first: Sequence[pd.DataFrame],
    second: Sequence[pd.DataFrame],
    cells: pd.DataFrame,
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Whether chance alone would part the ACA of ``first`` and ``second`` so far (Fisher's permutation of paired data).

    first, second, cells: as in :func:`paired_difference`
    draws:                random ways to set the signs, where there are too many to try all
    seed:                 of the draws

    Were neither side better, the gain of any specimen might as well have the other sign: p is the share of the ways to
    set the signs, the observed one among them, that part the sides at least as far. Specimens without a gain leave it as
    it is. Seeds are averaged first.

    Returns ``p`` (two-sided, in (0, 1]), ``lowest_p`` (were all gains on one side), ``unit`` (specimen; cell, where
    specimens are unknown or there is but one), ``units`` (how many), ``moved`` (how many of them have a gain), ``ways``
    (to set the signs, that were tried) and ``exact`` (whether those are all).

    Raises OtherCellsError where they do not hold the same cells.
    """
    from scipy.stats import permutation_test as permute

    _, gain, groups, _ = _paired(first, second, cells)
    gains = gain.to_numpy() if groups is None else np.bincount(groups, weights=gain)
    # In whole numbers, so that what is equally far apart is so to the last digit.
    gains = np.rint(gains * len(first) * len(second))
    moved = gains[gains != 0]
    exact = len(moved) <= ENUMERATED
    ways = 2 ** len(moved) if exact else draws
    p = 1.0  # of a single gain both signs come as far
    if len(moved) > 1:
        found = permute(
            (moved,),
            lambda signed, axis: np.abs(signed.sum(axis=axis)),
            permutation_type="samples",
            alternative="greater",
            vectorized=True,
            n_resamples=ways,
            batch=1000,
            random_state=np.random.default_rng(seed),
        )
        p = float(found.pvalue)
    return {
        "p": p,
        "lowest_p": min(1.0, 2 / ways) if exact else 1 / (draws + 1),
        "unit": "cell" if groups is None else "specimen",
        "units": len(gains),
        "moved": len(moved),
        "ways": ways,
        "exact": exact,
    }


def mcnemar(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, Any]:
    """McNemar's test, exact: do the cells that only one of two trainings has right lean to one side?

    first, second: predictions of one training each with cell_id, truth, predicted, of the same cells

    Returns ``first_only`` and ``second_only`` (cells that only it has right) and ``p`` (two-sided, in (0, 1]). It takes
    cells for independent, which those of one specimen are not: its p is too small wherever specimens are of several cells.

    Raises OtherCellsError where they do not hold the same cells.
    """
    from scipy.stats import binomtest

    _same_cells([first, second])
    ours, theirs = _correct(first), _correct(second)
    first_only, second_only = int((ours > theirs).sum()), int((ours < theirs).sum())
    apart = first_only + second_only
    p = float(binomtest(first_only, apart, 0.5).pvalue) if apart else 1.0
    return {"first_only": first_only, "second_only": second_only, "p": p}


def _paired(
    first: Sequence[pd.DataFrame], second: Sequence[pd.DataFrame], cells: pd.DataFrame
) -> tuple[list[pd.DataFrame], pd.Series[float], Integers | None, str]:
    """Both sides' hits (seeds, cells); each cell's gain, averaged over seeds; and the cells' clusters."""
    _same_cells([*first, *second])
    both = [pd.DataFrame([_correct(table) for table in side]) for side in (first, second)]
    gain = both[0].mean() - both[1].mean()
    groups, method = clusters(cells.set_index("cell_id")["specimen_id"].reindex(gain.index))
    return both, gain, groups, method


def _same_cells(tables: Sequence[pd.DataFrame]) -> None:
    truths = [table.set_index("cell_id")["truth"].sort_index() for table in tables]
    if not all(truth.equals(truths[0]) for truth in truths):
        raise OtherCellsError


def _correct(table: pd.DataFrame) -> pd.Series[float]:
    """1 for each cell predicted right, 0 for the others, by cell_id in order."""
    indexed = table.set_index("cell_id").sort_index()
    right: pd.Series[float] = (indexed["truth"] == indexed["predicted"]).astype(float)
    return right
