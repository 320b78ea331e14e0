"""What one stage of one recipe is asked to do, as it lies in the store for a job that does it elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hep2flow.errors import UserError
from hep2flow.recipe import Recipe
from hep2flow.stage_result import StageResult
from hep2flow.store import layout
from hep2flow.store.errors import NotThereError
from hep2flow.store.outage import Tell
from hep2flow.store.s3 import Store


class Trials(BaseModel):
    """What a sweep is asked to do, as the stages ``tune`` and ``judge`` take it; 0 for no limit and nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trials: int = Field(ge=1)
    hours: float = Field(default=0.0, ge=0)
    concurrency: int = Field(default=0, ge=0)
    earlier: str = ""
    judge: int = Field(default=5, ge=0)


class Specification(BaseModel):
    """``runs/{run_id}/specs/{digest}.json``: a stage, what it works on, and the run it works for.

    dataset:  URI, in the form the recipe wants; split: URI
    sweep:    of stage ``tune`` alone
    training: URI, of stage ``evaluate`` alone
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_id: str
    recipe: Recipe
    dataset: str
    split: str
    sweep: Trials | None = None
    training: str = ""

    @property
    def stage(self) -> Literal["train", "tune", "evaluate"]:
        """The stage, and the command that does it."""
        if self.training:
            return "evaluate"
        return "train" if self.sweep is None else "tune"

    @property
    def digest(self) -> str:
        """32 hexadecimal digits, of everything in it."""
        return hashlib.sha256(self._text()).hexdigest()[:32]

    def write(self, store: Store) -> str:
        """Put it in the store; returns its URI."""
        key = layout.spec_key(self.run_id, self.digest)
        store.put_bytes(key, self._text())
        return store.uri(key)

    def _text(self) -> bytes:
        # Not sorted: the order of a search space has a meaning.
        return self.model_dump_json(indent=2).encode()


def read_specification(store: Store, uri: str) -> Specification:
    """What :meth:`Specification.write` wrote; UserError for anything else, and from another version of hep2flow."""
    try:
        said = Specification.model_validate(store.get_json(store.key(uri)))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError(
            f"{uri}: {where} is damaged, or from another version of hep2flow; start the run again"
        ) from error
    if said.digest not in uri:
        raise UserError(
            f"{uri}: was written by another version of hep2flow than this one; give the steps and cluster.image the same"
        )
    return said


class Outcome(BaseModel):
    """How a job ended, in its own words: ``runs/{run_id}/specs/{digest}-outcome.json``; none from one that was killed.

    Attributes:
        result: Of the stage.
        error: What went wrong.
        mendable: The user can mend it.
        abandoned: Nobody followed the job any more, so it saved its state and ended.
    """

    model_config = ConfigDict(extra="forbid")

    result: StageResult | None = None
    error: str = ""
    mendable: bool = False
    abandoned: bool = False

    @staticmethod
    def read(store: Store, specification: Specification) -> Outcome | None:
        """The outcome of the last job that was to do this; None where there is none."""
        try:
            return Outcome.model_validate(store.get_json(_outcome_key(specification)))
        except NotThereError:
            return None

    def write_beside(self, store: Store, uri: str) -> None:
        """Leave it beside the specification of this URI for whoever follows the job."""
        store.put_json(f"{store.key(uri).removesuffix('.json')}-outcome.json", self.model_dump(mode="json"))


def forget_outcome(store: Store, specification: Specification) -> None:
    """Before an attempt: what was said of an earlier one is not true of this one."""
    store.delete([_outcome_key(specification)])


def _outcome_key(specification: Specification) -> str:
    return layout.outcome_key(specification.run_id, specification.digest)


def perform(store: Store, specification: Specification, announce: Callable[[str], None], tell: Tell) -> StageResult:
    """Do what is specified, in this process and on its Ray cluster; what is there already is returned at once.

    announce, tell: as the stages take them
    The summary of a judged sweep also holds ``judgement`` and ``judgement_uri``.
    """
    recipe, dataset, split, sweep = (
        specification.recipe,
        specification.dataset,
        specification.split,
        specification.sweep,
    )
    if specification.training:
        from hep2flow.stages.evaluate import evaluate

        return evaluate(store, recipe, specification.training, dataset, split)
    if sweep is None:
        from hep2flow.stages.train import train

        return train(store, recipe, dataset, split, announce, tell)
    from hep2flow.stages.judge import judge
    from hep2flow.stages.tune import tune

    result = tune(
        store,
        recipe,
        dataset,
        split,
        sweep.trials,
        concurrency=sweep.concurrency or None,
        hours=sweep.hours or None,
        earlier=sweep.earlier,
        announce=announce,
        tell=tell,
    )
    if sweep.judge:
        judged = judge(store, result.uri, sweep.judge, announce, tell)
        facts: dict[str, Any] = {"judgement": judged.summary, "judgement_uri": judged.uri}
        result.summary |= facts
    return result
