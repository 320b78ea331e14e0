"""Inside a job on a cluster: do what a specification in the store says, and leave word of how it ended."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout

from hep2flow.cluster.follow import followed_sweep, followed_training
from hep2flow.cluster.lease import is_abandoned, leased
from hep2flow.cluster.specification import Outcome, Specification, forget_outcome, perform, read_specification
from hep2flow.distributed.cluster import connected
from hep2flow.errors import UserError
from hep2flow.results import StageResult
from hep2flow.stages.train import to_standard_error
from hep2flow.store.runs import told_error
from hep2flow.store.s3 import Store, StoreAddress, open_store


def do(store: Store, uri: str) -> StageResult:
    """Train, tune or evaluate as the specification says, for as long as somebody follows.

    uri: of the specification
    Raises UserError and all else as the stage does, and leaves it as the job's outcome; a job that is ended leaves none.
    """
    specification = read_specification(store, uri)
    if is_abandoned(store, specification):  # KubeRay begins an abandoned job again, and would hold its GPUs once more
        raise UserError(f"{uri}: the step that asked for this has ended or gives no sign of life; run it again")
    forget_outcome(store, specification)
    try:
        with leased(store, specification):
            result = _WAYS[specification.stage](store, specification)
    except Exception as error:
        Outcome(error=told_error(error), mendable=isinstance(error, UserError)).write(store, specification)
        raise
    Outcome(result=result).write(store, specification)
    return result


def _train(store: Store, specification: Specification) -> StageResult:
    with followed_training(store, specification.recipe.name) as following:
        return perform(store, specification, following.announce, following.tell)


def _tune(store: Store, specification: Specification) -> StageResult:
    with followed_sweep(store, specification.recipe.name) as following:
        return perform(store, specification, following.announce, following.tell)


def _evaluate(store: Store, specification: Specification) -> StageResult:
    """On a worker: the head, where this runs, has no GPU."""
    with redirect_stdout(sys.stderr), connected():
        from hep2flow.distributed.elsewhere import on_a_worker

        return on_a_worker(specification.recipe.resources, _evaluate_there, store.address, specification)


def _evaluate_there(address: StoreAddress, specification: Specification) -> StageResult:
    return perform(open_store(address), specification, lambda key: None, to_standard_error)


_WAYS: dict[str, Callable[[Store, Specification], StageResult]] = {
    "train": _train,
    "tune": _tune,
    "evaluate": _evaluate,
}
