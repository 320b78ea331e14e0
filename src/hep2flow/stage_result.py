"""The result of a stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

Progress = Callable[[int, int], None]  # done, total


class StageResult(BaseModel):
    """Result of one stage.

    Attributes:
        stage: ingest, mask, split, train, evaluate or report.
        key: Of the stage's cache entry.
        uri: Of the output in the store.
        cached: A complete output existed already, nothing was computed.
        summary: Figures worth a line on the terminal.
    """

    model_config = ConfigDict(extra="forbid")

    stage: str
    key: str
    uri: str
    cached: bool = False
    summary: dict[str, Any] = Field(default_factory=dict)
