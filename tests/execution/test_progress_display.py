"""What a person sees of a sweep while it runs."""

from __future__ import annotations

import io
import json
import threading
from typing import Any

import pytest
from rich.console import Console

from hep2flow.execution.progress_display import describe_progress, sweep_table
from hep2flow.execution.watch_run import show_stage_progress
from hep2flow.store.layout import output_prefix
from hep2flow.store.s3 import Store
from hep2flow.store.training_status import TrainingStatus

ERASING = "{probability: 0.25, scale: [0.02, 0.2], ratio: [0.3, 3.3]}"
PROGRESS: dict[str, Any] = {
    "trials": 12,
    "ended": 7,
    "stopped": 3,
    "failed": 1,
    "seconds_left": 171.2,
    "best": {
        "trial": 4,
        "epoch": 7,
        "val_accuracy": 0.5512,
        "changes": {"optim.lr": "0.0017117789315586186", "augment.random_erasing": ERASING, "batch.mixup": "0.2"},
    },
    "running": [
        {"trial": 0, "epoch": 2, "val_accuracy": 0.41, "changes": {}},
        {"trial": 8, "epoch": 0, "val_accuracy": None, "changes": {"optim.lr": "1e-05"}},
    ],
}


@pytest.mark.parametrize("width", [60, 100, 200])
def test_a_table_shows_the_best_and_the_running_trials_however_narrow(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    console.print(sweep_table("tune coat-mini", PROGRESS))
    lines = [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert lines[2][:5] == ["4", "best", "7", "55.1%", "lr=0.00171,"]
    assert lines[3][:4] == ["0", "running", "2", "41.0%"]
    assert lines[4] == ["8", "running", "0", "–", "lr=1e-05"]
    assert len(lines) == 5, "no line is broken"


def test_a_line_tells_the_best_so_far_and_the_time_left() -> None:
    told = "7 of 12 trials, 3 stopped, 1 failed, best 55.1% (trial 4), about 2:51 left"
    assert describe_progress(PROGRESS) == told
    fresh = {**PROGRESS, "ended": 0, "stopped": 0, "failed": 0, "best": None, "seconds_left": None}
    assert describe_progress(fresh) == "0 of 12 trials"
    assert describe_progress({"judging": 3, "trainings": 10}) == "judging the winner, 3 of 10 trainings done"


class Heard(io.StringIO):
    """A standard error that says when a line has come."""

    def __init__(self) -> None:
        super().__init__()
        self.line = threading.Event()

    def flush(self) -> None:
        self.line.set()


def test_a_sweep_is_told_as_json_lines_where_asked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    heard, key = Heard(), "0" * 32
    monkeypatch.setenv("HEP2FLOW_LOG", "json")
    monkeypatch.setattr("sys.__stderr__", heard)
    TrainingStatus(store, output_prefix("tune", key)).put_progress(PROGRESS)
    with show_stage_progress(store, "tune", "coat-mini") as (announce, _):
        announce(key)
        assert heard.line.wait(30)
    told = json.loads(heard.getvalue().splitlines()[0])
    assert (told["stage"], told["ended"], told["best"]["trial"]) == ("tune coat-mini", 7, 4)
