"""What a finished run left in the store, read back: histories, evaluations, sweeps, ablations."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from hep2flow.errors import UserError
from hep2flow.recipe import parse_recipe
from hep2flow.reporting.report_content import ModelResult, SweepResult
from hep2flow.store.datasets import open_dataset
from hep2flow.store.errors import NotThereError
from hep2flow.store.runs import show_run
from hep2flow.store.s3 import Store


def read_history(store: Store, training: str) -> list[dict[str, Any]]:
    """``metrics.jsonl`` of a training's URI, one entry per epoch (see :class:`hep2flow.training.trainer.Epoch`)."""
    text = store.get_bytes(f"{store.key(training)}/metrics.jsonl").decode()
    return [json.loads(line) for line in text.splitlines()]


def finished_evaluations(store: Store, run_id: str) -> list[str]:
    """URIs of the evaluations that a run has finished, at least one, in the order of their models' names.

    Raises UserError where there is no such run, or none of its evaluations is finished.
    """
    records = sorted(show_run(store, run_id).stages, key=lambda record: record.model or "")
    uris = [
        str(record.result["uri"]) for record in records if record.stage == "evaluate" and record.status == "succeeded"
    ]
    if not uris:
        raise UserError(f"run {run_id}: has no finished evaluation; `hep2flow runs show {run_id}`")
    return uris


def read_predictions(store: Store, uri: str) -> pd.DataFrame:
    """``predictions.parquet`` of an evaluation: cell_id, truth, predicted, ``p_<label>`` per class."""
    return pd.read_parquet(io.BytesIO(store.get_bytes(f"{store.key(uri)}/predictions.parquet")))


def read_pictures(store: Store, uri: str, name: str) -> pd.DataFrame | None:
    """``mistakes.parquet`` or ``batch.parquet`` of an evaluation; None for evaluations of earlier versions, without."""
    try:
        return pd.read_parquet(io.BytesIO(store.get_bytes(f"{store.key(uri)}/{name}.parquet")))
    except NotThereError:
        return None


def read_model(store: Store, uri: str) -> ModelResult:
    """An evaluation with the training it is of."""
    key = store.key(uri)
    manifest = store.get_json(f"{key}/manifest.json")
    recipe = parse_recipe(manifest["recipe"], uri)
    return ModelResult(
        title=recipe.model_copy(update={"name": recipe.family}).title,
        family=recipe.family,
        recipe=manifest["recipe"],
        training=store.get_json(f"{store.key(manifest['training'])}/manifest.json"),
        metrics=store.get_json(f"{key}/metrics.json"),
        history=read_history(store, manifest["training"]),
        predictions=read_predictions(store, uri),
        mistakes=read_pictures(store, uri, "mistakes"),
        batch=read_pictures(store, uri, "batch"),
    )


def finished_sweeps(store: Store, run_id: str) -> list[tuple[str, str]]:
    """URI of each finished sweep of a run, and of its judgement, empty where it was not judged."""
    records = [one for one in show_run(store, run_id).stages if one.stage == "tune" and one.status == "succeeded"]
    return [(str(one.result["uri"]), str(one.result["summary"].get("judgement_uri", ""))) for one in records]


def read_sweep(store: Store, sweep: str, judgement: str) -> SweepResult:
    """What a finished sweep has found; judgement: URI, empty where it was not judged."""
    folder = store.key(sweep)
    manifest = store.get_json(f"{folder}/manifest.json")
    return SweepResult(
        title=parse_recipe(manifest["recipe"], sweep).title,
        recipe=manifest["recipe"],
        manifest=manifest,
        trials=pd.read_parquet(io.BytesIO(store.get_bytes(f"{folder}/trials.parquet"))),
        curves=pd.read_parquet(io.BytesIO(store.get_bytes(f"{folder}/curves.parquet"))),
        judgement=store.get_json(store.key(judgement)) if judgement else None,
    )


def outcomes(
    store: Store, runs: Mapping[str, str]
) -> tuple[dict[str, list[pd.DataFrame]], pd.DataFrame, dict[str, Any]]:
    """Predictions of each value's run, one table per seed; the cells; and the metrics of one of them.

    runs: value -> id of a finished run of one recipe
    Raises UserError for a run without evaluations.
    """
    predictions: dict[str, list[pd.DataFrame]] = {}
    dataset, metrics = "", {}
    for value, run_id in runs.items():
        uris = finished_evaluations(store, run_id)
        predictions[value] = [read_predictions(store, uri) for uri in uris]
        dataset = store.get_json(f"{store.key(uris[0])}/manifest.json")["dataset"]
        metrics = store.get_json(f"{store.key(uris[0])}/metrics.json")
    return predictions, open_dataset(store, dataset).table(["cell_id", "specimen_id"]), metrics
