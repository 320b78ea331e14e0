"""Ray Train around the training loop: start it, start it again where it may go on, tell what went wrong in it.

Ray places the workers and starts them; how often, and how many of them, is decided here, because Ray neither waits for
a state to be saved before it changes their number, nor goes on with fewer when a machine is lost.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path

from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2.api.exceptions import ControllerError, PreemptionError, TrainingFailedError, WorkerGroupError

from hep2flow.distributed.capacity import check_room, machines, room, watched
from hep2flow.distributed.torch_trainer import together
from hep2flow.distributed.train_worker import TrainingSpec, work
from hep2flow.errors import StoreError, UserError
from hep2flow.process import TerminatedError, on_sigterm
from hep2flow.store.outage import Tell
from hep2flow.store.s3 import open_store
from hep2flow.store.training_status import Live

WAIT_SECONDS = 2.0
# After a worker or a machine is gone Ray needs a moment to know what is free.
SETTLE_SECONDS = 5.0
# Ray looks after its machines every 3 s, and gives one up after five looks without an answer.
GIVEN_UP_SECONDS = 20.0


def run_training(spec: TrainingSpec, tell: Tell) -> None:
    """Train on the connected Ray cluster; on return the training is published at ``spec.prefix``.

    It goes on from its last state after a crash (``resources.max_failures`` times), a preempted or lost machine (any
    number of times), and where the cluster has room for another number of workers.
    tell: told of each
    Raises UserError where the cluster lacks what the recipe asks for, or as the worker raised it; TerminatedError where
    this process was asked to end by SIGTERM, once the state is saved.
    """
    resources, store = spec.recipe.resources, open_store(spec.store, tell)
    live = Live(store, spec.prefix)
    check_room(resources, grows=bool(os.environ.get("RAY_ADDRESS")))
    failures = 0
    with on_sigterm(live.ask_to_leave) as terminated:
        while not terminated.is_set():
            live.begin()
            if terminated.is_set():  # or the wish to leave may just have been forgotten
                break
            workers, before = _workers(spec, tell), machines()
            try:
                end = _attempt(spec, workers, live, tell)
            except TrainingFailedError as error:
                refused = live.refusal()
                if refused is not None:
                    raise UserError(refused) from error
                if terminated.is_set():
                    break
                why = _harmless(error, before)
                if why is None:
                    failures += 1
                    if failures > resources.max_failures:
                        raise _named(error, failures) from error
                    why = f"a worker was lost ({_reason(error)}), {failures} of {resources.max_failures} times allowed"
                _say(live, tell, f"{why}; the training goes on from its last state")
            else:
                if end == "done":
                    live.end()
                    return
                if end == "refused":
                    raise UserError(live.refusal() or "the worker refused, and the reason is lost; run it again")
    tell("asked to end by SIGTERM: the state is saved, the same command goes on from it")
    raise TerminatedError


def _attempt(spec: TrainingSpec, workers: int, live: Live, tell: Tell) -> str:
    """Train with so many workers until they are done, left or refused; Ray's TrainingFailedError where they failed."""
    resources = spec.recipe.resources

    def grow(more: int) -> None:
        size = min(workers + more, resources.workers.max)
        _say(live, tell, f"the cluster has room for {size} workers now: the training leaves and goes on with them")
        live.ask_to_leave()

    with ExitStack() as stack:
        if workers < resources.workers.max:
            stack.enter_context(watched(lambda: room(resources), grow))
        return str(together(work, spec.model_dump(mode="json"), Path(spec.prefix).name, workers, resources))


def _workers(spec: TrainingSpec, tell: Tell) -> int:
    """The number of workers to start with, at least the recipe's minimum: waits for room where there is less."""
    resources = spec.recipe.resources
    wanted, deadline, told = resources.workers, time.monotonic() + SETTLE_SECONDS, False
    if wanted.min == wanted.max:
        return wanted.min  # Ray waits for their room itself
    while True:
        fit = min(room(resources), wanted.max)
        settled = time.monotonic() > deadline
        if fit == wanted.max or (settled and fit >= wanted.min):
            return fit
        if settled and not told:
            told = True
            tell(f"waiting for room for {wanted.min} workers; the cluster has room for {fit} now")
        time.sleep(WAIT_SECONDS)


def _harmless(error: TrainingFailedError, before: set[str]) -> str | None:
    """Why the attempt ended, where that is not counted as a failure; None where it is.

    before: the machines that lived when it started
    """
    if isinstance(error, PreemptionError) or any(getattr(fault, "preempted", False) for fault in _faults(error)):
        return "a machine of this training is being taken away"
    if _gone(before):
        return "a machine of this training is gone"
    if isinstance(error, ControllerError) and isinstance(error.controller_failure, WorkerGroupStartupTimeoutError):
        return "the cluster had no room for the workers yet"
    return None


def _gone(before: set[str]) -> bool:
    """Whether a machine died. The workers beside it know at once, Ray seconds later."""
    deadline = time.monotonic() + (GIVEN_UP_SECONDS if len(before) > 1 else 0.0)
    while not before - machines():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.5)
    return True


def _named(error: Exception, failures: int) -> Exception:
    """A failure that came too often: named where it can be."""
    if any(isinstance(fault, OutOfMemoryError) or "low on memory" in str(fault) for fault in _faults(error)):
        return UserError(
            f"out of memory on the worker's machine, {failures} times: lower train.batch_size or train.loader_workers, "
            "set train.accumulation=2 or more, or give the machine more"
        )
    return error


def _reason(error: Exception) -> str:
    """The beginning of the first line that says what happened."""
    faults = _faults(error)
    # The others of a group fail because one is gone.
    first = next((fault for fault in faults if isinstance(fault, RayActorError)), faults[0] if faults else error)
    lines = [line.strip() for line in str(first).splitlines() if line.strip()]
    return lines[0][:120].rstrip(".") if lines else type(first).__name__


def _faults(error: Exception) -> list[BaseException]:
    failed = list(error.worker_failures.values()) if isinstance(error, WorkerGroupError) else []
    # A worker that does not answer any more is told as a failed health check around what happened to it.
    inner = [getattr(fault, "health_check_failure", None) or fault for fault in failed]
    return [cause for fault in inner for cause in (fault, fault.__cause__) if cause is not None]


def _say(live: Live, tell: Tell, text: str) -> None:
    tell(text)
    try:
        live.notice(text)
    except StoreError:
        return
