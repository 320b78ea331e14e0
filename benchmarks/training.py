"""A laptop recipe's training on the synthetic twin: what bench_step, bench_loop and bench_timm measure."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from measure import hep2flow
from work import CPU, Cells, TrainingParts

from hep2flow.data.cell_set import required_columns
from hep2flow.distributed.checkpoint_uploader import CheckpointUploader
from hep2flow.distributed.status_reporter import StatusReporter
from hep2flow.recipe import load_recipe
from hep2flow.store.datasets import open_dataset
from hep2flow.store.s3 import Store
from hep2flow.store.splits import read_split
from hep2flow.store.training_status import TrainingStatus
from hep2flow.training.trainer import Callbacks, Progress

RECIPES = ("convnext-b", "coat-mini")  # their laptop stand-ins


def twin_in_store(folder: Path) -> tuple[str, str]:
    """URIs of the full synthetic twin as a data set, and of its split."""
    twin = str(folder / "twin")
    hep2flow("data", "synth", twin)
    dataset = hep2flow("ingest", "--source", twin, "--json").json()["uri"]
    return dataset, hep2flow("split", "--dataset", dataset, "--json").json()["uri"]


def laptop_training(store: Store, dataset: str, split_uri: str, name: str, epochs: int) -> TrainingParts:
    """A laptop recipe on the cells of a store, ``epochs`` long, on one thread."""
    torch.set_num_threads(1)
    recipe = load_recipe(name, "laptop", [f"train.epochs={epochs}", "train.max_updates=null"])
    opened, split = open_dataset(store, dataset), read_split(store, split_uri)
    training, validation = (
        opened.rows(set(split.ids(subset)), required_columns(recipe)) for subset in ("train", "val")
    )
    return TrainingParts(recipe, Cells(opened.manifest["labels"], opened.manifest["bits"], training, validation), CPU)


def run_as_worker(parts: TrainingParts, store: Store, mid_epoch: Callable[[int], None]) -> None:
    """Train as a worker does.

    mid_epoch: called in the middle of each epoch (from 1), when the state of the one before is long uploaded
    """
    prefix = "trainings/benchmark"
    reporter = StatusReporter(TrainingStatus(store, prefix), lambda: False)
    reporter.start()

    with tempfile.TemporaryDirectory() as name:
        folder, uploader = Path(name) / "training", CheckpointUploader(store, prefix, 2, None)
        folder.mkdir()

        def on_progress(progress: Progress) -> None:
            reporter.progress = asdict(progress)
            per_epoch = len(parts.keys[0])
            if progress.update % per_epoch == per_epoch // 2:
                mid_epoch(progress.epoch)

        callbacks = Callbacks(uploader.upload, on_progress=on_progress, stop_requested=reporter.stop_requested.is_set)
        parts.run_training(folder, callbacks)
        uploader.wait()
    reporter.close()


def cpu_seconds(action: Callable[[], None]) -> float:
    """CPU seconds of this process, all its threads."""
    start = time.process_time()
    action()
    return time.process_time() - start
