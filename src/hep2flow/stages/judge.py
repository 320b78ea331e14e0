"""Judge: a sweep's winner against the recipe's own values, on validation cells that chose nothing; several seeds each.

The best of many trials on a few hundred cells is partly luck on these very cells: hence other cells, and fresh seeds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import pandas as pd

from hep2flow.errors import UserError
from hep2flow.evaluation.paired_tests import paired_difference
from hep2flow.recipe import parse_recipe
from hep2flow.search.trial_budget import JUDGING, fresh_seeds
from hep2flow.stage_result import StageResult
from hep2flow.stages.finalists import tuned
from hep2flow.stages.initial_weights import resolve_weights
from hep2flow.stages.tune import sweep_spec
from hep2flow.store.datasets import open_dataset
from hep2flow.store.outage import Tell, to_standard_error
from hep2flow.store.s3 import Store
from hep2flow.store.splits import read_split
from hep2flow.store.stage_cache import code_version, commit, lookup, stage_key

SIDES = ("tuned", "default")


def judge(
    store: Store,
    sweep: str,
    seeds: int = JUDGING,
    announce: Callable[[str], None] | None = None,
    tell: Tell = to_standard_error,
) -> StageResult:
    """Train both under fresh seeds with equal updates, and compare them on the half of the validation that judges.

    sweep: URI of a finished sweep; seeds: trainings of each side, none of them the sweep's own
    The output, ``sweeps/{key}/judgements/{key}.json``, is :func:`hep2flow.evaluation.paired_tests.paired_difference` of
    tuned minus default, with ``cells``, ``by``, ``updates`` and ``each`` (ACA of each seed); or ``same``, where the
    recipe's own values have won.
    Raises UserError where there is no such sweep, and where a training cannot be done.
    """
    manifest = store.published(store.key(sweep))
    if manifest is None or manifest.get("kind") != "sweep":
        raise UserError(f"{sweep}: there is no finished sweep; give the URI that `hep2flow tune` returned")
    sweep_key = store.key(sweep).split("/")[-1]
    key = stage_key("judge", {"sweep": sweep_key, "best": manifest["best"], "seeds": seeds}, code_version("judge"))
    output = f"{store.key(sweep)}/judgements/{key}.json"
    entry = lookup(store, "judge", key)
    if entry is not None:
        return StageResult(stage="judge", key=key, uri=store.uri(output), cached=True, summary=entry["summary"])
    if announce is not None:
        announce(sweep_key)
    told: dict[str, Any] = {"by": manifest["chosen_on"]["by"], "same": not manifest["best"]}
    if manifest["best"]:
        told |= _compare(store, manifest, sweep_key, f"{store.key(sweep)}/judgements/{key}", seeds, tell)
    store.put_json(output, told)
    store.delete_folder(f"{store.key(sweep)}/judgements/{key}")
    commit(store, "judge", key, {"output": {"uri": store.uri(output), "kind": "object"}, "summary": told})
    return StageResult(stage="judge", key=key, uri=store.uri(output), summary=told)


def _compare(
    store: Store, manifest: dict[str, Any], sweep_key: str, prefix: str, seeds: int, tell: Tell
) -> dict[str, Any]:
    from hep2flow.distributed.ray_cluster import connected

    recipe = parse_recipe(manifest["recipe"], sweep_key)
    weights = resolve_weights(store, recipe.model)
    spec = sweep_spec(
        store,
        recipe,
        manifest["dataset"],
        manifest["split"],
        sweep_key,
        None if weights is None else weights.key,
        manifest["trials"],
    )
    sides = dict(zip(SIDES, (tuned(recipe, manifest["best"]), recipe), strict=True))
    trainings = {
        f"{side}-{seed}": parse_recipe(one.model_dump(mode="json"), side, [f"train.seed={seed}"])
        for seed in fresh_seeds(recipe, seeds)  # one seed of both sides, then the next: a killed one is half done
        for side, one in sides.items()
    }
    # Ray tells of its tasks on standard output, which belongs to the result.
    with redirect_stdout(sys.stderr), connected():
        from hep2flow.distributed.run_judging import run_judging

        predicted, updates = run_judging(spec, prefix, trainings, tell)
    judging = set(read_split(store, manifest["split"]).ids("test"))
    rows = open_dataset(store, manifest["dataset"]).rows(
        judging, ["cell_id", "pattern", "specimen_id"], {"train", None}
    )
    cells = pd.DataFrame.from_records(list(rows), columns=["cell_id", "pattern", "specimen_id"])
    tables = {
        side: [_table(cells, predicted[f"{side}-{seed}"]) for seed in fresh_seeds(recipe, seeds)] for side in SIDES
    }
    found = paired_difference(tables["tuned"], tables["default"], cells[["cell_id", "specimen_id"]])
    each = {
        side: [float((table["truth"] == table["predicted"]).mean()) for table in those]
        for side, those in tables.items()
    }
    return {**found, "cells": len(cells), "updates": updates, "each": each}


def _table(cells: pd.DataFrame, predicted: dict[str, str]) -> pd.DataFrame:
    table: pd.DataFrame = pd.DataFrame(
        {"cell_id": cells["cell_id"], "truth": cells["pattern"], "predicted": cells["cell_id"].map(predicted)}
    )
    return table
