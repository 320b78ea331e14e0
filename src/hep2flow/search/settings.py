"""What a sweep is asked to do, in one form for the command line, a run's record, a job's specification and the stages."""

from typing import Any

from pydantic import BaseModel, Field, ValidationError

from hep2flow.errors import UserError


class SweepSettings(BaseModel, extra="forbid", frozen=True):
    """Settings of the sweep of one recipe; 0 and empty stand for no limit and nothing."""

    trials: int = Field(ge=1)  # total number; an existing smaller sweep is extended
    hours: float = Field(default=0.0, ge=0)  # after which no more trials are started
    concurrency: int = Field(default=0, ge=0)  # trials at once
    earlier: str = ""  # run, or URI of a sweep of the same space, whose trials the search learns from
    judge: int = Field(default=5, ge=0)  # trainings of the winner, and of the recipe as it is, that judge the winner
    finals: int = 1  # full trainings of the winner, under successive seeds
    beside: bool = False  # whether the recipes are trained as they are too


def parse_sweep_settings(given: dict[str, Any], origin: str = "") -> SweepSettings:
    """Validate settings from outside; UserError naming the setting, with ``origin`` before it."""
    try:
        return SweepSettings.model_validate(given)
    except ValidationError as error:
        fault = error.errors()[0]
        raise UserError(f"{origin}{fault['loc'][0]}: {fault['msg']}, not {fault['input']!r}") from error
