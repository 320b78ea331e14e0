"""What one worker of a training does: read its cells, train, leave the result in the store.

Apart from the rest, because Ray's controller imports this module only to send it on: it needs no torch for that.
"""

from __future__ import annotations

import logging
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from hep2flow.errors import StoreError, UserError
from hep2flow.optimism import selection
from hep2flow.recipe import Recipe
from hep2flow.store.faults import NotThereError
from hep2flow.store.patience import patiently
from hep2flow.store.s3 import Store, StoreAddress, open_store

PROGRESS_SECONDS = 2.0
log = logging.getLogger(__name__)


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


def work(config: dict[str, Any]) -> None:
    """Ray Train's loop per worker: a TrainingSpec as plain values in, a published training out.

    What the user has to mend is left in the store (:func:`refusal`): Ray would start the worker again for it.
    Any other end, a killed process or machine among them, may be tried again: the training goes on from its last epoch.
    """
    from torch import distributed

    spec = TrainingSpec.model_validate(config)
    store = open_store(spec.store)
    if refusal(store, spec.prefix) is not None:
        return
    try:
        _train(spec, store)
    except UserError as error:
        told = {"error": str(error)}
        patiently(lambda: store.put_json(_refused(spec.prefix), told), log.warning)
        if distributed.is_initialized() and distributed.get_world_size() > 1:
            raise  # the other workers wait for this one's gradients


def refusal(store: Store, prefix: str) -> str | None:
    """What the user has to mend before this training can go on; None where nothing is known."""
    try:
        return str(store.get_json(_refused(prefix))["error"])
    except NotThereError:
        return None


def forget_refusal(store: Store, prefix: str) -> None:
    """Before a new attempt: what was refused may have been mended."""
    store.delete([_refused(prefix)])


def _refused(prefix: str) -> str:
    return f"{prefix}/live/refused.json"


def _train(spec: TrainingSpec, store: Store) -> None:
    import ray.train
    import ray.train.torch
    import torch

    from hep2flow.learning.checkpoint import Description
    from hep2flow.learning.data import CellSet, columns
    from hep2flow.learning.freezing import check_freezing
    from hep2flow.learning.loop import BEST, METRICS, STATE, Epoch, fit, plan
    from hep2flow.learning.model import build_network, check_network
    from hep2flow.learning.randomness import derived_seed
    from hep2flow.learning.ranks import Ranks
    from hep2flow.learning.weights import load_weights
    from hep2flow.store import resume
    from hep2flow.store.datasets import open_dataset
    from hep2flow.store.splits import read_split

    recipe = spec.recipe
    check_network(recipe.model)
    check_freezing(recipe)
    torch.set_num_threads(recipe.resources.cpus_per_worker)
    device = ray.train.torch.get_device()
    started = time.monotonic()

    dataset, split = open_dataset(store, spec.dataset), read_split(store, spec.split)
    labels, bits = dataset.manifest["labels"], dataset.manifest["bits"]
    chosen_on = selection(split.protocol)
    # Where there is a test subset, its parts are not even fetched.
    official_splits = {"train", None} if split.ids("test") else None
    sets = {}
    for subset in ("train", "val"):
        rows = dataset.rows(set(split.ids(subset)), columns(recipe), official_splits)
        sets[subset] = CellSet(rows, labels, bits, recipe, training=subset == "train")

    torch.manual_seed(derived_seed(recipe.train.seed, "weights"))
    network = build_network(recipe.model, len(labels))
    with tempfile.TemporaryDirectory(prefix="hep2flow-training-") as scratch:
        folder = Path(scratch) / "training"
        folder.mkdir()
        ranks = Ranks.current()
        done = patiently(lambda: resume.load(store, spec.prefix, folder), log.warning)
        if done and ranks.first:
            log.warning("goes on after epoch %d", done)
        replaced: list[str] = []
        if spec.weights is not None:
            weights = Path(scratch) / "weights.safetensors"
            store.get_file(spec.weights, weights)
            replaced = load_weights(network, weights, recipe.model.weights, labels)

        def on_epoch(epoch: Epoch) -> None:
            if ranks.first and (folder / STATE).exists():
                fresh = [STATE, METRICS, *([BEST] if epoch.best else [])]
                patiently(lambda: resume.save(store, spec.prefix, folder, epoch.epoch, fresh), log.warning)
            ray.train.report({"epoch": epoch.epoch, "val_accuracy": epoch.val_accuracy})

        last = 0.0

        def on_batch(progress: Any) -> None:
            nonlocal last
            if not ranks.first:
                return
            if time.monotonic() - last >= PROGRESS_SECONDS or progress.update == progress.updates:
                last = time.monotonic()
                _tolerate(lambda: store.put_json(f"{spec.prefix}/live/progress.json", vars(progress)))

        best = fit(
            network,
            recipe,
            sets["train"],
            sets["val"],
            Description(recipe, labels, bits, chosen_on["selected_on_test"]),
            folder,
            device=device,
            on_epoch=on_epoch,
            on_batch=on_batch,
        )
        if not ranks.first:
            return
        (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
        seconds = time.monotonic() - started
        length = plan(recipe, sets["train"].labels)
        manifest = {
            "kind": "training",
            "network": recipe.model.network,
            "weights": spec.weights_origin,
            "weights_replaced": replaced,
            "labels": labels,
            "dataset": spec.dataset,
            "split": spec.split,
            "train_cells": len(sets["train"]),
            "val_cells": len(sets["val"]),
            "updates": length.updates,
            "epochs": length.epochs,
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "best": best.to_dict(),
            "seed": recipe.train.seed,
            **chosen_on,
            "timing": {"train_seconds": seconds, "images_per_second": best.images_per_second},
            "hardware": _hardware(device),
        }
        patiently(lambda: store.publish(folder, spec.prefix, manifest), log.warning)
        _tolerate(lambda: store.delete_folder(f"{spec.prefix}/live"))
        _tolerate(lambda: resume.drop(store, spec.prefix))


def _hardware(device: Any) -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} thread(s) of {platform.machine()}"


def _tolerate(write: Callable[[], object]) -> None:
    """Progress is for the eye: a store that is away for a moment must not end a training."""
    try:
        write()
    except StoreError:
        return
