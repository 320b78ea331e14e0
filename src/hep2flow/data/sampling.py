"""Which cells an epoch contains, and in which order: a function of (seed, epoch) alone."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

Sampler = Literal["none", "balanced", "over", "under"]
Integers = npt.NDArray[np.int64]

Key = tuple[int, int, int]
"""(epoch, index, repeat): what a CellSet is indexed by, so that augmentation depends on these and the cell alone.

repeat counts the earlier occurrences of a cell in the same epoch: each of them is augmented anew.
"""


def cells_per_epoch(labels: torch.Tensor, sampler: Sampler) -> int:
    """How many cells an epoch contains; labels int64 (n,)."""
    counts = np.unique(labels.numpy(), return_counts=True)[1]
    if sampler == "over":
        return int(counts.max() * len(counts))
    if sampler == "under":
        return int(counts.min() * len(counts))
    return len(labels)


def training_keys(labels: torch.Tensor, epoch: int, batch_size: int, seed: int, sampler: Sampler) -> list[list[Key]]:
    """The epoch's cells in an order drawn from (seed, epoch), in batches; the last may be smaller.

    Labels are int64 (n,), epochs count from 1, the batch size is that of all workers together; for samplers see
    :class:`hep2flow.recipe.Train`.
    """
    random = np.random.default_rng([seed, epoch])
    occurrences: Counter[int] = Counter()
    keys: list[Key] = []
    for index in random.permutation(_sampled(labels.numpy(), sampler, random)).tolist():
        keys.append((epoch, index, occurrences[index]))
        occurrences[index] += 1
    return _batched(keys, batch_size)


def ordered_keys(indices: Iterable[int], batch_size: int) -> list[list[Key]]:
    """These cells, each once, in order, in batches."""
    return _batched([(0, index, 0) for index in indices], batch_size)


def _batched(keys: list[Key], batch_size: int) -> list[list[Key]]:
    return [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]


def _sampled(labels: Integers, sampler: Sampler, random: np.random.Generator) -> Integers:
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
    """``count`` cells of the group: all of it as often as it fits, then a sample without replacement."""
    rounds, rest = divmod(count, len(group))
    return np.concatenate([np.tile(group, rounds), random.permutation(group)[:rest]])
