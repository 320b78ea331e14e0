"""What every evaluation computes and writes: predictions, metrics, and the figure of the confusion matrix."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hep2flow.data.cell_set import CellSet
from hep2flow.evaluation.metrics import evaluate_predictions
from hep2flow.evaluation.predict import predict_probabilities
from hep2flow.reporting.figures import confusion_matrix, save
from hep2flow.stage_result import Progress
from hep2flow.stages.trained_models import LoadedModel

SCORES = ("aca", "mca", "macro_f1")
SUMMARY = ("network", "subset", "n", *SCORES, "selected_on_test")


def score_cells(
    model: LoadedModel, cells: CellSet, rows: Sequence[Mapping[str, Any]], seed: int, progress: Progress | None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Predict cells and compute the metrics that follow from the predictions.

    ``rows`` are the rows of the Cell table of ``cells``, in the same order; ``seed`` is the bootstrap's. The model's recipe
    decides on test-time augmentation (TTA).

    Returns:
        cell_id, truth, predicted and ``p_<label>`` of each cell; and the metrics, with ``network``, ``image_size``,
        ``tta``, and the scores without TTA (``tta_off``).
    """
    labels, recipe = model.description.labels, model.description.recipe
    plain, augmented = predict_probabilities(model.network, cells, recipe, model.device, progress)
    facts = pd.DataFrame(
        {name: [row[name] for row in rows] for name in ("cell_id", "intensity", "specimen_id", "pattern")}
    )
    predictions = _prediction_table(facts, augmented, labels)
    metrics = evaluate_predictions(predictions, facts, labels, seed=seed)
    tta_off = None
    if recipe.eval.tta != "none":
        without = evaluate_predictions(_prediction_table(facts, plain, labels), facts, labels, bootstrap=1)
        tta_off = {name: without[name] for name in SCORES}
    return predictions, {
        **metrics,
        **recipe.model.model_dump(include={"network", "image_size"}),
        "tta": recipe.eval.tta != "none",
        "tta_off": tta_off,
    }


def write_evaluation(
    folder: Path, metrics: dict[str, Any], predictions: pd.DataFrame, selection: dict[str, Any], title: str
) -> None:
    """Write ``metrics.json``, ``predictions.parquet`` and the figure ``confusion_matrix``; see :func:`write_table`."""
    text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
    write_table(folder / "predictions.parquet", predictions, selection)
    save(confusion_matrix(metrics, title), folder, "confusion_matrix")


def write_table(path: Path, table: pd.DataFrame, selection: dict[str, Any]) -> None:
    """Write a table as Parquet, with :func:`hep2flow.selected_on_test.selection_note` in its metadata."""
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    notes = {name: json.dumps(value) for name, value in selection.items()}
    pq.write_table(arrow.replace_schema_metadata({**arrow.schema.metadata, **notes}), path)


def _prediction_table(facts: pd.DataFrame, probabilities: torch.Tensor, labels: list[str]) -> pd.DataFrame:
    predicted = [labels[index] for index in probabilities.argmax(1).tolist()]
    by_class = {f"p_{label}": probabilities[:, index].double().numpy() for index, label in enumerate(labels)}
    columns = {"cell_id": facts["cell_id"], "truth": facts["pattern"], "predicted": predicted, **by_class}
    table: pd.DataFrame = pd.DataFrame(columns)
    return table
