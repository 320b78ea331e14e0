"""Specification of one stage of one recipe: stored for the job that runs it, with the outcome that the job leaves."""

import hashlib
from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ValidationError

from hep2flow.errors import UserError
from hep2flow.recipe import Recipe
from hep2flow.search.settings import SweepSettings
from hep2flow.stage_result import StageResult
from hep2flow.store import layout
from hep2flow.store.outage import Log
from hep2flow.store.s3 import Store


class JobSpec(BaseModel, extra="forbid", frozen=True):
    """``runs/{run_id}/specs/{digest}.json``; what is passed between stages are URIs."""

    run_id: str
    recipe: Recipe
    dataset: str  # in the form that the recipe wants
    split: str
    sweep: SweepSettings | None = None  # of stage tune alone
    training: str = ""  # of stage evaluate alone

    @property
    def stage(self) -> Literal["train", "tune", "evaluate"]:
        """The stage, and the command that runs it."""
        if self.training:
            return "evaluate"
        return "train" if self.sweep is None else "tune"

    @property
    def digest(self) -> str:
        """32 hexadecimal digits, of the stored text."""
        return hashlib.sha256(self._text()).hexdigest()[:32]

    def write(self, store: Store) -> str:
        """Store the specification; returns its URI."""
        key = layout.spec_key(self.run_id, self.digest)
        store.put_bytes(key, self._text())
        return store.uri(key)

    def _text(self) -> bytes:
        # Keys are not sorted: the order of a search space has a meaning. What follows a sweep is not the job's.
        return self.model_dump_json(indent=2, exclude={"sweep": {"finals", "beside"}}).encode()


def read_spec(store: Store, uri: str) -> JobSpec:
    """Read what :meth:`JobSpec.write` wrote; UserError for anything else, and from another version of hep2flow."""
    try:
        spec = JobSpec.model_validate(store.get_json(store.key(uri)))
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError(f"{uri}: {key} is damaged, or from another version of hep2flow; start the run again") from error
    if spec.digest not in uri:
        what = f"{uri}: was written by another version of hep2flow than this one"
        raise UserError(f"{what}; give the steps and cluster.image the same")
    return spec


class JobOutcome(BaseModel, extra="forbid"):
    """``runs/{run_id}/specs/{digest}-outcome.json``: how a job ended; a job that is killed leaves none."""

    result: StageResult | None = None
    error: str = ""
    mendable: bool = False  # the user can fix the error
    abandoned: bool = False  # no step watched the job any more, so it saved its state and ended

    @staticmethod
    def read(store: Store, spec: JobSpec) -> "JobOutcome | None":
        """The outcome of the last job with this specification; None where there is none."""
        found = store.find_json(layout.outcome_key(spec.run_id, spec.digest))
        return None if found is None else JobOutcome.model_validate(found)

    def write(self, store: Store, spec_uri: str) -> None:
        """Store the outcome beside the specification of this URI."""
        store.put_json(f"{store.key(spec_uri).removesuffix('.json')}-outcome.json", self.model_dump(mode="json"))


def delete_outcome(store: Store, spec: JobSpec) -> None:
    """Delete an earlier attempt's outcome before a new attempt."""
    store.delete([layout.outcome_key(spec.run_id, spec.digest)])


def run_spec(store: Store, spec: JobSpec, announce: Callable[[str], None], log: Log) -> StageResult:
    """Run the stage in this process and on its Ray cluster; a cached result is returned at once.

    The summary of a judged sweep also holds ``judgement`` and ``judgement_uri``.
    """
    # Imported here: the stages need torch and Ray, which a step that only submits a job does not have.
    if spec.training:
        from hep2flow.stages.evaluate import evaluate

        return evaluate(store, spec.recipe, spec.training, spec.dataset, spec.split)
    if spec.sweep is None:
        from hep2flow.stages.train import train

        return train(store, spec.recipe, spec.dataset, spec.split, announce, log)
    from hep2flow.stages.judge import judge_sweep
    from hep2flow.stages.tune import tune

    result = tune(store, spec.recipe, spec.dataset, spec.split, spec.sweep, announce=announce, log=log)
    if spec.sweep.judge:
        judged = judge_sweep(store, result.uri, spec.sweep.judge, announce, log)
        result.summary |= {"judgement": judged.summary, "judgement_uri": judged.uri}
    return result
