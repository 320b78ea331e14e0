"""What one worker of a training does: read its cells, train, leave the result in the store.

Apart from the rest, because Ray's controller imports this module only to send it on: it needs no torch for that.
"""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from hep2flow.distributed import checkpoint_uploader
from hep2flow.distributed.checkpoint_uploader import Sender
from hep2flow.distributed.status_reporter import Messenger
from hep2flow.errors import StoreError, UserError
from hep2flow.recipe import Recipe
from hep2flow.selected_on_test import selection
from hep2flow.store.s3 import Store, StoreAddress, open_store
from hep2flow.store.training_status import Live
from hep2flow.tracking.tensorboard import write_events

if TYPE_CHECKING:
    import torch

    from hep2flow.data.cell_set import CellSet
    from hep2flow.store.splits import Split
    from hep2flow.training.running_loss import DivergedError
    from hep2flow.training.trainer import Epoch, Progress

End = Literal["done", "left", "refused"]


class TrainingSpec(BaseModel):
    """Everything a worker needs to train, in plain values; credentials come from the worker's environment.

    prefix:         where the training lies in the store, ``trainings/{key}``
    weights:        key of safetensors to start from, None to start from scratch
    weights_origin: what the manifest tells of where they are from
    """

    model_config = ConfigDict(extra="forbid")

    store: StoreAddress
    recipe: Recipe
    dataset: str
    split: str
    prefix: str
    weights: str | None = None
    weights_origin: dict[str, Any] | None = None


def work(config: dict[str, Any]) -> End:
    """Ray Train's loop per worker: a TrainingSpec as plain values in, a published training out.

    Returns ``done``; ``left`` where it was asked to leave and has saved its state; ``refused`` where the user has to mend
    something, which then stands in the training's notes (:class:`Live`), because Ray would start the worker again for it.
    Any other end, a killed process or machine among them, may be tried again: the training goes on from its last state.
    """
    from torch import distributed

    from hep2flow.distributed.resource_errors import exhausted
    from hep2flow.training.running_loss import DivergedError

    spec = TrainingSpec.model_validate(config)
    # The messenger has a store of its own, which gives up soon: it comes again.
    messenger = Messenger(Live(open_store(spec.store), spec.prefix), _preempted)
    store = open_store(spec.store, messenger.notice)
    messenger.start()
    worker = _Worker(spec, store, messenger)
    try:
        return worker.train()
    except Exception as error:
        told = worker.diverged(error) if isinstance(error, DivergedError) else exhausted(error, tempfile.gettempdir())
        if told is None:
            raise
        if worker.ranks.first or not isinstance(error, DivergedError):
            Live(store, spec.prefix).refuse(str(told))
        if distributed.is_initialized() and distributed.get_world_size() > 1:
            raise  # the other workers wait for this one's gradients
        return "refused"
    finally:
        messenger.close()


def _preempted() -> bool:
    """Whether Ray announced that a machine of this training is being taken away.

    ``ray.train.get_preemption_info`` says so too, but waits for every worker at every call.
    """
    from ray.train.v2._internal.execution.context import get_train_context

    return get_train_context().preemption_context.preemption_info is not None


