"""The evaluations of a run, read back: for its report, and to compare it with others."""

from __future__ import annotations

import io

import pandas as pd

from hep2flow.errors import UserError
from hep2flow.recipe import parse_recipe
from hep2flow.reporting.content import ModelResult
from hep2flow.stages.history import read_history
from hep2flow.store.faults import NotThereError
from hep2flow.store.runs import show_run
from hep2flow.store.s3 import Store


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
