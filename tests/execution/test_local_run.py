"""The pipeline on this machine: what a person sees of Kubeflow's local runner, and how its steps learn of SIGTERM."""

from __future__ import annotations

import builtins
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kfp import local

from hep2flow.execution.local.run import forward_sigterm, run_pipeline
from hep2flow.store.runs import RunRecord, start_run
from hep2flow.store.s3 import Store

SECONDS = 30.0


class Heard:
    """Steps that remember how often they were asked to end, and say when it was twice."""

    def __init__(self) -> None:
        self.asked = 0
        self.twice = threading.Event()

    def adapt(self, pipeline: Any) -> None:
        """Nothing has to be changed."""

    @contextmanager
    def running(self) -> Iterator[Any]:
        yield local.SubprocessRunner(use_venv=False)

    def terminate(self) -> None:
        self.asked += 1
        if self.asked == 2:
            self.twice.set()


def test_sigterm_goes_to_the_steps_and_to_those_that_are_started_after_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hep2flow.execution.local.run.BETWEEN_STEPS_SECONDS", 0.01)
    steps, before = Heard(), signal.getsignal(signal.SIGTERM)
    with forward_sigterm(steps) as terminated:
        assert not terminated.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert steps.twice.wait(SECONDS), "the runner may have begun another step meanwhile"
        assert terminated.is_set()
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_the_runner_prints_is_in_the_log_alone_and_print_is_as_it_was(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start_run(store, RunRecord(run_id="monday"))
    plain = builtins.print

    def pipeline(run_id: str) -> None:
        print(f"noise of {run_id}")
        print("more of it", file=sys.stderr)
        builtins.print = lambda *_, **__: None  # as the runner does, and with two tasks at once does not put it back

    log = tmp_path / "out" / "log.txt"
    view = run_pipeline(store, pipeline, {"run_id": "monday"}, log, Heard())
    assert builtins.print is plain
    assert view.run.run_id == "monday"
    assert log.read_text().splitlines()[-2:] == ["noise of monday", "more of it"]
    assert capsys.readouterr() == ("", "")
