"""Ablation: what several runs of one recipe under different values of a key have predicted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from hep2flow.stages.evaluations import finished_evaluations, read_predictions
from hep2flow.store.datasets import open_dataset
from hep2flow.store.s3 import Store


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
