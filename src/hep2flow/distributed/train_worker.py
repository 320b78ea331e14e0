"""One worker of a training: read its cells, train, publish the result in the store.

Ray's controller imports this module only to send ``run_worker`` to the workers, so torch is imported in its functions.
"""

from __future__ import annotations

import json
import platform
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from hep2flow.distributed.checkpoint_uploader import CheckpointUploader, delete_states, download_state
from hep2flow.distributed.status_reporter import StatusReporter
from hep2flow.errors import StoreError, UserError
from hep2flow.recipe import Recipe
from hep2flow.selected_on_test import protocol_note
from hep2flow.store.address import StoreAddress
from hep2flow.store.open_store import open_store
from hep2flow.store.publish import publish
from hep2flow.store.s3 import Store
from hep2flow.store.training_status import TrainingStatus
from hep2flow.tracking.tensorboard import write_events

if TYPE_CHECKING:
    import torch

    from hep2flow.data.cell_set import CellSet
    from hep2flow.store.datasets import Dataset
    from hep2flow.store.splits import Split
    from hep2flow.training.trainer import Callbacks, DivergedError, Epoch, Progress, Trainer

WorkerResult = Literal["completed", "stopped", "rejected"]


class TrainingSpec(BaseModel, extra="forbid"):
    """What a worker needs to train, in plain values; credentials come from the worker's environment."""

    store: StoreAddress
    recipe: Recipe
    dataset: str
    split: str
    prefix: str  # the training's in the store, ``trainings/{key}``
    weights: str | None = None  # store key of the initial weights (safetensors), None to start from scratch
    weights_origin: dict[str, Any] | None = None  # their origin, for the manifest


def run_worker(config: dict[str, Any]) -> WorkerResult:
    """Ray Train's loop per worker: a TrainingSpec as plain values in, a published training out.

    Returns:
        ``completed``; ``stopped`` on request, the state saved; ``rejected`` if the user has to fix something, which is
        then in the training's status files.

    Raises:
        Exception: Anything else, and on several workers what was rejected too. The training can be restarted from its last
            state, as after a killed process or machine.
    """
    from torch import distributed

    from hep2flow.distributed.resource_errors import as_resource_error
    from hep2flow.training.trainer import DivergedError

    spec = TrainingSpec.model_validate(config)
    # The reporter's own store client gives up soon on an outage, because it comes again; the training's waits.
    reporter = StatusReporter(TrainingStatus(open_store(spec.store), spec.prefix), _preempted)
    store = open_store(spec.store, reporter.notice)
    reporter.start()
    worker = _TrainWorker(spec, store, reporter)
    try:
        return worker.train()
    except Exception as error:
        named = as_resource_error(error, tempfile.gettempdir())  # a UserError as it is
        if isinstance(error, DivergedError):
            named = worker.with_best_network(error)
        if named is None:
            raise
        if worker.group.is_first or not isinstance(error, DivergedError):  # all ranks diverge at once
            TrainingStatus(store, spec.prefix).reject(str(named))
        if distributed.is_initialized() and distributed.get_world_size() > 1:
            raise  # only a failure ends the other workers, which wait for this one's gradients
        return "rejected"
    finally:
        reporter.close()


def _preempted() -> bool:
    """Whether Ray announced that a machine of this training is about to be taken away."""
    # Not ray.train.get_preemption_info, which waits for every worker at every call.
    from ray.train.v2._internal.execution.context import get_train_context

    return get_train_context().preemption_context.preemption_info is not None


def initial_network(
    store: Store, recipe: Recipe, labels: list[str], weights: str | None, folder: Path
) -> tuple[torch.nn.Module, list[str]]:
    """Set this process's threads, and build the network a training starts with, the same on every rank.

    Returns:
        The network, and the names of the head's tensors that the weights (a store key) did not replace.
    """
    import torch

    from hep2flow.data.seeding import derived_seed
    from hep2flow.network.freezing import check_freezing
    from hep2flow.network.model import build_network, check_network
    from hep2flow.training.load_weights import load_weights

    check_network(recipe.model)
    check_freezing(recipe)
    torch.set_num_threads(recipe.resources.cpus_per_worker)
    torch.manual_seed(derived_seed(recipe.train.seed, "weights"))
    network = build_network(recipe.model, len(labels))
    if weights is None:
        return network, []
    path = folder / "weights.safetensors"
    store.get_file(weights, path)
    return network, load_weights(network, path, recipe.model.weights, labels)


