"""Inside a job on a cluster: do what a specification in the store says, and leave word of how it ended."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stdout

from hep2flow.distributed.ray_cluster import connected
from hep2flow.errors import UserError
from hep2flow.execution.job_spec import Outcome, Specification, forget_outcome, perform, read_specification
from hep2flow.execution.kubernetes.lease import is_abandoned, leased
from hep2flow.execution.progress_display import followed_sweep, followed_training
from hep2flow.process import TerminatedError
from hep2flow.stage_result import StageResult
from hep2flow.store.outage import to_standard_error
from hep2flow.store.runs import told_error
from hep2flow.store.s3 import Store, StoreAddress, open_store


def do(store: Store, uri: str) -> StageResult | None:
    """Train, tune or evaluate as the specification says, for as long as somebody follows, and leave the job's outcome.

    Returns:
        The stage's result. None where there is none and trying again would help nobody: a job that failed is begun again
        by KubeRay, on a new Ray cluster with as many GPUs, so this one ends well and its outcome says what is wrong.

    Raises:
        Exception: All else, as the stage raised it. A job that is ended leaves no outcome.
    """
    try:
        specification = read_specification(store, uri)
    except UserError as error:
        Outcome(error=told_error(error), mendable=True).write_beside(store, uri)
        _tell(told_error(error))
        return None
    if is_abandoned(store, specification):
        _abandon(store, uri)
        return None
    forget_outcome(store, specification)
    expired = threading.Event()
    try:
        with leased(store, specification) as expired:
            result = _WAYS[specification.stage](store, specification)
    except TerminatedError:
        if not expired.is_set():
            raise
        _abandon(store, uri)
        return None
    except Exception as error:
        mendable = isinstance(error, UserError)
        Outcome(error=told_error(error), mendable=mendable).write_beside(store, uri)
        if not mendable:
            raise
        _tell(told_error(error))
        return None
    Outcome(result=result).write_beside(store, uri)
    return result


def _abandon(store: Store, uri: str) -> None:
    Outcome(abandoned=True).write_beside(store, uri)
    _tell(f"{uri}: the step that asked for this has ended or gives no sign of life; run it again")


def _tell(text: str) -> None:
    print(f"hep2flow: {text}", file=sys.stderr, flush=True)


def _train(store: Store, specification: Specification) -> StageResult:
    with followed_training(store, specification.recipe.name) as following:
        return perform(store, specification, following.announce, following.tell)


def _tune(store: Store, specification: Specification) -> StageResult:
    with followed_sweep(store, specification.recipe.name) as following:
        return perform(store, specification, following.announce, following.tell)


def _evaluate(store: Store, specification: Specification) -> StageResult:
    """On a worker: the head, where this runs, has no GPU."""
    with redirect_stdout(sys.stderr), connected():
        from hep2flow.distributed.ray_tasks import on_a_worker

        return on_a_worker(specification.recipe.resources, _evaluate_there, store.address, specification)


def _evaluate_there(address: StoreAddress, specification: Specification) -> StageResult:
    return perform(open_store(address, to_standard_error), specification, lambda key: None, to_standard_error)


_WAYS: dict[str, Callable[[Store, Specification], StageResult]] = {
    "train": _train,
    "tune": _tune,
    "evaluate": _evaluate,
}
