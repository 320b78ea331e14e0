"""Entry point of a job on a cluster: runs the specification that lies in the store, and stores how the job ended."""

import threading

from hep2flow.distributed.ray_cluster import connected
from hep2flow.errors import UserError
from hep2flow.execution.job_spec import JobOutcome, JobSpec, delete_outcome, read_spec, run_spec
from hep2flow.execution.kubernetes.lease import is_abandoned, job_lease
from hep2flow.execution.watch_run import show_stage_progress
from hep2flow.process import TerminatedError
from hep2flow.stage_result import StageResult
from hep2flow.store.address import StoreAddress
from hep2flow.store.open_store import open_store
from hep2flow.store.outage import log_to_stderr
from hep2flow.store.s3 import Store
from hep2flow.store.stage_recorder import error_text


def run_job(store: Store, uri: str) -> StageResult | None:
    """Train, tune or evaluate as the specification says, while a step watches the job, and store the job's outcome.

    Returns:
        The stage's result. None where the job failed and a repetition would not help: KubeRay starts a failed job again on
        a new Ray cluster with as many GPUs, so this one ends with exit code 0 and its outcome holds the error.

    Raises:
        Exception: All else, as the stage raised it. A job that is terminated leaves no outcome.
    """
    expired, outcome = threading.Event(), JobOutcome(abandoned=True)
    try:
        spec = read_spec(store, uri)
        if not is_abandoned(store, spec):
            delete_outcome(store, spec)
            with job_lease(store, spec) as expired:
                outcome = JobOutcome(result=_run(store, spec))
    except TerminatedError:
        if not expired.is_set():
            raise
    except UserError as error:
        outcome = JobOutcome(error=error_text(error), mendable=True)
    except Exception as error:
        JobOutcome(error=error_text(error)).write(store, uri)
        raise
    outcome.write(store, uri)
    if outcome.result is None:
        message = f"{uri}: the step of this job has ended or gives no sign of life; run it again"
        log_to_stderr(f"hep2flow: {message if outcome.abandoned else outcome.error}")
    return outcome.result


def _run(store: Store, spec: JobSpec) -> StageResult:
    if spec.stage != "evaluate":
        with show_stage_progress(store, spec.stage, spec.recipe.name) as (announce, log):
            return run_spec(store, spec, announce, log)
    with connected():
        from hep2flow.distributed.ray_tasks import run_on_worker

        # This process runs on the head, which has no GPU.
        return run_on_worker(spec.recipe.resources, _evaluate, store.address, spec)


def _evaluate(address: StoreAddress, spec: JobSpec) -> StageResult:
    return run_spec(open_store(address, log_to_stderr), spec, lambda key: None, log_to_stderr)
