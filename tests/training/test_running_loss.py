"""The loss of an epoch: the mean of its cells, however seldom it is read; and a training that reads it seldom."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from hep2flow.training.checkpoint import BEST, METRICS, STATE
from hep2flow.training.trainer import READ_EVERY, DivergedError, RunningLoss
from tests.training.builders import CPU, tiny, trained

IDS = [f"c{index}" for index in range(40)]
Batches = list[tuple[float, int]]
FINITE = st.lists(st.tuples(st.floats(0, 100, width=32), st.integers(1, 12)), min_size=1, max_size=12)


def running(batches: Batches, readings: set[int]) -> RunningLoss:
    """Fed with (mean loss, cells) of one batch after the other, and read after some of them."""
    loss = RunningLoss(3, IDS, 0, 0.0, CPU)
    for number, (mean, cells) in enumerate(batches, start=1):
        loss.add(torch.tensor(mean), number, [(3, index, 0) for index in range(cells)])
        if number in readings:
            loss.read()
    return loss


@given(batches=FINITE, readings=st.sets(st.integers(1, 12)))
def test_it_is_the_mean_of_the_cells_whenever_it_is_read(batches: Batches, readings: set[int]) -> None:
    loss = running(batches, readings)
    cells = sum(count for _, count in batches)
    assert loss.read() == pytest.approx(math.fsum(mean * count for mean, count in batches) / cells, rel=1e-12)
    assert loss.read() == running(batches, set()).read()
    assert loss.cells == cells


@given(
    before=st.lists(st.just((1.0, 2)), max_size=5), after=st.integers(0, 5), bad=st.sampled_from([math.nan, math.inf])
)
def test_the_first_that_is_no_number_is_named(before: Batches, after: int, bad: float) -> None:
    told = f"the loss is {bad} at epoch 3, update {len(before) + 1} (cells c0, c1, c2, …)"
    with pytest.raises(DivergedError) as stopped:
        running([*before, (bad, 3), *[(math.nan, 1)] * after], set()).read()
    assert told in str(stopped.value)


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU's loss is read: three updates make an epoch here, so at its end alone."""
    monkeypatch.setitem(READ_EVERY, "cpu", READ_EVERY["cuda"])


def test_seldom_readings_change_no_bit_and_no_line(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    recipe = tiny("augment.random_erasing.probability=0.5", "train.ema=0.9")
    always, told_always, kept_always = trained(recipe, tmp_path / "always")
    request.getfixturevalue("seldom")
    epochs, told, kept = trained(recipe, tmp_path / "seldom")
    assert kept.read_bytes() == kept_always.read_bytes()
    assert [epoch.train_loss for epoch in epochs] == [epoch.train_loss for epoch in always]
    assert [progress.update for progress in told] == [3, 6, 9]
    assert [progress.train_loss for progress in told] == [progress.train_loss for progress in told_always[2::3]]


@pytest.mark.usefixtures("seldom")
def test_what_lies_in_the_folder_is_of_the_epoch_before_a_divergence(tmp_path: Path) -> None:
    growing = ("optim.name=sgd", "schedule.name=constant", "schedule.warmup_updates=100", "optim.lr=10")
    with pytest.raises(DivergedError, match=r"epoch ([2-9]|\d\d), update "):
        trained(tiny(*growing, "train.clipping=null", "train.epochs=40"), tmp_path)
    for name in (BEST, STATE):
        assert all(torch.isfinite(tensor).all() for tensor in load_file(tmp_path / name).values()), name
    assert "NaN" not in (tmp_path / METRICS).read_text()


class Readings(TorchDispatchMode):
    """Counts what makes a host wait for its device: tensors' values asked for as numbers."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.numbers = self.lists = 0
        patch.setattr(torch.Tensor, "tolist", lambda tensor: self.listed(tensor))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.numbers += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))

    def listed(self, tensor: torch.Tensor, original: Any = torch.Tensor.tolist) -> Any:
        """A list is made without a dispatch."""
        self.lists += 1
        return original(tensor)


@pytest.mark.usefixtures("seldom")
def test_no_update_asks_for_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs of three and of twelve updates ask as often. With the fused optimizer: on a CPU the others ask for counters."""
    asked = []
    for size in (5, 1):
        with Readings(monkeypatch) as readings:
            trained(tiny("train.epochs=1", f"train.batch_size={size}", "optim.fused=true"), tmp_path / str(size))
        asked.append((readings.numbers, readings.lists))
    assert asked[0] == asked[1]
    assert min(asked[0]) > 0, "the count itself works: an epoch's end asks"
