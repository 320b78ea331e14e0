"""Which cells an epoch shows, and in which order: a function of (seed, epoch) alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

Sampler = Literal["none", "balanced", "over", "under"]
Integers = npt.NDArray[np.int64]

Key = tuple[int, int, int]
"""(epoch, index, repeat): what a loader asks for, so that a draw depends on these and the cell alone.

repeat counts a cell's earlier showings in the same epoch: shown again, it is augmented anew.
"""


def cells_per_epoch(labels: torch.Tensor, sampler: Sampler) -> int:
    """How many cells an epoch shows; labels int64 (n,)."""
    counts = np.unique(labels.numpy(), return_counts=True)[1]
    if sampler == "over":
        return int(counts.max() * len(counts))
    if sampler == "under":
        return int(counts.min() * len(counts))
    return len(labels)


def training_keys(labels: torch.Tensor, epoch: int, batch_size: int, seed: int, sampler: Sampler) -> list[list[Key]]:
    """The epoch's cells in an order drawn from (seed, epoch), cut into batches; the last may be short.

    labels:  int64 (n,)
    sampler: see :class:`hep2flow.recipe.Train`
    """
    random = np.random.default_rng([seed, epoch])
    shown = random.permutation(_drawn(labels.numpy(), sampler, random))
    before: Counter[int] = Counter()
    keys: list[Key] = []
    for index in shown.tolist():
        keys.append((epoch, index, before[index]))
        before[index] += 1
    return [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]


def ordered_keys(indices: Iterable[int], batch_size: int) -> list[list[Key]]:
    """These cells, each once, in order."""
    keys: list[Key] = [(0, index, 0) for index in indices]
    return [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]


def _drawn(labels: Integers, sampler: Sampler, random: np.random.Generator) -> Integers:
    if sampler == "none":
        return np.arange(len(labels))
    patterns, counts = np.unique(labels, return_counts=True)
    groups = [np.flatnonzero(labels == pattern) for pattern in patterns]
    if sampler == "balanced":
        weights = 1.0 / counts[np.searchsorted(patterns, labels)]
        return random.choice(len(labels), len(labels), p=weights / weights.sum())
    if sampler == "under":
        return np.concatenate([random.permutation(group)[: counts.min()] for group in groups])
    return np.concatenate([_repeated(group, int(counts.max()), random) for group in groups])


def _repeated(group: Integers, count: int, random: np.random.Generator) -> Integers:
    """``count`` of the group: all of it as often as it fits, then a sample of it."""
    rounds, rest = divmod(count, len(group))
    return np.concatenate([np.tile(group, rounds), random.permutation(group)[:rest]])
