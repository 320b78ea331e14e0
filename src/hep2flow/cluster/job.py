"""Inside a job on a cluster: do what a specification in the store says, and leave word of how it ended."""

from __future__ import annotations

from hep2flow.cluster.follow import followed_sweep, followed_training
from hep2flow.cluster.lease import leased
from hep2flow.cluster.specification import Outcome, forget_outcome, perform, read_specification
from hep2flow.errors import UserError
from hep2flow.results import StageResult
from hep2flow.store.runs import told_error
from hep2flow.store.s3 import Store


def do(store: Store, uri: str) -> StageResult:
    """Train or tune as the specification says, for as long as somebody follows.

    uri: of the specification
    Raises UserError and all else as the stage does, and leaves it as the job's outcome; a job that is ended leaves none.
    """
    specification = read_specification(store, uri)
    forget_outcome(store, specification)
    shown = followed_training if specification.stage == "train" else followed_sweep
    try:
        with leased(store, specification), shown(store, specification.recipe.name) as following:
            result = perform(store, specification, following.announce, following.tell)
    except Exception as error:
        Outcome(error=told_error(error), mendable=isinstance(error, UserError)).write(store, specification)
        raise
    Outcome(result=result).write(store, specification)
    return result
