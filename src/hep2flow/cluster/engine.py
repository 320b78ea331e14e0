"""Where a stage that needs Ray does its work: the one switch between this machine and a job on a cluster."""

from __future__ import annotations

from typing import Any

from hep2flow.cluster.options import checked_engine
from hep2flow.cluster.specification import Specification, perform
from hep2flow.distributed.cluster import RayWantedError, without_ray
from hep2flow.results import StageResult
from hep2flow.stages.train import to_standard_error
from hep2flow.store.runs import StageRecord
from hep2flow.store.s3 import Store


def perform_on(
    engine: str, cluster: dict[str, Any], store: Store, specification: Specification, record: StageRecord
) -> StageResult:
    """Do what is specified, here or as a RayJob; what is there already needs neither.

    record: of the step, whose heartbeat is the job's lease
    """
    where, options = checked_engine(engine, cluster)
    if where == "local":
        return perform(store, specification, record.announce, to_standard_error)
    try:
        with without_ray():
            return perform(store, specification, record.announce, to_standard_error)
    except RayWantedError:
        # Here, because a step that stays here needs no Kubernetes client.
        from hep2flow.cluster.follower import run_job

        return run_job(store, specification, options, to_standard_error)
