"""The trainings that judge a sweep's winner, as Ray tasks; what each predicted lies in the store, so none is repeated."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import ray
import torch

from hep2flow.distributed.capacity import check_room, per_worker
from hep2flow.distributed.sweep_spec import SweepSpec, held, read_cells
from hep2flow.distributed.trial import TrialSpec, judged
from hep2flow.errors import StoreError
from hep2flow.recipe import Recipe
from hep2flow.search.trial_budget import of_length, trial_updates
from hep2flow.store.errors import NotThereError
from hep2flow.store.outage import Tell
from hep2flow.store.s3 import Store, open_store
from hep2flow.store.training_status import Live

RETRIES = 2  # of a training whose process or machine was lost; it goes on from its last state


def run_judging(
    spec: SweepSpec, prefix: str, trainings: Mapping[str, Recipe], tell: Tell
) -> tuple[dict[str, dict[str, str]], int]:
    """Train each recipe, all with equal updates; returns name -> cell_id -> predicted pattern, and the updates.

    prefix:    where the predictions lie until all are there
    trainings: name -> recipe; the updates are those of a trial of ``spec.recipe``
    Raises UserError where the cluster lacks what a training asks for, and as a training raised it.
    """
    store, resources = open_store(spec.store, tell), spec.recipe.resources
    check_room(resources, grows=bool(os.environ.get("RAY_ADDRESS")))
    cells = read_cells(store, spec, "judge")
    first = next(iter(cells.values()))
    labels = torch.tensor([first.labels.index(row["pattern"]) for row in first.training])
    updates = trial_updates(spec.recipe, labels)
    done = {name: found for name in trainings if (found := _read(store, f"{prefix}/{name}.json")) is not None}
    shared = held(cells)
    asked = per_worker(resources) if resources.workers.max == 1 else {}
    task = ray.remote(
        num_cpus=asked.get("CPU", 0), num_gpus=asked.get("GPU", 0), max_retries=RETRIES, retry_exceptions=False
    )(judged)
    running = {
        task.remote(
            TrialSpec(
                store=spec.store,
                prefix=f"{prefix}/running/{name}",
                recipe=of_length(recipe, labels, updates),
                weights=spec.weights,
            ),
            shared,
        ): name
        for name, recipe in trainings.items()
        if name not in done
    }
    live = Live(store, spec.prefix)
    while running:
        _show(live, len(done), len(trainings))
        (ready,), _ = ray.wait(list(running), num_returns=1)
        name = running.pop(ready)
        done[name] = _result(ready)
        store.put_json(f"{prefix}/{name}.json", done[name])
        store.delete_folder(f"{prefix}/running/{name}")
        tell(f"judging: {name} done, {len(done)} of {len(trainings)}")
    live.end()
    return done, updates


def _result(reference: Any) -> dict[str, str]:
    try:
        return dict(ray.get(reference))
    except ray.exceptions.RayTaskError as error:
        raise error.as_instanceof_cause() from error


def _show(live: Live, done: int, count: int) -> None:
    try:
        live.put_progress({"judging": done, "trainings": count})
    except StoreError:
        return


def _read(store: Store, key: str) -> dict[str, str] | None:
    try:
        return dict(store.get_json(key))
    except NotThereError:
        return None
