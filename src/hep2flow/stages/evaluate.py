"""Evaluate: the best checkpoint, once, on the cells that selected nothing; to ``evaluations/{key}``."""

import json
import time

from hep2flow.cells import temporary_folder
from hep2flow.recipe import Recipe
from hep2flow.selected_on_test import OPTIMISTIC_WARNING, protocol_note
from hep2flow.stage_result import Progress, StageResult
from hep2flow.stages.artifacts import read_history
from hep2flow.stages.trained_models import TrainedModel, load_network
from hep2flow.store import layout
from hep2flow.store.datasets import open_dataset
from hep2flow.store.publish import publish
from hep2flow.store.s3 import Store
from hep2flow.store.splits import Subset, read_split, split_digest
from hep2flow.store.stage_cache import CachedStage, stage_key


def evaluate(
    store: Store, recipe: Recipe, training: str, dataset: str, split: str, progress: Progress | None = None
) -> StageResult:
    """Evaluate a training on its test cells; on the validation cells where the split has none, see ``subset``.

    Manifest, metrics, figures and the Parquet files' metadata all say whether the epoch was selected on the test set. The
    recipe's ``eval`` and names count, the network's preprocessing is the checkpoint's; the URIs are of the training, and of
    the data set and split that it was trained on.

    Returns:
        The evaluation: ``metrics.json``, ``predictions.parquet`` and figures of the evaluation contract; for the report
        ``mistakes.parquet`` and ``batch.parquet`` (see :mod:`hep2flow.stages.evaluation_images`); and for Kubeflow's page
        ``roc.json`` (see :func:`hep2flow.evaluation.metrics.micro_average_roc`).
    """
    cache = evaluation_cache(store, recipe, training, dataset, split)
    if (cached := cache.lookup()) is not None:
        return cached
    # torch and matplotlib take seconds to import: not for a cached evaluation.
    import torch

    from hep2flow.data.cell_set import CellSet
    from hep2flow.evaluation.metrics import micro_average_roc
    from hep2flow.reporting.figures import learning_curves, save
    from hep2flow.stages.evaluation_images import augmented_batch, mistake_images
    from hep2flow.stages.write_evaluation import SUMMARY, score_cells, write_evaluation, write_table

    started = time.monotonic()
    opened, division = open_dataset(store, dataset), read_split(store, split)
    torch.set_num_threads(recipe.resources.cpus_per_worker)
    trained = store.get_json(f"{store.key(training)}/manifest.json")
    subset: Subset = "test" if division.ids("test") else "val"
    model = load_network(store, TrainedModel(recipe.name, training, recipe))
    labels, title = model.description.labels, model.description.recipe.title
    rows = list(opened.rows(keep=set(division.ids(subset))))
    cells = CellSet(rows, labels, model.description.bits, model.description.recipe, training=False)
    predictions, metrics = score_cells(model, cells, rows, recipe.train.seed, progress)
    selection = protocol_note(division.protocol)
    metrics |= {
        "recipe": recipe.name,
        **recipe.model_dump(include={"profile", "paper_model"}),
        "protocol": division.protocol,
        "subset": "test" if subset == "test" else "validation",
        **selection,
        "synthetic": opened.manifest["facts"]["synthetic"],
        "seed": trained["seed"],
        "updates": trained["updates"],
        "timing": {**trained["timing"], "evaluate_seconds": time.monotonic() - started},
    }
    warning = f"; {OPTIMISTIC_WARNING}" if selection["selected_on_test"] else ""
    prefix = layout.output_prefix("evaluate", cache.key)
    with temporary_folder() as folder:
        write_evaluation(folder, metrics, predictions, selection, f"{title}, {metrics['subset']}{warning}")
        (folder / "roc.json").write_text(json.dumps(micro_average_roc(predictions, labels)) + "\n", encoding="utf-8")
        mistakes = mistake_images(model.network, cells, predictions, labels, model.device)
        write_table(folder / "mistakes.parquet", mistakes, selection)
        augmented_batch(opened, division, model.description).to_parquet(folder / "batch.parquet", index=False)
        save(learning_curves(read_history(store, training), title + warning), folder, "learning_curves")
        uris = {"training": training, "dataset": dataset, "split": split}
        manifest = {"kind": "evaluation", **uris, "recipe": recipe.model_dump(mode="json"), **selection}
        publish(store, folder, prefix, manifest)
    return cache.commit(store.uri(prefix), "folder", {name: metrics[name] for name in SUMMARY})


def evaluation_cache(store: Store, recipe: Recipe, training: str, dataset: str, split: str) -> CachedStage:
    """The cache of an evaluation; arguments as of :func:`evaluate`."""
    inputs = {
        "training": store.key(training),
        "dataset": open_dataset(store, dataset).digest,
        "split": split_digest(store, split),
        **recipe.model_dump(mode="json", include={"eval", "name", "profile", "paper_model"}),
    }
    return CachedStage(store, "evaluate", stage_key("evaluate", inputs))
