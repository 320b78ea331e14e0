"""Two models, or two trainings of one, on the same cells: their difference, and whether chance alone explains it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from hep2flow.evaluation.bootstrap import Integers, interval_with, resample, specimen_clusters

Predictions = Sequence[pd.DataFrame]  # of one side: a table with cell_id, truth, predicted for each seed
ENUMERATED = 14  # specimens, as many as ICPR 2012's test set has: all 16,384 sign assignments are tried


class DifferentCellsError(ValueError):
    """Predictions to be compared cell by cell are not of the same cells."""

    def __init__(self) -> None:
        super().__init__("the predictions are not all of the same cells")


def paired_difference(first: Predictions, second: Predictions, cells: pd.DataFrame) -> dict[str, Any]:
    """ACA of ``first`` minus ACA of ``second`` on the same cells, with a paired bootstrap interval.

    Specimens, or cells where specimens are unknown, are drawn once for all predictions, so that what is hard for all
    cancels out. Seeds are averaged, not drawn: the interval covers other cells, ``seed_sd`` other seeds.

    Args:
        first: Predictions with cell_id, truth, predicted; one table per seed, at least one.
        second: The same of the other side; every table holds the same cells.
        cells: cell_id, specimen_id (nullable).

    Returns:
        ``difference`` and ``ci95`` [low, high], both in [-1, 1], ``ci95_method``, ``first`` and ``second`` (mean ACA
        over the side's seeds), and for both sides ``seeds`` (how many) and ``seed_sd`` (standard deviation of ACA over
        them, None for one).

    Raises:
        DifferentCellsError: The tables do not hold the same cells.
    """
    sides, gain, groups, method = _paired_gains(first, second, cells)
    # Per unit of the bootstrap: cells the first gains, all cells.
    if groups is None:
        # Kinds in the order of first appearance, not of size: with the sides swapped the same cells are drawn.
        kinds, values = pd.factorize(gain.to_numpy())
        units, counts = np.stack([values, np.ones(len(values))], axis=1), np.bincount(kinds)
    else:
        units = np.stack([np.bincount(groups, weights=gain), np.bincount(groups).astype(float)], axis=1)
        counts = np.ones(len(units), dtype=np.int64)
    drawn = resample(units, counts)
    difference = float(gain.mean())
    each = [side.mean(axis=1) for side in sides]
    return {
        "difference": difference,
        "ci95": list(interval_with(difference, drawn[:, 0] / drawn[:, 1])),
        "ci95_method": method,
        "first": float(each[0].mean()),
        "second": float(each[1].mean()),
        "seeds": [len(accuracies) for accuracies in each],
        "seed_sd": [float(accuracies.std()) if len(accuracies) > 1 else None for accuracies in each],
    }


def permutation_test(
    first: Predictions, second: Predictions, cells: pd.DataFrame, *, draws: int = 10_000, seed: int = 0
) -> dict[str, Any]:
    """Two-sided sign-flip permutation test of the difference in ACA (Fisher's, for paired data).

    If neither side is better, the gain of any specimen could as well have the opposite sign: p is the share of sign
    assignments, the observed one included, whose absolute sum of gains is at least the observed one. Specimens without
    a gain do not change it. Seeds are averaged first. Predictions and cells are as in :func:`paired_difference`; ``draws``
    is the number of random sign assignments, where there are too many to try all.

    Returns:
        ``p`` in (0, 1], ``lowest_p`` (the p of gains that are all on one side), ``unit`` (specimen; cell, where
        specimens are unknown or there is only one), ``units`` (how many), ``moved`` (how many of them have a gain),
        ``ways`` (sign assignments tried) and ``exact`` (whether these are all).

    Raises:
        DifferentCellsError: The tables do not hold the same cells.
    """
    from scipy.stats import permutation_test as scipy_permutation_test

    _, gain, groups, _ = _paired_gains(first, second, cells)
    gains = gain.to_numpy() if groups is None else np.bincount(groups, weights=gain)
    # Whole numbers compare exactly: sums that are equal in theory must be equal in the last digit.
    gains = np.rint(gains * len(first) * len(second))
    moved = gains[gains != 0]
    exact = len(moved) <= ENUMERATED
    ways = 2 ** len(moved) if exact else draws
    p = 1.0  # both signs of a single gain are equally far from zero
    if len(moved) > 1:
        test = scipy_permutation_test(
            (moved,),
            lambda signed, axis: np.abs(signed.sum(axis=axis)),
            permutation_type="samples",
            alternative="greater",
            vectorized=True,
            n_resamples=ways,
            batch=1000,
            random_state=np.random.default_rng(seed),
        )
        p = float(test.pvalue)
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
    """McNemar's exact test: does one of two trainings alone classify more cells correctly than the other alone?

    Both tables have cell_id, truth, predicted, of one training each. The test takes cells as independent, which those of one
    specimen are not: its p is too small where specimens have several cells.

    Returns:
        ``first_only`` and ``second_only`` (cells that only this one has right) and ``p`` (two-sided, in (0, 1]).

    Raises:
        DifferentCellsError: The tables do not hold the same cells.
    """
    from scipy.stats import binomtest

    _check_same_cells([first, second])
    ours, theirs = _correct(first), _correct(second)
    first_only, second_only = int((ours > theirs).sum()), int((ours < theirs).sum())
    discordant = first_only + second_only
    p = float(binomtest(first_only, discordant, 0.5).pvalue) if discordant else 1.0
    return {"first_only": first_only, "second_only": second_only, "p": p}


def _paired_gains(
    first: Predictions, second: Predictions, cells: pd.DataFrame
) -> tuple[list[pd.DataFrame], "pd.Series[float]", Integers | None, str]:
    """Both sides' hits (seeds, cells); each cell's gain, averaged over seeds; and the cells' clusters."""
    _check_same_cells([*first, *second])
    sides = [pd.DataFrame([_correct(table) for table in side]) for side in (first, second)]
    gain = sides[0].mean() - sides[1].mean()
    groups, method = specimen_clusters(cells.set_index("cell_id")["specimen_id"].reindex(gain.index))
    return sides, gain, groups, method


def _check_same_cells(tables: Sequence[pd.DataFrame]) -> None:
    truths = [table.set_index("cell_id")["truth"].sort_index() for table in tables]
    if not all(truth.equals(truths[0]) for truth in truths):
        raise DifferentCellsError


def _correct(table: pd.DataFrame) -> "pd.Series[float]":
    """1 for each cell predicted correctly, 0 for the others, sorted by cell_id."""
    indexed = table.set_index("cell_id").sort_index()
    correct: pd.Series[float] = (indexed["truth"] == indexed["predicted"]).astype(float)
    return correct
