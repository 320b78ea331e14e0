"""Train: one recipe on one split of one data set, through Ray Train, to ``trainings/{key}``."""

import sys

from hep2flow.distributed.ray_cluster import connected
from hep2flow.distributed.train_worker import TrainingSpec
from hep2flow.errors import UserError
from hep2flow.recipe import Recipe
from hep2flow.stage_result import StageResult
from hep2flow.stages.artifacts import read_history
from hep2flow.stages.initial_weights import InitialWeights, resolve_weights
from hep2flow.store import layout
from hep2flow.store.datasets import open_dataset
from hep2flow.store.outage import Log, log_to_stderr
from hep2flow.store.publish import find_published
from hep2flow.store.s3 import Store
from hep2flow.store.splits import split_digest
from hep2flow.store.stage_cache import CachedStage, stage_key
from hep2flow.tracking.mlflow import log_to_mlflow


def train(
    store: Store, recipe: Recipe, dataset: str, split: str, announce: Log | None = None, log: Log = log_to_stderr
) -> StageResult:
    """Train, resume an interrupted training, or return the cached one.

    ``announce`` is called with the training's key before it starts, so that its progress can be read in the store; ``log``
    with a line for each event: a crash, a lost machine, an unreachable store. The data set is the masked one.

    Returns:
        The training: ``best.safetensors``, ``metrics.jsonl``, ``recipe.yaml`` and ``manifest.json``.

    Raises:
        UserError: The network, weights or resources are unavailable, or the training diverged.
    """
    weights = resolve_weights(store, recipe.model)
    key = _training_key(store, recipe, dataset, split, weights)
    cache, prefix = CachedStage(store, "train", key), layout.output_prefix("train", key)
    if (cached := cache.lookup()) is not None:
        return cached
    if announce is not None:
        announce(key)
    # A process that was killed between publishing and committing left a complete training.
    if (manifest := find_published(store, prefix)) is None:
        spec = TrainingSpec(
            store=store.address,
            recipe=recipe,
            dataset=dataset,
            split=split,
            prefix=prefix,
            weights=None if weights is None else weights.key,
            weights_origin=None if weights is None else weights.origin,
        )
        with connected():
            # Imported here, while the cluster starts: Ray takes seconds, which a cached training need not wait for.
            from hep2flow.distributed.run_training import run_training

            run_training(spec, log)
        manifest = find_published(store, prefix)
    assert manifest is not None, "a training that returned has published"
    summary = {
        "network": manifest["network"],
        "best_epoch": manifest["best"]["epoch"],
        "val_accuracy": manifest["best"]["val_accuracy"],
        "updates": manifest["updates"],
        "timing": manifest["timing"],
    }
    result = cache.commit(store.uri(prefix), "folder", summary)
    try:
        log_to_mlflow(key, recipe, read_history(store, result.uri), manifest)
    except UserError as error:  # MLflow holds only a copy: its failure must not fail the training
        print(f"hep2flow: {error}", file=sys.stderr)
    return result


def _training_key(store: Store, recipe: Recipe, dataset: str, split: str, weights: InitialWeights | None) -> str:
    """Key of a training: its data and every leaf of the recipe that it reads; not the hardware it runs on."""
    inputs = {
        "dataset": open_dataset(store, dataset).digest,
        "split": split_digest(store, split),
        "weights": None if weights is None else weights.sha256,
        "model": recipe.model.model_dump(mode="json", exclude={"weights"}),
        "data": recipe.data.model_dump(mode="json", include={"interpolation", "mean", "std"}),
        "train": recipe.train.model_dump(mode="json", exclude={"loader_workers"}),
        **recipe.model_dump(mode="json", include={"augment", "batch", "loss", "optim", "schedule", "select"}),
    }
    return stage_key("train", inputs)
