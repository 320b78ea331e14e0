"""The trainings that judge a sweep's winner, as Ray tasks; predictions go to the store, so that none is repeated."""

from collections.abc import Mapping
from contextlib import suppress

import ray

from hep2flow.distributed.capacity import check_capacity, worker_resources
from hep2flow.distributed.ray_tasks import remote_task, task_result
from hep2flow.distributed.sweep_spec import SweepSpec, share_cells
from hep2flow.distributed.trial import TrialSpec, train_and_predict
from hep2flow.errors import StoreError
from hep2flow.recipe import Recipe
from hep2flow.search.trials import trial_updates, with_updates
from hep2flow.store.open_store import open_store
from hep2flow.store.outage import Log
from hep2flow.store.training_status import TrainingStatus


def run_judging(
    spec: SweepSpec, prefix: str, trainings: Mapping[str, Recipe], log: Log
) -> tuple[dict[str, dict[str, str]], int]:
    """Train each recipe, by its name, all with as many updates as a trial of ``spec.recipe``.

    The predictions are stored under ``prefix`` until all are there; ``log`` gets one line per finished training.

    Returns:
        Name -> cell_id -> predicted pattern, and the number of updates.

    Raises:
        UserError: The cluster lacks what a training requests, or a training raised it.
    """
    store, resources = open_store(spec.store, log), spec.recipe.resources
    check_capacity(resources)
    shared, labels = share_cells(store, spec, judging=True)
    updates = trial_updates(spec.recipe, labels)
    done = {name: dict(store.get_json(key)) for name in trainings if store.exists(key := f"{prefix}/{name}.json")}
    # A task of several workers only starts them: they request their resources themselves.
    task = remote_task(train_and_predict, worker_resources(resources) if resources.workers.max == 1 else {})
    running = {}
    for name, recipe in trainings.items():
        if name not in done:
            trained, state = with_updates(recipe, labels, updates), f"{prefix}/running/{name}"
            trial = TrialSpec(store=spec.store, prefix=state, recipe=trained, weights=spec.weights)
            running[task.remote(trial, shared)] = name
    status = TrainingStatus(store, spec.prefix)
    while running:
        with suppress(StoreError):
            status.put_progress({"judging": len(done), "trainings": len(trainings)})
        (ready,), _ = ray.wait(list(running), num_returns=1)
        name = running.pop(ready)
        done[name] = dict(task_result(ready))
        store.put_json(f"{prefix}/{name}.json", done[name])
        store.delete_folder(f"{prefix}/running/{name}")
        log(f"judging: {name} done, {len(done)} of {len(trainings)}")
    status.clear()
    return done, updates
