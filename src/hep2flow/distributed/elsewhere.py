"""One piece of work on a worker of the Ray cluster, for a driver that has no GPU itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import ray

from hep2flow.distributed.room import check_room, per_worker
from hep2flow.recipe import Resources

Result = TypeVar("Result")


def on_a_worker(resources: Resources, work: Callable[..., Result], *given: Any) -> Result:
    """Call ``work`` where there is room for one worker of these resources, and return what it returns.

    work: importable there too; a lost worker's is begun again
    Raises UserError where no machine of the cluster could hold it, and whatever ``work`` raises.
    """
    check_room(
        resources.model_copy(update={"workers": resources.workers.model_copy(update={"min": 1, "max": 1})}),
        grows=bool(os.environ.get("RAY_ADDRESS")),
    )
    asked = per_worker(resources)
    task = ray.remote(num_cpus=asked.get("CPU", 0), num_gpus=asked.get("GPU", 0), max_retries=2)(work)
    try:
        result: Result = ray.get(task.remote(*given))
    except ray.exceptions.RayTaskError as error:
        raise error.as_instanceof_cause() from error
    return result
