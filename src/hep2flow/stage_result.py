"""The result of a stage."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict

Progress = Callable[[int, int], None]  # done, total


class StageResult(BaseModel):
    """Result of one stage."""

    model_config = ConfigDict(extra="forbid")

    stage: str  # ingest, mask, split, train, evaluate or report
    key: str  # of the stage's cache entry
    uri: str  # of the output in the store
    cached: bool = False  # a complete output existed already, nothing was computed
    summary: dict[str, Any] = {}  # figures worth a line on the terminal
