"""Room for more workers counts once it stays."""

from __future__ import annotations

import threading
from itertools import chain, repeat

import pytest

from hep2flow.distributed import capacity


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "SECONDS", 0.001)


def grown(looks: list[int]) -> list[int]:
    """With what ``grow`` was called while the cluster had this room, look after look, and none after."""
    room, over, calls = chain(looks, repeat(0)), threading.Event(), list[int]()
    left = iter(range(len(looks) + 10))

    def look() -> int:
        if next(left, None) is None:
            over.set()
        return next(room)

    def grow(more: int) -> None:
        calls.append(more)
        over.set()

    with capacity.watched(look, grow):
        assert over.wait(10)
    return calls


def test_room_that_stays_is_used_once() -> None:
    assert grown([0, 0, 1, 2, 2, 2, 2]) == [2]


def test_room_that_comes_and_goes_is_not() -> None:
    assert grown([1, 1, 0, 1, 1, 0, 3, 0]) == []
