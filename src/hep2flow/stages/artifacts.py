"""Readers of a finished run's artifacts: evaluations, training histories, sweeps."""

import io
import json
from typing import Any

import pandas as pd

from hep2flow.errors import UserError
from hep2flow.recipe import parse_recipe
from hep2flow.reporting.report_content import Family, ModelResult, SweepResult
from hep2flow.stages.trained_models import finished_results
from hep2flow.store.datasets import open_dataset
from hep2flow.store.runs import show_run
from hep2flow.store.s3 import Store


def finished_evaluations(store: Store, run_id: str) -> list[str]:
    """URIs of a run's finished evaluations, in the order of their models' names; UserError where there is none."""
    results = finished_results(show_run(store, run_id), "evaluate")
    if not results:
        raise UserError(f"run {run_id}: has no finished evaluation; `hep2flow runs show {run_id}`")
    return [str(results[model]["uri"]) for model in sorted(results)]


def finished_sweeps(store: Store, run_id: str) -> list[tuple[str, str]]:
    """URI of each finished sweep of a run, and of its judgement, empty where it was not judged."""
    results = finished_results(show_run(store, run_id), "tune").values()
    return [(str(result["uri"]), str(result["summary"].get("judgement_uri", ""))) for result in results]


def read_history(store: Store, training: str) -> list[dict[str, Any]]:
    """``metrics.jsonl`` of a training, by its URI: one entry per epoch."""
    text = store.get_bytes(f"{store.key(training)}/metrics.jsonl").decode()
    return [json.loads(line) for line in text.splitlines()]


def read_model(store: Store, uri: str) -> ModelResult:
    """Read an evaluation, by its URI, and its training."""
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
        predictions=_read_table(store, f"{key}/predictions.parquet"),
        mistakes=_read_optional_table(store, f"{key}/mistakes.parquet"),
        batch=_read_optional_table(store, f"{key}/batch.parquet"),
    )


def read_family(store: Store, run_id: str) -> Family:
    """Read the models of a finished run of one recipe, and its cells' IDs and specimens; UserError for an unfinished one."""
    uris = finished_evaluations(store, run_id)
    dataset = store.get_json(f"{store.key(uris[0])}/manifest.json")["dataset"]
    cells = open_dataset(store, dataset).table(["cell_id", "specimen_id"])
    return Family([read_model(store, uri) for uri in uris], cells)


def read_sweep(store: Store, sweep: str, judgement: str) -> SweepResult:
    """Read a finished sweep and its judgement, by their URIs; the second is empty where it was not judged."""
    folder = store.key(sweep)
    manifest = store.get_json(f"{folder}/manifest.json")
    return SweepResult(
        title=parse_recipe(manifest["recipe"], sweep).title,
        recipe=manifest["recipe"],
        manifest=manifest,
        trials=_read_table(store, f"{folder}/trials.parquet"),
        curves=_read_table(store, f"{folder}/curves.parquet"),
        judgement=store.get_json(store.key(judgement)) if judgement else None,
    )


def _read_table(store: Store, key: str) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(store.get_bytes(key)))


def _read_optional_table(store: Store, key: str) -> pd.DataFrame | None:
    return _read_table(store, key) if store.exists(key) else None  # evaluations of earlier versions have no such table
