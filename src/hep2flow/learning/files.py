"""What a training leaves in its folder: taken at one moment, written by whoever has time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hep2flow.learning.checkpoint import Description, save_checkpoint
from hep2flow.learning.copied import Copied
from hep2flow.learning.state import Begun, State
from hep2flow.learning.step import Step

BEST, METRICS, STATE = "best.safetensors", "metrics.jsonl", "state.safetensors"


@dataclass(frozen=True)
class Files:
    """What the folder of a training shall hold at one moment of it.

    epoch, updates: whole epochs and updates done
    fresh:          names of the files that are not those of the moment before
    goes_on:        whether a training can go on from them: not from the last, which has no state
    later:          whether they may be written while the training goes on; else before it does
    write:          puts them there, in any thread, once, one moment after the other; the state is no whole file meanwhile
    """

    folder: Path
    epoch: int
    updates: int
    fresh: list[str]
    goes_on: bool
    later: bool
    write: Callable[[], None]


def after_epoch(
    folder: Path, step: Step, history: list[dict[str, Any]], description: Description, *, last: bool, later: bool
) -> Files:
    """``metrics.jsonl``, ``best.safetensors`` where this epoch is the best so far, and, but for the last, the state.

    history: one line of ``metrics.jsonl`` per whole epoch
    """
    network = Copied(step.candidate.state_dict(), later=later) if history[-1]["best"] else None
    state = None if last else State(step, history, later=later)
    lines = "".join(json.dumps(line) + "\n" for line in history)

    def write() -> None:
        if network is not None:
            save_checkpoint(folder / BEST, network, description)
        temporary = folder / f"{METRICS}.tmp"
        temporary.write_text(lines, encoding="utf-8")
        temporary.replace(folder / METRICS)
        if state is None:
            (folder / STATE).unlink(missing_ok=True)
        else:
            state.save(folder / STATE)

    fresh = [*([] if last else [STATE]), METRICS, *([BEST] if network is not None else [])]
    return Files(folder, history[-1]["epoch"], step.updates, fresh, not last, later, write)


def in_epoch(folder: Path, step: Step, history: list[dict[str, Any]], begun: Begun) -> Files:
    """The state alone, with some batches done of the epoch after those of the history, at once."""
    state = State(step, history, begun, later=False)
    return Files(folder, len(history), step.updates, [STATE], True, False, lambda: state.save(folder / STATE))
