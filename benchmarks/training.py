"""A laptop recipe's training on the synthetic twin: what bench_step, bench_loop and bench_timm measure."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from measure import hep2flow
from work import CPU, Cells, Work

from hep2flow.data.cell_set import columns
from hep2flow.distributed.checkpoint_uploader import Sender
from hep2flow.distributed.status_reporter import Messenger
from hep2flow.recipe import load_recipe
from hep2flow.store.datasets import open_dataset
from hep2flow.store.s3 import Store
from hep2flow.store.splits import read_split
from hep2flow.store.training_status import Live
from hep2flow.training.trainer import Progress

RECIPES = ("convnext-b", "coat-mini")  # their laptop stand-ins


def twin_in_store(folder: Path) -> tuple[str, str]:
    """URIs of the full synthetic twin as a data set, and of its split."""
    twin = str(folder / "twin")
    hep2flow("data", "synth", twin)
    dataset = hep2flow("ingest", "--source", twin, "--json").json()["uri"]
    return dataset, hep2flow("split", "--dataset", dataset, "--json").json()["uri"]


def laptop_work(store: Store, dataset: str, division: str, name: str, epochs: int) -> Work:
    """A laptop recipe on the cells of a store, ``epochs`` long, on one thread."""
    torch.set_num_threads(1)
    recipe = load_recipe(name, "laptop", [f"train.epochs={epochs}", "train.max_updates=null"])
    opened, split = open_dataset(store, dataset), read_split(store, division)
    training, validation = (opened.rows(set(split.ids(subset)), columns(recipe)) for subset in ("train", "val"))
    return Work(recipe, Cells(opened.manifest["labels"], opened.manifest["bits"], training, validation), CPU)


def whole(work: Work, store: Store, in_epoch: Callable[[int], None]) -> None:
    """As a worker trains.

    in_epoch: called in the middle of each epoch (from 1), when the state of the one before is long sent
    """
    prefix = "trainings/benchmark"
    messenger = Messenger(Live(store, prefix), lambda: False)
    messenger.start()

    with tempfile.TemporaryDirectory() as name:
        folder, sender = Path(name) / "training", Sender(store, prefix, 2, None)
        folder.mkdir()

        def on_batch(progress: Progress) -> None:
            messenger.progress = asdict(progress)
            per_epoch = len(work.keys[0])
            if progress.update % per_epoch == per_epoch // 2:
                in_epoch(progress.epoch)

        work.fitted(folder, sender.send, on_batch, messenger.leave.is_set)
        sender.wait()
    messenger.close()


def cpu_seconds(action: Callable[[], None]) -> float:
    """CPU seconds of this process, all its threads."""
    began = time.process_time()
    action()
    return time.process_time() - began