class _TrainWorker:
    def __init__(self, spec: TrainingSpec, store: Store, reporter: StatusReporter) -> None:
        import ray.train.torch

        from hep2flow.training.process_group import ProcessGroup

        self.spec, self.store, self.reporter = spec, store, reporter
        self.group = ProcessGroup.current()
        self.device: torch.device = ray.train.torch.get_device()
        self.uploader: CheckpointUploader
        self.progress: Progress
        self.first_update = ""

    def train(self) -> WorkerResult:
        from hep2flow.store.datasets import open_dataset
        from hep2flow.store.splits import read_split
        from hep2flow.training.checkpoint import Description
        from hep2flow.training.trainer import Trainer

        spec, recipe, started = self.spec, self.spec.recipe, time.monotonic()
        dataset, split = open_dataset(self.store, spec.dataset), read_split(self.store, spec.split)
        labels, selected = dataset.manifest["labels"], protocol_note(split.protocol)
        with tempfile.TemporaryDirectory(prefix="hep2flow-training-") as scratch:
            folder = Path(scratch) / "training"
            folder.mkdir()
            network, replaced = initial_network(self.store, recipe, labels, spec.weights, Path(scratch))
            cells = self._cells(dataset, split, "train"), self._cells(dataset, split, "val")
            description = Description(recipe, labels, dataset.manifest["bits"], selected["selected_on_test"])
            trainer = Trainer(network, description, *cells, folder, self.device, self._resume(folder))
            best = trainer.run()
            self.uploader.wait()
            if best is None:
                if self.group.is_first:
                    at = f"update {self.progress.update} in epoch {self.progress.epoch}"
                    self.reporter.notice(f"stopped at {at}, its state saved")
                return "stopped"
            if self.group.is_first:
                parameters = sum(parameter.numel() for parameter in network.parameters())
                facts = {"labels": labels, "weights_replaced": replaced, "parameters": parameters, **selected}
                self._publish(trainer, best, facts, time.monotonic() - started)
        return "completed"

    def _cells(self, dataset: Dataset, split: Split, subset: Literal["train", "val"]) -> CellSet:
        from hep2flow.data.cell_set import CellSet, required_columns

        recipe = self.spec.recipe
        # The parts of an official test set are not even downloaded.
        official_splits = {"train", None} if split.ids("test") else None
        rows = dataset.rows(set(split.ids(subset)), required_columns(recipe), official_splits)
        return CellSet(rows, dataset.manifest["labels"], dataset.manifest["bits"], recipe, training=subset == "train")

    def _resume(self, folder: Path) -> Callbacks:
        """Download the state to resume from, if there is one, and connect the trainer with store and status."""
        from hep2flow.training.trainer import Callbacks

        spec, reporter = self.spec, self.reporter
        saved = download_state(self.store, spec.prefix, folder, reporter.notice)
        if not self.group.all_equal(saved.updates if saved else 0, self.device):
            raise RuntimeError("the workers found different states to resume from")
        if saved and self.group.is_first:
            reporter.notice(f"resuming after epoch {saved.epoch}, update {saved.updates}")
        self.uploader = CheckpointUploader(self.store, spec.prefix, spec.recipe.resources.keep_states, saved)

        def on_progress(progress: Progress) -> None:
            self.first_update = self.first_update or datetime.now(timezone.utc).isoformat(timespec="milliseconds")
            if self.group.is_first:
                self.progress, reporter.progress = progress, asdict(progress)

        return Callbacks(self.uploader.upload, on_progress=on_progress, stop_requested=reporter.stop_requested.is_set)

    def with_best_network(self, error: DivergedError) -> UserError:
        """The error, and where the best network before it is saved."""
        from hep2flow.training.checkpoint import BEST

        with suppress(StoreError):
            self.uploader.wait()
        saved = self.uploader.saved
        if saved is None or BEST not in saved.files:
            return error
        uri = self.store.uri(saved.files[BEST])
        return UserError(f"{error}; the best network of epoch 1 to {saved.epoch} is saved at {uri}")

    def _publish(self, trainer: Trainer, best: Epoch, facts: dict[str, Any], seconds: float) -> None:
        import torch

        from hep2flow.training.checkpoint import METRICS

        spec, recipe, folder = self.spec, self.spec.recipe, trainer.folder
        status = TrainingStatus(self.store, spec.prefix)
        self.reporter.close()  # its last notices belong in the manifest; later ones would be left behind in the store
        events = folder / "tensorboard"
        events.mkdir()
        write_events([json.loads(line) for line in (folder / METRICS).read_text().splitlines()], events)
        (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
        hardware = f"{torch.get_num_threads()} thread(s) of {platform.machine()}"
        manifest = {
            "kind": "training",
            "network": recipe.model.network,
            "weights": spec.weights_origin,
            "dataset": spec.dataset,
            "split": spec.split,
            "train_cells": len(trainer.training),
            "val_cells": len(trainer.validation),
            "updates": trainer.length.updates,
            "epochs": trainer.length.epochs,
            "best": asdict(best),
            "seed": recipe.train.seed,
            **facts,
            "timing": {
                "train_seconds": seconds,
                "first_update": self.first_update,
                "images_per_second": best.images_per_second,
                "workers": self.group.world_size,
                "notices": [f"{note['at']} {note['text']}" for note in status.notices()],
            },
            "hardware": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else hardware,
        }
        publish(self.store, folder, spec.prefix, manifest)
        # The training is complete: an outage now must not fail it.
        with suppress(StoreError):
            status.clear()
        with suppress(StoreError):
            delete_states(self.store, spec.prefix)
