"""Evaluate: the kept network, once, on the cells that chose nothing; to ``evaluations/{key}``."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hep2flow.recipe import Recipe
from hep2flow.selected_on_test import OPTIMISTIC, selection
from hep2flow.stage_result import Progress, StageResult
from hep2flow.stages.artifacts import read_history
from hep2flow.store import layout
from hep2flow.store.datasets import open_dataset
from hep2flow.store.s3 import Store
from hep2flow.store.splits import Subset, read_split, split_digest
from hep2flow.store.stage_cache import code_version, commit, lookup, stage_key

if TYPE_CHECKING:
    import pandas as pd
    import torch


def evaluate(
    store: Store, recipe: Recipe, training: str, dataset: str, split: str, progress: Progress | None = None
) -> StageResult:
    """Write ``metrics.json``, ``predictions.parquet`` and figures of the evaluation contract; for the report's eye,
    ``mistakes.parquet`` and ``batch.parquet`` (see :mod:`hep2flow.stages.evaluation_images`); and for Kubeflow's page
    ``roc.json`` (see :func:`hep2flow.evaluation.roc.micro_average_roc`).

    training: URI of the training; dataset, split: what it was trained on
    Evaluated are the test cells; where the split has none, the validation cells, and ``subset`` says so. Manifest,
    metrics, figures and the Parquet file's metadata say too whether the epoch was chosen on the test set.
    """
    key, there = look_up_evaluation(store, recipe, training, dataset, split)
    if there is not None:
        return there
    opened, division, prefix = open_dataset(store, dataset), read_split(store, split), layout.evaluation_prefix(key)

    # torch, matplotlib and pandas take seconds to import: not for an evaluation that is there already.
    import pandas as pd
    import torch

    from hep2flow.data.cell_set import CellSet
    from hep2flow.evaluation.metrics import evaluate_predictions
    from hep2flow.evaluation.predict import predict
    from hep2flow.evaluation.roc import micro_average_roc
    from hep2flow.reporting.figures import confusion_matrix, learning_curves, save
    from hep2flow.stages.evaluation_images import augmented_batch, pictured_mistakes
    from hep2flow.training.checkpoint import load_checkpoint

    started = time.monotonic()
    torch.set_num_threads(recipe.resources.cpus_per_worker)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained = store.get_json(f"{store.key(training)}/manifest.json")
    subset: Subset = "test" if division.ids("test") else "val"
    with tempfile.TemporaryDirectory(prefix="hep2flow-evaluate-") as scratch:
        checkpoint = Path(scratch) / "best.safetensors"
        store.get_file(f"{store.key(training)}/best.safetensors", checkpoint)
        network, description = load_checkpoint(checkpoint, device)
        # The network and its preprocessing are the checkpoint's, how it is looked at is this recipe's.
        viewed = description.recipe.model_copy(update={"eval": recipe.eval})
        rows = list(opened.rows(keep=set(division.ids(subset))))
        cells = CellSet(rows, description.labels, description.bits, viewed, training=False)
        plain, augmented = predict(network, cells, viewed, device, progress)

        meta = pd.DataFrame(
            {name: [row[name] for row in rows] for name in ("cell_id", "intensity", "specimen_id", "pattern")}
        )
        predictions = prediction_table(meta, augmented, description.labels)
        metrics = evaluate_predictions(predictions, meta, description.labels, seed=recipe.train.seed)
        tta_off = None
        if recipe.eval.tta != "none":
            without = evaluate_predictions(
                prediction_table(meta, plain, description.labels), meta, description.labels, bootstrap=1
            )
            tta_off = {name: without[name] for name in ("aca", "mca", "macro_f1")}
        chosen_on = selection(division.protocol)
        metrics |= {
            "recipe": recipe.name,
            "profile": recipe.profile,
            "paper_model": recipe.paper_model,
            "network": description.recipe.model.network,
            "image_size": description.recipe.model.image_size,
            "protocol": division.protocol,
            "subset": "test" if subset == "test" else "validation",
            **chosen_on,
            "tta": recipe.eval.tta != "none",
            "tta_off": tta_off,
            "synthetic": opened.manifest["facts"]["synthetic"],
            "seed": trained["seed"],
            "updates": trained["updates"],
            "timing": {**trained["timing"], "evaluate_seconds": time.monotonic() - started},
        }
        folder = Path(scratch) / "evaluation"
        folder.mkdir()
        text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
        write_predictions(predictions, chosen_on, folder / "predictions.parquet")
        curve = json.dumps(micro_average_roc(predictions, description.labels))
        (folder / "roc.json").write_text(curve + "\n", encoding="utf-8")
        mistakes = pictured_mistakes(network, cells, predictions, description.labels, device)
        write_predictions(mistakes, chosen_on, folder / "mistakes.parquet")
        augmented_batch(opened, division, description).to_parquet(folder / "batch.parquet", index=False)
        history = read_history(store, training)
        reservation = f"; {OPTIMISTIC}" if chosen_on["selected_on_test"] else ""
        save(confusion_matrix(metrics, f"{viewed.title}, {metrics['subset']}{reservation}"), folder, "confusion_matrix")
        save(learning_curves(history, viewed.title + reservation), folder, "learning_curves")
        store.publish(
            folder,
            prefix,
            {
                "kind": "evaluation",
                "training": training,
                "dataset": dataset,
                "split": split,
                "recipe": recipe.model_dump(mode="json"),
                **chosen_on,
            },
        )
    summary = {name: metrics[name] for name in ("network", "subset", "n", "aca", "mca", "macro_f1", "selected_on_test")}
    commit(store, "evaluate", key, {"output": {"uri": store.uri(prefix), "kind": "folder"}, "summary": summary})
    return StageResult(stage="evaluate", key=key, uri=store.uri(prefix), summary=summary)


def look_up_evaluation(
    store: Store, recipe: Recipe, training: str, dataset: str, split: str
) -> tuple[str, StageResult | None]:
    """Key of an evaluation, and its result where it is there already; arguments as of :func:`evaluate`."""
    inputs = {
        "training": store.key(training),
        "dataset": open_dataset(store, dataset).ref.digest,
        "split": split_digest(store, split),
        "eval": recipe.eval.model_dump(mode="json"),
        "name": recipe.name,
        "profile": recipe.profile,
        "paper_model": recipe.paper_model,
    }
    key = stage_key("evaluate", inputs, code_version("evaluate"))
    entry = lookup(store, "evaluate", key)
    if entry is None:
        return key, None
    uri = store.uri(layout.evaluation_prefix(key))
    return key, StageResult(stage="evaluate", key=key, uri=uri, cached=True, summary=entry["summary"])


def prediction_table(meta: pd.DataFrame, probabilities: torch.Tensor, labels: list[str]) -> pd.DataFrame:
    """cell_id, truth, predicted and ``p_<label>`` of each cell.

    meta: cell_id and pattern of the cells; probabilities: (n, labels), in their order
    """
    import pandas as pd

    predicted = [labels[index] for index in probabilities.argmax(1).tolist()]
    table: pd.DataFrame = pd.DataFrame({"cell_id": meta["cell_id"], "truth": meta["pattern"], "predicted": predicted})
    for index, label in enumerate(labels):
        table[f"p_{label}"] = probabilities[:, index].double().numpy()
    return table


def write_predictions(predictions: pd.DataFrame, chosen_on: dict[str, Any], path: Path) -> None:
    """As Parquet, with :func:`hep2flow.selected_on_test.selection` in its metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(predictions, preserve_index=False)
    told = {name: json.dumps(value) for name, value in chosen_on.items()}
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, **told}), path)
