"""Judge: a sweep's winner against the recipe's own values, on validation cells that selected nothing.

The best of many trials on a few hundred cells is partly luck on these very cells: hence other cells, and fresh seeds.
"""

from itertools import product
from typing import Any

import pandas as pd

from hep2flow.distributed.ray_cluster import connected
from hep2flow.errors import UserError
from hep2flow.evaluation.paired_tests import paired_difference
from hep2flow.recipe import parse_recipe
from hep2flow.stage_result import StageResult
from hep2flow.stages.finalists import JUDGING_SEEDS, fresh_seeds, tuned_recipe
from hep2flow.stages.initial_weights import resolve_weights
from hep2flow.stages.tune import sweep_spec
from hep2flow.store.datasets import open_dataset
from hep2flow.store.outage import Log, log_to_stderr
from hep2flow.store.publish import find_published
from hep2flow.store.s3 import Store
from hep2flow.store.splits import read_split
from hep2flow.store.stage_cache import CachedStage, stage_key


def judge_sweep(
    store: Store, sweep: str, seeds: int = JUDGING_SEEDS, announce: Log | None = None, log: Log = log_to_stderr
) -> StageResult:
    """Train the tuned and the default recipe under fresh seeds and compare both on held-out validation cells.

    All trainings, ``seeds`` of each side, have the same number of updates, and none of the sweep's own seeds. ``announce``
    is called with the sweep's key before they start, ``log`` with a line for each that is finished.

    Returns:
        ``sweeps/{key}/judgements/{key}.json``: :func:`hep2flow.evaluation.paired_tests.paired_difference` of tuned minus
        default, with ``cells``, ``by``, ``updates`` and ``each`` (ACA of each seed); or ``same``, where the recipe's own
        values won the sweep.

    Raises:
        UserError: There is no such sweep, or a training is impossible.
    """
    folder = store.key(sweep)
    manifest = find_published(store, folder)
    if manifest is None or manifest.get("kind") != "sweep":
        raise UserError(f"{sweep}: there is no finished sweep; give the URI that `hep2flow tune` returned")
    sweep_key = folder.split("/")[-1]
    key = stage_key("judge", {"sweep": sweep_key, "best": manifest["best"], "seeds": seeds})
    cache, prefix = CachedStage(store, "judge", key), f"{folder}/judgements/{key}"
    if (cached := cache.lookup()) is not None:
        return cached
    if announce is not None:
        announce(sweep_key)
    judgement: dict[str, Any] = {"by": manifest["chosen_on"]["by"], "same": not manifest["best"]}
    if manifest["best"]:
        judgement |= _compare(store, manifest, sweep_key, prefix, seeds, log)
    store.put_json(f"{prefix}.json", judgement)
    store.delete_folder(prefix)
    return cache.commit(store.uri(f"{prefix}.json"), "object", judgement)


def _compare(store: Store, manifest: dict[str, Any], key: str, prefix: str, seeds: int, log: Log) -> dict[str, Any]:
    recipe = parse_recipe(manifest["recipe"], key)
    dataset, split = manifest["dataset"], manifest["split"]
    weights = resolve_weights(store, recipe.model)
    spec = sweep_spec(store, recipe, dataset, split, key, weights, manifest["trials"])
    sides = {"tuned": tuned_recipe(recipe, manifest["best"]), "default": recipe}
    fresh = fresh_seeds(recipe, seeds)
    # Both sides of a seed, then the next: an interrupted comparison is balanced.
    ordered = product(fresh, sides.items())
    trainings = {f"{side}-{seed}": one.changed({"train.seed": seed}) for seed, (side, one) in ordered}
    with connected():
        from hep2flow.distributed.run_judging import run_judging

        predicted, updates = run_judging(spec, prefix, trainings, log)
    columns = ["cell_id", "pattern", "specimen_id"]
    rows = open_dataset(store, dataset).rows(set(read_split(store, split).ids("test")), columns, {"train", None})
    cells = pd.DataFrame.from_records(list(rows), columns=columns)
    ids, truth = cells["cell_id"], cells[["cell_id", "pattern"]].rename(columns={"pattern": "truth"})
    tables = {side: [truth.assign(predicted=ids.map(predicted[f"{side}-{one}"])) for one in fresh] for side in sides}
    difference = paired_difference(tables["tuned"], tables["default"], cells[["cell_id", "specimen_id"]])
    each = {side: [float((one["truth"] == one["predicted"]).mean()) for one in tables[side]] for side in sides}
    return {**difference, "cells": len(cells), "updates": updates, "each": each}
