"""The sweeps of a run, as its report reads them."""

from __future__ import annotations

import io

import pandas as pd

from hep2flow.recipe import parse_recipe
from hep2flow.reporting.content import SweepResult
from hep2flow.store.runs import show_run
from hep2flow.store.s3 import Store


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
