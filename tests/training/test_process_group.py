"""Several workers: every cell once, and the numbers of one worker."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed

from hep2flow.data.batch import Batch, BatchMixer
from hep2flow.data.seeding import seeded
from hep2flow.recipe import load_recipe
from hep2flow.training.process_group import ProcessGroup
from tests.training.builders import tiny, trained


@given(st.integers(1, 70), st.integers(1, 9))
def test_every_cell_of_a_batch_is_in_one_share_and_shares_are_as_large_as_they_can_be(cells: int, size: int) -> None:
    batch = list(range(cells))
    shares = [ProcessGroup(rank, size).shard(batch) for rank in range(size)]
    assert sorted(index for share in shares for index in share) == batch
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 2


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 100))
def test_shares_mixed_each_for_itself_are_the_batch_mixed(cells: int, size: int, seed: int) -> None:
    mixer = BatchMixer(load_recipe("convnext-b"), 6)
    whole = Batch(torch.rand(cells, 3, 8, 8), torch.rand(cells, 1), torch.arange(cells) % 6)
    with seeded(seed):
        expected = mixer(whole._replace(images=whole.images.clone()))
    for rank in range(size):
        share = ProcessGroup(rank, size).shard(range(cells))
        if share:
            with seeded(seed):
                mixed = mixer(Batch(*(tensor[share] for tensor in whole)))
            for ours, theirs in zip(mixed, expected, strict=True):
                assert torch.equal(ours, theirs[share])


History = list[tuple[float, float, float, bool]]


def worker(rank: int, size: int, port: int, overrides: list[str], folder: Path) -> History:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    if size > 1:
        distributed.init_process_group("gloo", rank=rank, world_size=size)
    epochs, _, _ = trained(tiny(*overrides), folder / f"{size}-{rank}")
    if size > 1:
        distributed.destroy_process_group()
    return [(epoch.train_loss, epoch.val_loss, epoch.val_accuracy, epoch.best) for epoch in epochs]


@pytest.fixture(scope="module")
def processes() -> Iterator[list[ProcessPoolExecutor]]:
    """Two of them, for all tests: each imports torch and timm, which takes longer than what it trains."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as first, ProcessPoolExecutor(1, context) as second:
        yield [first, second]


def run(processes: list[ProcessPoolExecutor], overrides: list[str], folder: Path) -> list[History]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    size = len(processes)
    histories = [process.submit(worker, rank, size, port, overrides, folder) for rank, process in enumerate(processes)]
    return [history.result(timeout=300) for history in histories]


@pytest.mark.parametrize(
    "overrides",
    [
        ["batch.mixup=0.8", "batch.cutmix=1", "train.ema=0.9"],
        ["train.batch_size=11", "train.clipping=0.5", "train.sampler=over"],
        ["model.network=coat_lite_tiny", "model.layer_scale=null", "model.aux_features=[radius]"],
        ["model.weights=x", "optim.freeze=stages:2", "optim.unfreeze_every=1", "train.accumulation=5"],
        # With batch norms, whose statistics are those of both workers' cells; parts of one cell leave the other worker
        # one that counts for nothing. Plain gradient descent, because Adam makes steps of full length out of the rounding
        # of gradients that are zero, as those of an attention's key biases are.
        ["model.network=test_coatnet", "model.layer_scale=null", "model.image_size=64", "optim.name=sgd"],
        [
            "model.network=test_resnet",
            "model.layer_scale=null",
            "optim.name=sgd",
            "train.batch_size=5",
            "train.ema=0.9",
        ],
        [
            "model.network=test_resnet",
            "model.layer_scale=null",
            "optim.name=sgd",
            "train.batch_size=5",
            "train.accumulation=5",
        ],
    ],
)
def test_two_workers_learn_what_one_learns(
    overrides: list[str], processes: list[ProcessPoolExecutor], tmp_path: Path
) -> None:
    keys = ["train.validate_every=1", *overrides]
    (alone,) = run(processes[:1], keys, tmp_path)
    first, second = run(processes, keys, tmp_path)
    assert first == second, "every worker tells the same"
    for one, two in zip(alone, first, strict=True):
        assert two[:2] == pytest.approx(one[:2], rel=1e-5)
        assert two[2:] == one[2:]
    assert (tmp_path / "2-0" / "best.safetensors").exists()
    assert not (tmp_path / "2-1" / "best.safetensors").exists(), "one of them writes"
