"""Which cells an epoch shows."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hep2flow.data.sampling import Sampler, cells_per_epoch, ordered_keys, training_keys

SAMPLERS: list[Sampler] = ["none", "balanced", "over", "under"]
LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=60).map(torch.tensor)


def shown(labels: torch.Tensor, sampler: Sampler, epoch: int = 1, seed: int = 0) -> list[tuple[int, int]]:
    keys = [key for batch in training_keys(labels, epoch, 7, seed, sampler) for key in batch]
    assert {key[0] for key in keys} == {epoch}
    return [(index, repeat) for _, index, repeat in keys]


def test_every_cell_once_per_epoch_in_another_order_each_time() -> None:
    labels = torch.arange(361) % 6
    first, second = (shown(labels, "none", epoch) for epoch in (1, 2))
    assert sorted(first) == sorted(second) == [(index, 0) for index in range(361)]
    assert first != second
    assert [len(batch) for batch in training_keys(labels, 1, 32, 0, "none")] == [32] * 11 + [9]


@given(LABELS, st.sampled_from(SAMPLERS), st.integers(0, 5), st.integers(1, 5))
def test_an_epoch_is_a_function_of_seed_and_epoch(
    labels: torch.Tensor, sampler: Sampler, seed: int, epoch: int
) -> None:
    once, again = (training_keys(labels, epoch, 7, seed, sampler) for _ in range(2))
    assert once == again
    assert sum(map(len, once)) == cells_per_epoch(labels, sampler)
    assert len(once) == math.ceil(cells_per_epoch(labels, sampler) / 7)


@given(LABELS, st.sampled_from(SAMPLERS))
def test_repeats_of_a_cell_are_numbered(labels: torch.Tensor, sampler: Sampler) -> None:
    keys = shown(labels, sampler)
    for index in {index for index, _ in keys}:
        repeats = [repeat for other, repeat in keys if other == index]
        assert repeats == list(range(len(repeats)))


@given(LABELS)
def test_over_sampling_shows_every_cell_and_every_pattern_as_often_as_the_largest(labels: torch.Tensor) -> None:
    drawn = Counter(index for index, _ in shown(labels, "over"))
    assert set(drawn) == set(range(len(labels)))
    patterns = Counter(int(labels[index]) for index in drawn.elements())
    assert set(patterns.values()) == {max(Counter(labels.tolist()).values())}
    for pattern in patterns:
        times = [count for index, count in drawn.items() if labels[index] == pattern]
        assert max(times) - min(times) <= 1, "no cell is shown twice before all others of its pattern are"


@given(LABELS)
def test_under_sampling_shows_every_pattern_as_often_as_the_smallest_and_no_cell_twice(labels: torch.Tensor) -> None:
    drawn = Counter(index for index, _ in shown(labels, "under"))
    assert set(drawn.values()) == {1}
    patterns = Counter(int(labels[index]) for index in drawn)
    assert patterns == dict.fromkeys(set(labels.tolist()), min(Counter(labels.tolist()).values()))


def test_under_sampling_shows_other_cells_each_epoch() -> None:
    labels = torch.tensor([0] * 100 + [1] * 5)
    assert {index for index, _ in shown(labels, "under", 1)} != {index for index, _ in shown(labels, "under", 2)}


def test_balanced_draws_make_every_pattern_equally_likely() -> None:
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    patterns = Counter(int(labels[index]) for epoch in range(10) for index, _ in shown(labels, "balanced", epoch))
    assert sum(patterns.values()) == 10_000
    # 3,333 each expected, standard deviation 47.
    assert all(abs(count - 10_000 / 3) < 5 * np.sqrt(10_000 * 2 / 9) for count in patterns.values())


@pytest.mark.parametrize("count", [0, 1, 10])
def test_ordered_keys_hold_every_cell_once(count: int) -> None:
    assert [index for batch in ordered_keys(range(count), 4) for _, index, _ in batch] == list(range(count))
