"""Where a stage that needs Ray does its work: the one switch between this machine, a Ray cluster and a job on Kubernetes."""

from __future__ import annotations

import os
from typing import Any

from hep2flow.distributed.ray_cluster import RayWantedError, without_ray
from hep2flow.execution.job_spec import Specification, perform
from hep2flow.execution.kubernetes.cluster_options import checked_engine
from hep2flow.stage_result import StageResult
from hep2flow.stages.evaluate import look_up_evaluation
from hep2flow.store.outage import to_standard_error
from hep2flow.store.runs import StageRecord
from hep2flow.store.s3 import Store


def perform_on(
    engine: str, cluster: dict[str, Any], store: Store, specification: Specification, record: StageRecord
) -> StageResult:
    """Do what is specified, here, on a Ray cluster that is there, or as a RayJob; what is there already needs none.

    record: of the step, whose heartbeat is the job's lease
    An evaluation is a job of its own only where it wants a GPU.
    """
    where, options = checked_engine(engine, cluster)
    if where == "ray":
        os.environ["RAY_ADDRESS"] = options.address
    if where != "rayjob" or _fits_into_the_step(specification):
        return perform(store, specification, record.announce, to_standard_error)
    try:
        return _there_already(store, specification, record)
    except RayWantedError:
        # Here, because a step that stays here needs no Kubernetes client.
        from hep2flow.execution.kubernetes.rayjob_watcher import run_job

        return run_job(store, specification, options, to_standard_error, lambda: record.is_superseded)


def _fits_into_the_step(specification: Specification) -> bool:
    return specification.stage == "evaluate" and not specification.recipe.resources.gpus_per_worker


def _there_already(store: Store, specification: Specification, record: StageRecord) -> StageResult:
    """RayWantedError where it is not."""
    if specification.stage != "evaluate":
        with without_ray():
            return perform(store, specification, record.announce, to_standard_error)
    said = specification
    _, there = look_up_evaluation(store, said.recipe, said.training, said.dataset, said.split)
    if there is None:
        raise RayWantedError
    return there
