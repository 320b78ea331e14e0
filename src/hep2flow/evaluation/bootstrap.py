"""The specimen-clustered bootstrap: its intervals generalise to other specimens, not only to other cells of the same."""

import numpy as np
import numpy.typing as npt
import pandas as pd

SPECIMEN_BOOTSTRAP = "specimen-clustered bootstrap"
CELL_BOOTSTRAP = "cell bootstrap: specimens unknown"
ONE_SPECIMEN_BOOTSTRAP = "cell bootstrap: only one specimen"
RESAMPLES = 1000

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def score_intervals(
    truth: Integers, predicted: Integers, specimens: "pd.Series[str]", classes: int, bootstrap: int, seed: int
) -> tuple[dict[str, tuple[float, float]], str]:
    """95 % percentile intervals of ACA, MCA and macro F1, each the mean over seeds.

    A class whose specimens were not drawn is left out of that resample's means. A skewed bootstrap distribution may
    leave the point estimate outside its percentiles: the interval is widened to include it.

    Args:
        truth: Class of each cell, (cells,).
        predicted: The same as each training predicts it, (seeds, cells).
        specimens: Of each cell, (cells,); what :func:`specimen_clusters` takes.
        classes: Number of classes.
        bootstrap: Number of resamples.
        seed: Of the draw.

    Returns:
        Low and high by metric, in [0, 1], and the method's name.
    """
    groups, method = specimen_clusters(specimens)
    seeds = len(predicted)
    # ACA, MCA and F1 follow from the confusion matrix alone, so a resample is a sum of the units' confusion matrices.
    entries = (truth * classes + predicted).T
    if groups is None:
        entries, counts = np.unique(entries, axis=0, return_counts=True)
        groups = np.arange(len(entries))
    else:
        counts = np.ones(int(groups.max()) + 1, dtype=np.int64)
    confusions = np.zeros((len(counts), seeds, classes**2))
    np.add.at(confusions, (groups[:, None], np.arange(seeds), entries), 1)
    units = confusions.reshape(len(counts), -1)
    drawn = resample(units, counts, bootstrap, seed)
    observed = counts.astype(np.float64) @ units
    samples, points = (_scores(sums.reshape(-1, seeds, classes, classes)) for sums in (drawn, observed))
    return {name: interval_with(points[name].item(), values) for name, values in samples.items()}, method


def interval_with(point: float, samples: Floats) -> tuple[float, float]:
    """95 % percentile interval of a bootstrap, NaN aside, widened to include the point estimate."""
    low, high = np.nanpercentile(samples, [2.5, 97.5])
    return min(float(low), point), max(float(high), point)


def specimen_clusters(specimens: "pd.Series[str]") -> tuple[Integers | None, str]:
    """Specimen number of every cell (None where cells have to be drawn one by one), and the method's name."""
    if specimens.isna().any():
        return None, CELL_BOOTSTRAP
    groups = pd.factorize(specimens, sort=True)[0].astype(np.int64)
    # Drawing the only specimen again and again would claim an interval of width zero.
    return (groups, SPECIMEN_BOOTSTRAP) if groups.max() > 0 else (None, ONE_SPECIMEN_BOOTSTRAP)


def resample(units: Floats, counts: Integers, bootstrap: int = RESAMPLES, seed: int = 0) -> Floats:
    """Sums over units drawn with replacement, as many as there are in all.

    Args:
        units: Statistics of each distinct unit, (distinct units, statistics).
        counts: How many units are of each kind, (distinct units,).
        bootstrap: Number of resamples.
        seed: Of the draw.

    Returns:
        The sums, (bootstrap, statistics).
    """
    total = int(counts.sum())
    drawn = np.random.default_rng(seed).multinomial(total, counts / total, size=bootstrap)
    return np.asarray(drawn.astype(np.float64) @ units)


def _scores(confusions: Floats) -> dict[str, Floats]:
    """ACA, MCA and macro F1, each the mean over seeds: (n, seeds, classes, classes) -> (n,)."""
    hits = np.diagonal(confusions, axis1=2, axis2=3)
    support, called = confusions.sum(axis=3), confusions.sum(axis=2)
    present = np.where(support > 0, 1.0, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        recalls = hits / support * present
        f1 = 2 * hits / (support + called) * present
    return {
        "aca": (hits.sum(axis=2) / support.sum(axis=2)).mean(axis=1),
        "mca": np.nanmean(recalls, axis=2).mean(axis=1),
        "macro_f1": np.nanmean(f1, axis=2).mean(axis=1),
    }
