"""What a stage returns: where its output lies, whether it was there already, and what a person wants to know of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

Progress = Callable[[int, int], None]  # done, total


class StageResult(BaseModel):
    """Result of one stage.

    stage:   ingest, mask, split, train, evaluate or report
    key:     of the stage's cache entry
    uri:     of the output in the store
    cached:  the output was there already and whole, nothing was computed
    summary: figures worth a line on the terminal
    """

    model_config = ConfigDict(extra="forbid")

    stage: str
    key: str
    uri: str
    cached: bool = False
    summary: dict[str, Any] = Field(default_factory=dict)
