"""Starts Ray Train, restarts it after recoverable failures, reports the others.

Ray places and starts the workers. How often, and how many of them, is decided here: Ray neither waits for a saved state
before it changes their number, nor continues with fewer workers when a machine is lost.
"""

import time
from contextlib import nullcontext, suppress
from pathlib import Path

from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2.api.exceptions import ControllerError, PreemptionError, TrainingFailedError, WorkerGroupError

from hep2flow.distributed.capacity import alive_nodes, check_capacity, free_workers, watch_capacity
from hep2flow.distributed.resource_errors import LESS_MEMORY
from hep2flow.distributed.torch_trainer import fit_on_workers
from hep2flow.distributed.train_worker import TrainingSpec, run_worker
from hep2flow.errors import StoreError, UserError
from hep2flow.process import TerminatedError, on_sigterm
from hep2flow.store.open_store import open_store
from hep2flow.store.outage import Log
from hep2flow.store.training_status import TrainingStatus

POLL_SECONDS = 2.0
# After a worker or a machine is lost, Ray needs a moment to know what is free.
SETTLE_SECONDS = 5.0
# Ray checks its nodes every 3 s, and gives one up after five checks without an answer.
NODE_LOSS_SECONDS = 20.0


def run_training(spec: TrainingSpec, log: Log) -> None:
    """Train on the connected Ray cluster; on return the training is published at ``spec.prefix``.

    It is restarted from its last state after a crash (``resources.max_failures`` times), after a preempted or lost machine
    (always), and when the cluster gains capacity for more workers. ``log`` gets one line per event.

    Raises:
        UserError: The cluster lacks what the recipe requests, or the worker raised it.
        TerminatedError: This process got SIGTERM; the state is saved.
    """
    resources, store = spec.recipe.resources, open_store(spec.store, log)
    status = TrainingStatus(store, spec.prefix)
    check_capacity(resources)
    failures = 0
    with on_sigterm(status.request_stop) as terminated:
        while not terminated.is_set():
            status.start_attempt()
            if terminated.is_set():  # begin() may have deleted the stop request of this very SIGTERM
                break
            workers, nodes = _initial_workers(spec, log), alive_nodes()
            try:
                result = _run_attempt(spec, workers, status, log)
            except TrainingFailedError as error:
                if (rejection := status.rejection()) is not None:
                    raise UserError(rejection) from error
                if terminated.is_set():
                    break
                if (reason := _uncounted_reason(error, nodes)) is None:
                    failures, allowed = failures + 1, resources.max_failures
                    if failures > allowed:
                        raise _final_error(error, failures) from error
                    reason = f"a worker was lost ({_first_line(error)}), {failures} of {allowed} times allowed"
                _notify(status, log, f"{reason}; the training resumes from its last state")
            else:
                if result == "completed":
                    status.clear()
                    return
                if result == "rejected":
                    raise UserError(status.rejection() or "the worker failed, and its message is lost; run it again")
    log("ended by SIGTERM: the state is saved, the same command resumes from it")
    raise TerminatedError


def _run_attempt(spec: TrainingSpec, workers: int, status: TrainingStatus, log: Log) -> str:
    """Train with so many workers, stopping early when there is capacity for more; returns rank 0's WorkerResult."""
    resources = spec.recipe.resources

    def on_growth(more: int) -> None:
        size = min(workers + more, resources.workers.max)
        _notify(status, log, f"the cluster has capacity for {size} workers now: saving, restarting with {size} workers")
        status.request_stop()

    name, config, may_grow = Path(spec.prefix).name, spec.model_dump(mode="json"), workers < resources.workers.max
    with watch_capacity(lambda: free_workers(resources), on_growth) if may_grow else nullcontext():
        return str(fit_on_workers(run_worker, config, name, workers, resources))


def _initial_workers(spec: TrainingSpec, log: Log) -> int:
    """Wait until the recipe's minimum of workers fits, and return how many do, at most its maximum."""
    resources = spec.recipe.resources
    bounds, deadline, logged = resources.workers, time.monotonic() + SETTLE_SECONDS, False
    if bounds.min == bounds.max:
        return bounds.min  # Ray waits for their resources itself
    while True:
        fitting = min(free_workers(resources), bounds.max)
        settled = time.monotonic() > deadline
        if fitting == bounds.max or (settled and fitting >= bounds.min):
            return fitting
        if settled and not logged:
            logged = True
            log(f"waiting for capacity for {bounds.min} workers; the cluster has capacity for {fitting} now")
        time.sleep(POLL_SECONDS)


def _uncounted_reason(error: TrainingFailedError, nodes: set[str]) -> str | None:
    """Why the attempt, started with these nodes alive, failed, if that does not count as a failure; None if it does."""
    if isinstance(error, PreemptionError) or any(getattr(cause, "preempted", False) for cause in _causes(error)):
        return "a machine of this training is being preempted"
    # The workers beside a lost node fail at once, Ray knows seconds later.
    deadline = time.monotonic() + (NODE_LOSS_SECONDS if len(nodes) > 1 else 0.0)
    while not (lost := nodes - alive_nodes()) and time.monotonic() < deadline:
        time.sleep(0.5)
    if lost:
        return "a machine of this training is lost"
    if isinstance(error, ControllerError) and isinstance(error.controller_failure, WorkerGroupStartupTimeoutError):
        return "the cluster had no capacity for the workers yet"
    return None


def _final_error(error: Exception, failures: int) -> Exception:
    """The error to raise after too many failures: a UserError where memory was short."""
    if any(isinstance(cause, OutOfMemoryError) or "low on memory" in str(cause) for cause in _causes(error)):
        return UserError(f"out of memory on the worker's machine, {failures} times: {LESS_MEMORY}")
    return error


def _first_line(error: Exception) -> str:
    causes = _causes(error)
    # Where one worker is lost, the others of its group fail too.
    first = next((cause for cause in causes if isinstance(cause, RayActorError)), causes[0] if causes else error)
    lines = [line.strip() for line in str(first).splitlines() if line.strip()]
    return lines[0][:120].rstrip(".") if lines else type(first).__name__


def _causes(error: Exception) -> list[BaseException]:
    failed = list(error.worker_failures.values()) if isinstance(error, WorkerGroupError) else []
    # Ray wraps the failure of a worker that no longer answers into a failed health check.
    unwrapped = [getattr(failure, "health_check_failure", None) or failure for failure in failed]
    return [cause for failure in unwrapped for cause in (failure, failure.__cause__) if cause is not None]


def _notify(status: TrainingStatus, log: Log, text: str) -> None:
    log(text)
    with suppress(StoreError):
        status.add_notice(text)
