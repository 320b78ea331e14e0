"""What one worker of a training does: read its cells, train, leave the result in the store.

Apart from the rest, because Ray's controller imports this module only to send it on: it needs no torch for that.
"""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from hep2flow.errors import StoreError
from hep2flow.optimism import selection
from hep2flow.recipe import Recipe
from hep2flow.store.s3 import StoreAddress, open_store

PROGRESS_SECONDS = 2.0


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

    Raises UserError for a network that cannot be built, before any data is read, and for a training that diverged.
    """
    import ray.train
    import ray.train.torch
    import torch

    from hep2flow.learning.checkpoint import Description
    from hep2flow.learning.data import CellSet, columns
    from hep2flow.learning.freezing import check_freezing
    from hep2flow.learning.loop import Epoch, fit, plan
    from hep2flow.learning.model import build_network, check_network
    from hep2flow.learning.randomness import derived_seed
    from hep2flow.learning.weights import load_weights
    from hep2flow.store.datasets import open_dataset
    from hep2flow.store.splits import read_split

    spec = TrainingSpec.model_validate(config)
    recipe, store = spec.recipe, open_store(spec.store)
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
        replaced: list[str] = []
        if spec.weights is not None:
            weights = Path(scratch) / "weights.safetensors"
            store.get_file(spec.weights, weights)
            replaced = load_weights(network, weights, recipe.model.weights, labels)

        metrics = folder / "metrics.jsonl"

        def on_epoch(epoch: Epoch) -> None:
            with metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(epoch.to_dict()) + "\n")
            _tolerate(lambda: store.put_file(metrics, f"{spec.prefix}/live/metrics.jsonl"))
            ray.train.report({"epoch": epoch.epoch, "val_accuracy": epoch.val_accuracy})

        last = 0.0

        def on_batch(progress: Any) -> None:
            nonlocal last
            if time.monotonic() - last >= PROGRESS_SECONDS or progress.update == progress.updates:
                last = time.monotonic()
                _tolerate(lambda: store.put_json(f"{spec.prefix}/live/progress.json", vars(progress)))

        best = fit(
            network,
            recipe,
            sets["train"],
            sets["val"],
            Description(recipe, labels, bits, chosen_on["selected_on_test"]),
            folder / "best.safetensors",
            device=device,
            on_epoch=on_epoch,
            on_batch=on_batch,
        )
        (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
        seconds = time.monotonic() - started
        length = plan(recipe, sets["train"].labels)
        store.publish(
            folder,
            spec.prefix,
            {
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
            },
        )
        store.delete_folder(f"{spec.prefix}/live")


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
