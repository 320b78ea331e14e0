"""Runs a stage that needs Ray: in this process, on an existing Ray cluster, or as a RayJob on Kubernetes."""

import os
from contextlib import suppress
from typing import Any

from hep2flow.distributed.ray_cluster import RayRequiredError, without_ray
from hep2flow.execution.job_spec import JobSpec, run_spec
from hep2flow.execution.kubernetes.cluster_options import parse_engine
from hep2flow.stage_result import StageResult
from hep2flow.stages.evaluate import evaluation_cache
from hep2flow.store.outage import log_to_stderr
from hep2flow.store.runs import StageRecord
from hep2flow.store.s3 import Store


def run_on_engine(
    engine: str, cluster: dict[str, Any], store: Store, spec: JobSpec, record: StageRecord
) -> StageResult:
    """Run a job specification; a cached result needs no Ray.

    ``engine`` and ``cluster`` are the pipelines' parameters; an evaluation is a RayJob of its own only where it wants a
    GPU. The heartbeat of the step's ``record`` is the RayJob's lease.
    """
    options = parse_engine(engine, cluster)
    if engine == "ray":
        os.environ["RAY_ADDRESS"] = options.address
    if engine != "rayjob" or (spec.stage == "evaluate" and not spec.recipe.resources.gpus_per_worker):
        return run_spec(store, spec, record.save_key, log_to_stderr)
    if spec.stage == "evaluate":
        cached = evaluation_cache(store, spec.recipe, spec.training, spec.dataset, spec.split).lookup()
        if cached is not None:
            return cached
    else:
        with suppress(RayRequiredError), without_ray():  # where the result is cached
            return run_spec(store, spec, record.save_key, log_to_stderr)
    # Imported here: a step that runs in its own pod needs no Kubernetes client.
    from hep2flow.execution.kubernetes.rayjob_watcher import run_rayjob

    return run_rayjob(store, spec, options, log_to_stderr, lambda: record.is_superseded)
