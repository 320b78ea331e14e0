"""Capacity for more workers counts once it is stable."""

from __future__ import annotations

import threading
from itertools import chain, repeat

import pytest

from hep2flow.distributed import capacity


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "POLL_SECONDS", 0.001)


def growth_calls(polls: list[int]) -> list[int]:
    """Arguments of ``on_growth`` while the polls found these numbers of free workers, and none afterwards."""
    free, over, calls = chain(polls, repeat(0)), threading.Event(), list[int]()
    remaining = iter(range(len(polls) + 10))

    def count() -> int:
        if next(remaining, None) is None:
            over.set()
        return next(free)

    def on_growth(more: int) -> None:
        calls.append(more)
        over.set()

    with capacity.watch_capacity(count, on_growth):
        assert over.wait(10)
    return calls


def test_stable_capacity_is_used_once() -> None:
    assert growth_calls([0, 0, 1, 2, 2, 2, 2]) == [2]


def test_capacity_that_comes_and_goes_is_not_used() -> None:
    assert growth_calls([1, 1, 0, 1, 1, 0, 3, 0]) == []
