"""Loader workers and the memory that they share: what a container's 64 MiB lead to is said, not waited for."""

from __future__ import annotations

import shutil
import threading
from typing import NamedTuple

import pytest

from hep2flow.data import cell_set as module
from hep2flow.data import shared_memory
from hep2flow.data.sampling import training_keys
from hep2flow.data.shared_memory import check_shared_memory
from hep2flow.errors import UserError
from hep2flow.recipe import load_recipe
from tests.training.builders import cell_set

MIB = 2**20


class Usage(NamedTuple):
    free: int


@pytest.fixture
def a_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(64 * MIB))


@pytest.mark.usefixtures("a_containers")
def test_six_workers_at_224_pixels_do_not_fit_into_a_containers_shared_memory() -> None:
    batch = 32 * 3 * 224 * 224 * 4
    check_shared_memory(batch, workers=1)
    with pytest.raises(UserError, match=r"loader_workers: 6 workers hold up to 239 MiB .* has 64 MiB free.*--shm-size"):
        check_shared_memory(batch, workers=6)


def test_where_there_is_no_such_folder_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS shares memory elsewhere."""
    monkeypatch.setattr(shared_memory, "FOLDER", shared_memory.FOLDER / "not-there")
    check_shared_memory(2**60, workers=6)


@pytest.mark.usefixtures("a_containers")
def test_it_is_refused_before_the_first_batch() -> None:
    recipe = load_recipe(
        "convnext-b", "paper", ["model.image_size=224", "train.batch_size=128", "optim.lr_scaling=none"]
    )
    cells = cell_set(recipe)
    keys = training_keys(cells.labels, epoch=1, batch_size=5, seed=0, sampler="none")
    with pytest.raises(UserError, match=r"train\.loader_workers"):
        next(cells.batches(keys, workers=2))


def test_a_batch_that_never_comes_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_SECONDS", 1)
    cells = cell_set(load_recipe("convnext-b", "paper", ["model.image_size=32"]))
    monkeypatch.setattr(type(cells), "__getitems__", lambda *_: threading.Event().wait())
    keys = training_keys(cells.labels, epoch=1, batch_size=5, seed=0, sampler="none")
    with pytest.raises(UserError, match=r"no batch from 1 loader workers for 1 s.*/dev/shm"):
        next(cells.batches(keys, workers=1))