class _Worker:
    """One worker's part of one training."""

    def __init__(self, spec: TrainingSpec, store: Store, messenger: Messenger) -> None:
        import ray.train.torch

        from hep2flow.training.process_group import Ranks

        self.spec, self.store, self.messenger = spec, store, messenger
        self.ranks = Ranks.current()
        self.device: torch.device = ray.train.torch.get_device()
        self.sender: Sender
        self.at: Progress
        self.first_update = ""

    def train(self) -> End:
        """From the store to the store."""
        import torch

        from hep2flow.data.seeding import derived_seed
        from hep2flow.network.freezing import check_freezing
        from hep2flow.network.model import build_network, check_network
        from hep2flow.store.datasets import open_dataset
        from hep2flow.store.splits import read_split
        from hep2flow.training.load_weights import load_weights

        spec, recipe, started = self.spec, self.spec.recipe, time.monotonic()
        check_network(recipe.model)
        check_freezing(recipe)
        torch.set_num_threads(recipe.resources.cpus_per_worker)
        dataset, split = open_dataset(self.store, spec.dataset), read_split(self.store, spec.split)
        labels, bits = dataset.manifest["labels"], dataset.manifest["bits"]
        training, validation = self._cells(dataset, split, "train"), self._cells(dataset, split, "val")

        torch.manual_seed(derived_seed(recipe.train.seed, "weights"))
        network = build_network(recipe.model, len(labels))
        with tempfile.TemporaryDirectory(prefix="hep2flow-training-") as scratch:
            folder = Path(scratch) / "training"
            folder.mkdir()
            replaced: list[str] = []
            if spec.weights is not None:
                weights = Path(scratch) / "weights.safetensors"
                self.store.get_file(spec.weights, weights)
                replaced = load_weights(network, weights, recipe.model.weights, labels)
            best = self._fit(network, training, validation, folder, labels, bits, selection(split.protocol))
            if best is None:
                return "left"
            if self.ranks.first:
                facts = {
                    "labels": labels,
                    "weights_replaced": replaced,
                    "parameters": sum(parameter.numel() for parameter in network.parameters()),
                    **selection(split.protocol),
                }
                self._publish(folder, best, training, validation, facts, time.monotonic() - started)
        return "done"

    def _cells(self, dataset: Any, split: Split, subset: Literal["train", "val"]) -> CellSet:
        from hep2flow.data.cell_set import CellSet, columns

        recipe = self.spec.recipe
        # Where there is a test subset, its parts are not even fetched.
        official_splits = {"train", None} if split.ids("test") else None
        rows = dataset.rows(set(split.ids(subset)), columns(recipe), official_splits)
        return CellSet(rows, dataset.manifest["labels"], dataset.manifest["bits"], recipe, training=subset == "train")

    def _fit(
        self,
        network: torch.nn.Module,
        training: CellSet,
        validation: CellSet,
        folder: Path,
        labels: list[str],
        bits: int,
        chosen_on: dict[str, Any],
    ) -> Epoch | None:
        from hep2flow.training.checkpoint import Description
        from hep2flow.training.trainer import fit

        saved = checkpoint_uploader.load(self.store, self.spec.prefix, folder, self.messenger.notice)
        if not self.ranks.agree(saved.updates if saved else 0, self.device):
            raise RuntimeError("the workers found different states to go on from")
        if saved and self.ranks.first:
            self.messenger.notice(f"goes on after epoch {saved.epoch}, update {saved.updates}")
        self.sender = Sender(self.store, self.spec.prefix, self.spec.recipe.resources.keep_states, saved)

        def on_batch(progress: Progress) -> None:
            self.first_update = self.first_update or datetime.now(timezone.utc).isoformat(timespec="milliseconds")
            if self.ranks.first:
                self.at, self.messenger.progress = progress, asdict(progress)

        best = fit(
            network,
            self.spec.recipe,
            training,
            validation,
            Description(self.spec.recipe, labels, bits, chosen_on["selected_on_test"]),
            folder,
            device=self.device,
            keep=self.sender.send,
            on_epoch=lambda epoch: None,
            on_batch=on_batch,
            leave=self.messenger.leave.is_set,
        )
        self.sender.wait()
        if best is None and self.ranks.first:
            self.messenger.notice(f"left at update {self.at.update}, in epoch {self.at.epoch}, its state saved")
        return best

    def diverged(self, error: DivergedError) -> UserError:
        """The error, and where the best network before it is kept."""
        from hep2flow.training.checkpoint import BEST

        _tolerate(self.sender.wait)
        saved = self.sender.saved
        if saved is None or BEST not in saved.files:
            return error
        kept = self.store.uri(saved.files[BEST])
        return UserError(f"{error}; the best network of epoch 1 to {saved.epoch} is kept at {kept}")

    def _publish(
        self,
        folder: Path,
        best: Epoch,
        training: CellSet,
        validation: CellSet,
        facts: dict[str, Any],
        seconds: float,
    ) -> None:
        from hep2flow.training.checkpoint import METRICS
        from hep2flow.training.trainer import plan

        spec, recipe, live = self.spec, self.spec.recipe, Live(self.store, self.spec.prefix)
        self.messenger.close()  # its last notices are part of the manifest, and it writes none after they are deleted
        events = folder / "tensorboard"
        events.mkdir()
        write_events([json.loads(line) for line in (folder / METRICS).read_text().splitlines()], events)
        (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
        length = plan(recipe, training.labels)
        manifest = {
            "kind": "training",
            "network": recipe.model.network,
            "weights": spec.weights_origin,
            "dataset": spec.dataset,
            "split": spec.split,
            "train_cells": len(training),
            "val_cells": len(validation),
            "updates": length.updates,
            "epochs": length.epochs,
            "best": best.to_dict(),
            "seed": recipe.train.seed,
            **facts,
            "timing": {
                "train_seconds": seconds,
                "first_update": self.first_update,
                "images_per_second": best.images_per_second,
                "workers": self.ranks.size,
                "notices": [f"{note['at']} {note['text']}" for note in live.notices()],
            },
            "hardware": _hardware(self.device),
        }
        self.store.publish(folder, spec.prefix, manifest)
        for forget in (live.end, lambda: checkpoint_uploader.drop(self.store, spec.prefix)):
            _tolerate(forget)


def _hardware(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} thread(s) of {platform.machine()}"


def _tolerate(action: Callable[[], None]) -> None:
    """Where the store is away now, that must not hide how the training ended."""
    try:
        action()
    except StoreError:
        return
