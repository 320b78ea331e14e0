"""The result of a stage."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

Progress = Callable[[int, int], None]  # done, total


class StageResult(BaseModel, extra="forbid"):
    """Result of one stage."""

    stage: str  # ingest, mask, split, train, evaluate or report
    key: str  # of the stage's cache entry
    uri: str  # of the output in the store
    cached: bool = False  # a complete output existed already, nothing was computed
    summary: dict[str, Any] = {}  # figures worth a line on the terminal
