"""What a training costs beside its updates: seconds to the first one, and CPU seconds per image over the bare step's.

The bare step is forward, backward and update on tensors that are there already. The whole training draws, augments and
mixes its batches, validates, saves a state and sends it to the store after every epoch, and tells where it is. What
augmentation and the validation's own forward passes cost is measured apart and named: the excess is what remains.
Interleaved, in one process.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import torch
from measure import hep2flow, machine, own_store, tell

from hep2flow.distributed.messenger import Messenger
from hep2flow.learning.augment import BatchMixer
from hep2flow.learning.checkpoint import Description
from hep2flow.learning.data import CellSet, columns
from hep2flow.learning.loop import BEST, METRICS, STATE, Epoch, Progress, fit
from hep2flow.learning.model import build_network
from hep2flow.learning.randomness import seeded
from hep2flow.learning.sampling import ordered_keys, training_keys
from hep2flow.learning.step import Step
from hep2flow.recipe import Recipe, load_recipe
from hep2flow.store import resume
from hep2flow.store.datasets import open_dataset
from hep2flow.store.live import Live
from hep2flow.store.s3 import Store, open_store
from hep2flow.store.splits import read_split

LIMIT_EXCESS = 0.08
CPU = torch.device("cpu")


class Work:
    """One recipe on the cells of a store, in parts that can be measured one by one."""

    def __init__(self, store: Store, dataset: str, division: str, recipe: Recipe) -> None:
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
        self.ready = [self.mixer(batch) for batch in self.training.batches(self.keys[0])]
        self.shown = list(self.validation.batches(ordered_keys(range(len(self.validation)), recipe.eval.batch_size)))
        self.images = sum(len(batch) for epoch in self.keys for batch in epoch)

    def network(self) -> torch.nn.Module:
        """A fresh one."""
        with seeded(0):
            return build_network(self.recipe.model, len(self.labels))

    def whole(self) -> None:
        """As a worker trains."""
        prefix, saved = "trainings/benchmark", None
        messenger = Messenger(Live(self.store, prefix), lambda: False)
        messenger.start()

        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)

            def on_epoch(epoch: Epoch) -> None:
                nonlocal saved
                if (folder / STATE).exists():
                    fresh = [STATE, METRICS, *([BEST] if epoch.best else [])]
                    saved = resume.save(self.store, prefix, folder, (epoch.epoch, epoch.updates), fresh, saved, 2)

            def on_batch(progress: Progress) -> None:
                messenger.progress = asdict(progress)

            fit(
                self.network(),
                self.recipe,
                self.training,
                self.validation,
                Description(self.recipe, self.labels, self.bits),
                folder,
                device=CPU,
                on_epoch=on_epoch,
                on_batch=on_batch,
                leave=messenger.leave.is_set,
            )
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


def main() -> None:
    """Measure start-up from outside, then the pairs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="convnext-b")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=11)
    arguments = parser.parse_args()
    with own_store() as folder:
        twin = str(folder / "twin")
        hep2flow("data", "synth", twin)
        dataset = hep2flow("ingest", "--source", twin, "--json").json()["uri"]
        division = hep2flow("split", "--dataset", dataset, "--json").json()["uri"]
        at = machine()
        command = [
            "train",
            "--recipe",
            arguments.recipe,
            "--profile",
            "laptop",
            "--dataset",
            dataset,
            "--split",
            division,
        ]
        starts = [
            start_up([*command, "--set", "train.max_updates=2", "--set", f"train.seed={seed}"]) for seed in range(3)
        ]
        torch.set_num_threads(1)
        recipe = load_recipe(arguments.recipe, "laptop", [f"train.epochs={arguments.epochs}", "train.max_updates=null"])
        work = Work(open_store(), dataset, division, recipe)
        work.bare()  # the first passes are slower
        pairs = []
        for _ in range(arguments.pairs):
            names = ("bare", "whole", "augmented", "validated")
            pairs.append({name: cpu_seconds(getattr(work, name)) for name in names})
    excesses = [(one["whole"] - one["augmented"] - one["validated"]) / one["bare"] - 1 for one in pairs]
    excess = round(statistics.median(excesses), 4)
    each = {name: round(1000 * statistics.median(one[name] for one in pairs) / work.images, 3) for name in pairs[0]}
    tell(
        "training",
        excess,
        LIMIT_EXCESS,
        excess <= LIMIT_EXCESS,
        at,
        f"{excess:.1%} over the bare step; first update after {statistics.median(starts):.1f} s",
        recipe=recipe.title,
        epochs=arguments.epochs,
        images=work.images,
        excesses=[round(value, 4) for value in excesses],
        cpu_milliseconds_per_image=each,
        first_update_seconds=starts,
    )


def start_up(command: list[str]) -> float:
    """Seconds from the command to the end of its first update."""
    began = datetime.now().astimezone()
    result = hep2flow(*command, "--json").json()
    return round((datetime.fromisoformat(result["summary"]["timing"]["first_update"]) - began).total_seconds(), 2)


if __name__ == "__main__":
    main()
