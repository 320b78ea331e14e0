"""Evaluate: the kept network, once, on the cells that chose nothing; to ``evaluations/{key}``."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from hep2flow.recipe import Recipe
from hep2flow.results import Progress, StageResult
from hep2flow.stages.history import read_history
from hep2flow.store import layout
from hep2flow.store.cache import code_version, commit, lookup, stage_key
from hep2flow.store.datasets import open_dataset
from hep2flow.store.s3 import Store
from hep2flow.store.splits import Subset, read_split

if TYPE_CHECKING:
    import torch

OPTIMISTIC = "selected on the test set: optimistic, not a test result"


def evaluate(
    store: Store, recipe: Recipe, training: str, dataset: str, split: str, progress: Progress | None = None
) -> StageResult:
    """Write ``metrics.json``, ``predictions.parquet`` and figures of the evaluation contract.

    training: URI of the training; dataset, split: what it was trained on
    Evaluated are the test cells; where the split has none, the validation cells, and ``subset`` says so.
    """
    opened, division = open_dataset(store, dataset), read_split(store, split)
    inputs = {
        "training": store.key(training),
        "dataset": opened.ref.digest,
        "split": division.digest,
        "eval": recipe.eval.model_dump(mode="json"),
        "name": recipe.name,
        "profile": recipe.profile,
        "paper_model": recipe.paper_model,
    }
    key = stage_key("evaluate", inputs, code_version("evaluate"))
    prefix = layout.evaluation_prefix(key)
    entry = lookup(store, "evaluate", key)
    if entry is not None:
        return StageResult(stage="evaluate", key=key, uri=store.uri(prefix), cached=True, summary=entry["summary"])

    # torch and matplotlib take seconds to import: not for an evaluation that is there already.
    import torch

    from hep2flow.learning.checkpoint import load_checkpoint
    from hep2flow.learning.data import CellSet
    from hep2flow.learning.metrics import evaluate_predictions
    from hep2flow.learning.predict import predict
    from hep2flow.reporting.figures import confusion_matrix, learning_curves, save

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
        predictions = _table(meta, augmented, description.labels)
        metrics = evaluate_predictions(predictions, meta, description.labels, seed=recipe.train.seed)
        tta_off = None
        if recipe.eval.tta != "none":
            without = evaluate_predictions(
                _table(meta, plain, description.labels), meta, description.labels, bootstrap=1
            )
            tta_off = {name: without[name] for name in ("aca", "mca", "macro_f1")}
        selected_on_test = division.protocol == "whole-train"
        metrics |= {
            "recipe": recipe.name,
            "profile": recipe.profile,
            "paper_model": recipe.paper_model,
            "network": description.recipe.model.network,
            "image_size": description.recipe.model.image_size,
            "protocol": division.protocol,
            "subset": "test" if subset == "test" else "validation",
            "selected_on_test": selected_on_test,
            "tta": recipe.eval.tta != "none",
            "tta_off": tta_off,
            "synthetic": opened.manifest["facts"]["synthetic"],
            "seed": trained["seed"],
            "updates": trained["updates"],
            **({"warning": OPTIMISTIC} if selected_on_test else {}),
            "timing": {**trained["timing"], "evaluate_seconds": time.monotonic() - started},
        }
        folder = Path(scratch) / "evaluation"
        folder.mkdir()
        text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
        predictions.to_parquet(folder / "predictions.parquet", index=False)
        history = read_history(store, training)
        title = f"{viewed.title}, {metrics['subset']}" + (f"; {OPTIMISTIC}" if selected_on_test else "")
        save(confusion_matrix(metrics, title), folder, "confusion_matrix")
        save(learning_curves(history, viewed.title), folder, "learning_curves")
        store.publish(
            folder,
            prefix,
            {
                "kind": "evaluation",
                "training": training,
                "dataset": dataset,
                "split": split,
                "recipe": recipe.model_dump(mode="json"),
            },
        )
    summary = {name: metrics[name] for name in ("network", "subset", "n", "aca", "mca", "macro_f1", "selected_on_test")}
    commit(store, "evaluate", key, {"output": {"uri": store.uri(prefix), "kind": "folder"}, "summary": summary})
    return StageResult(stage="evaluate", key=key, uri=store.uri(prefix), summary=summary)


def _table(meta: pd.DataFrame, probabilities: torch.Tensor, labels: list[str]) -> pd.DataFrame:
    predicted = [labels[index] for index in probabilities.argmax(1).tolist()]
    table: pd.DataFrame = pd.DataFrame({"cell_id": meta["cell_id"], "truth": meta["pattern"], "predicted": predicted})
    for index, label in enumerate(labels):
        table[f"p_{label}"] = probabilities[:, index].double().numpy()
    return table
