"""Train: one recipe on one split of one data set, through Ray Train, to ``trainings/{key}``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

from hep2flow.distributed.train_worker import TrainingSpec
from hep2flow.errors import UserError
from hep2flow.recipe import Recipe
from hep2flow.stage_result import StageResult
from hep2flow.stages.artifacts import read_history
from hep2flow.stages.initial_weights import resolve_weights
from hep2flow.store import layout
from hep2flow.store.datasets import open_dataset
from hep2flow.store.outage import Tell, to_standard_error
from hep2flow.store.s3 import Store
from hep2flow.store.splits import split_digest
from hep2flow.store.stage_cache import code_version, commit, lookup, stage_key
from hep2flow.tracking.mlflow import log_to_mlflow


def train(
    store: Store,
    recipe: Recipe,
    dataset: str,
    split: str,
    announce: Callable[[str], None] | None = None,
    tell: Tell = to_standard_error,
) -> StageResult:
    """Train, or go on with a training that was interrupted, or return the one that is there already.

    dataset:  URI of the masked data set; split: URI of its division
    announce: told the training's key before it starts, so that its progress can be followed in the store
    tell:     told in one line of what happens to a training: a crash, a lost machine, a store that is away
    The training holds ``best.safetensors``, ``metrics.jsonl``, ``recipe.yaml`` and ``manifest.json``.
    Raises UserError for a network, weights or resources that cannot be had, and for a training that diverged.
    """
    weights = resolve_weights(store, recipe.model)
    key = training_key(store, recipe, dataset, split, None if weights is None else weights.sha256)
    prefix = layout.training_prefix(key)
    entry = lookup(store, "train", key)
    if entry is not None:
        return StageResult(stage="train", key=key, uri=store.uri(prefix), cached=True, summary=entry["summary"])

    if announce is not None:
        announce(key)
    # A process that was killed between the last two writes left a whole training.
    if store.published(prefix) is None:
        _train_on_ray(
            TrainingSpec(
                store=store.address,
                recipe=recipe,
                dataset=dataset,
                split=split,
                prefix=prefix,
                weights=None if weights is None else weights.key,
                weights_origin=None if weights is None else weights.origin,
            ),
            tell,
        )
    manifest = store.published(prefix)
    assert manifest is not None, "a training that returned has published"
    summary = {
        "network": manifest["network"],
        "best_epoch": manifest["best"]["epoch"],
        "val_accuracy": manifest["best"]["val_accuracy"],
        "updates": manifest["updates"],
        "timing": manifest["timing"],
    }
    commit(store, "train", key, {"output": {"uri": store.uri(prefix), "kind": "folder"}, "summary": summary})
    try:
        log_to_mlflow(key, recipe, read_history(store, store.uri(prefix)), manifest)
    except UserError as error:  # a second record, which must not fail the first
        print(f"hep2flow: {error}", file=sys.stderr)
    return StageResult(stage="train", key=key, uri=store.uri(prefix), summary=summary)


def _train_on_ray(spec: TrainingSpec, tell: Tell) -> None:
    from hep2flow.distributed.ray_cluster import connected

    # Ray tells of lost machines on standard output, which belongs to the result.
    with redirect_stdout(sys.stderr), connected():
        # Imported here, while the cluster starts: Ray takes seconds, and none for a training that is there already.
        from hep2flow.distributed.run_training import run_training

        run_training(spec, tell)


def training_key(store: Store, recipe: Recipe, dataset: str, split: str, weights_sha256: str | None) -> str:
    """Key of a training: what it learns from and every leaf of the recipe it reads; not where or on how many cores."""
    inputs: dict[str, Any] = {
        "dataset": open_dataset(store, dataset).ref.digest,
        "split": split_digest(store, split),
        "weights": weights_sha256,
        "model": recipe.model.model_dump(mode="json", exclude={"weights"}),
        "data": recipe.data.model_dump(mode="json", include={"interpolation", "mean", "std"}),
        "train": recipe.train.model_dump(mode="json", exclude={"loader_workers"}),
    }
    for section in ("augment", "batch", "loss", "optim", "schedule", "select"):
        inputs[section] = getattr(recipe, section).model_dump(mode="json")
    return stage_key("train", inputs, code_version("train"))
