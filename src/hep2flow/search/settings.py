"""What a sweep is asked to do, in one form for the command line, a run's record, a job's specification and the stages."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hep2flow.errors import UserError


class SweepSettings(BaseModel):
    """Settings of the sweep of one recipe; 0 and empty stand for no limit and nothing.

    Attributes:
        trials: Total number; an existing smaller sweep is extended.
        hours: After which no more trials are started.
        concurrency: Trials at once.
        earlier: Run, or URI of a sweep of the same space, whose trials the search learns from.
        judge: Trainings of the winner, and of the recipe as it is, that judge the winner.
        finals: Full trainings of the winner, under successive seeds.
        beside: Whether the recipes are trained as they are too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    trials: int = Field(ge=1)
    hours: float = Field(default=0.0, ge=0)
    concurrency: int = Field(default=0, ge=0)
    earlier: str = ""
    judge: int = Field(default=5, ge=0)
    finals: int = 1
    beside: bool = False


def parse_sweep_settings(given: dict[str, Any], origin: str = "") -> SweepSettings:
    """Validate settings from outside; UserError naming the setting, with ``origin`` before it."""
    try:
        return SweepSettings.model_validate(given)
    except ValidationError as error:
        fault = error.errors()[0]
        raise UserError(f"{origin}{fault['loc'][0]}: {fault['msg']}, not {fault['input']!r}") from error
