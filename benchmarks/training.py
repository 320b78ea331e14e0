"""A laptop recipe's training on the synthetic twin, in parts that bench_step, bench_loop and bench_timm measure."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import torch
from measure import hep2flow

from hep2flow.distributed.messenger import Messenger
from hep2flow.distributed.sender import Sender
from hep2flow.learning.augment import BatchMixer
from hep2flow.learning.batch import Batch
from hep2flow.learning.checkpoint import Description
from hep2flow.learning.data import CellSet, columns
from hep2flow.learning.files import Files
from hep2flow.learning.loop import Progress, fit
from hep2flow.learning.model import build_network
from hep2flow.learning.randomness import seeded
from hep2flow.learning.sampling import ordered_keys, training_keys
from hep2flow.learning.step import Step
from hep2flow.recipe import load_recipe
from hep2flow.store.datasets import open_dataset
from hep2flow.store.live import Live
from hep2flow.store.s3 import Store
from hep2flow.store.splits import read_split

RECIPES = ("convnext-b", "coat-mini")  # their laptop stand-ins
CPU = torch.device("cpu")


def twin_in_store(folder: Path) -> tuple[str, str]:
    """URIs of the full synthetic twin as a data set, and of its split."""
    twin = str(folder / "twin")
    hep2flow("data", "synth", twin)
    dataset = hep2flow("ingest", "--source", twin, "--json").json()["uri"]
    return dataset, hep2flow("split", "--dataset", dataset, "--json").json()["uri"]


class Work:
    """One recipe on the cells of a store, ``epochs`` long, on one thread; each method is a part of it."""

    def __init__(self, store: Store, dataset: str, division: str, name: str, epochs: int) -> None:
        torch.set_num_threads(1)
        recipe = load_recipe(name, "laptop", [f"train.epochs={epochs}", "train.max_updates=null"])
        self.store, self.recipe = store, recipe
        opened, split = open_dataset(store, dataset), read_split(store, division)
        self.labels, self.bits = opened.manifest["labels"], opened.manifest["bits"]

        def cells(ids: list[str], training: bool) -> CellSet:
            return CellSet(opened.rows(set(ids), columns(recipe)), self.labels, self.bits, recipe, training=training)

        self.training, self.validation = cells(split.ids("train"), True), cells(split.ids("val"), False)
        train = recipe.train
        self.keys = [
            training_keys(self.training.labels, epoch, train.batch_size, train.seed, train.sampler)
            for epoch in range(1, train.epochs + 1)
        ]
        self.mixer = BatchMixer(recipe, len(self.labels))
        self.images = sum(len(batch) for epoch in self.keys for batch in epoch)

    @cached_property
    def ready(self) -> list[Batch]:
        """The first epoch's batches, augmented and mixed."""
        return [self.mixer(batch) for batch in self.training.batches(self.keys[0])]

    @cached_property
    def shown(self) -> list[Batch]:
        """The validation's batches."""
        keys = ordered_keys(range(len(self.validation)), self.recipe.eval.batch_size)
        return list(self.validation.batches(keys))

    def network(self) -> torch.nn.Module:
        """A fresh one."""
        with seeded(0):
            return build_network(self.recipe.model, len(self.labels))

    def fitted(
        self,
        folder: Path,
        keep: Callable[[Files], None],
        on_batch: Callable[[Progress], None],
        leave: Callable[[], bool],
    ) -> None:
        """The loop alone: states, metrics and the best network in a folder, and nothing of it in the store."""
        fit(
            self.network(),
            self.recipe,
            self.training,
            self.validation,
            Description(self.recipe, self.labels, self.bits),
            folder,
            device=CPU,
            keep=keep,
            on_epoch=lambda epoch: None,
            on_batch=on_batch,
            leave=leave,
        )

    def whole(self) -> None:
        """As a worker trains."""
        prefix = "trainings/benchmark"
        messenger = Messenger(Live(self.store, prefix), lambda: False)
        messenger.start()

        with tempfile.TemporaryDirectory() as name:
            folder, sender = Path(name) / "training", Sender(self.store, prefix, 2, None)
            folder.mkdir()

            def on_batch(progress: Progress) -> None:
                messenger.progress = asdict(progress)

            self.fitted(folder, sender.send, on_batch, messenger.leave.is_set)
            sender.wait()
        messenger.close()

    def bare(self) -> None:
        """As many updates, on tensors that are there already."""
        network = self.network().train()
        step = Step(network, self.recipe, CPU)
        for epoch in self.keys:
            for batch, _ in zip(self.ready, epoch, strict=True):
                step(batch)

    def augmented(self) -> None:
        """The same batches, drawn, augmented and mixed, and thrown away."""
        for epoch in self.keys:
            for batch in self.training.batches(epoch):
                self.mixer(batch)

    @torch.inference_mode()
    def validated(self) -> None:
        """The validation's forward passes, on tensors that are there already."""
        network = self.network().eval()
        for _ in self.keys[:: self.recipe.train.validate_every]:
            for batch in self.shown:
                network(*batch.inputs(CPU))


def cpu_seconds(action: Callable[[], None]) -> float:
    """CPU seconds of this process, all its threads."""
    began = time.process_time()
    action()
    return time.process_time() - began
