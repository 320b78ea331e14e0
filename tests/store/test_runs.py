from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta

import pytest

from hep2flow.errors import UserError
from hep2flow.process import TerminatedError, raise_on_sigterm
from hep2flow.store import stage_recorder
from hep2flow.store.runs import RunRecord, claim_run, finish_run, list_runs, now, show_run, start_run, update_run
from hep2flow.store.s3 import Store
from hep2flow.store.stage_recorder import running_stage


def test_a_run_is_recorded_from_start_to_end(store: Store) -> None:
    start_run(store, RunRecord(run_id="r1", parameters={"source": "x"}, recipes={"atto": {"seed": 1}}))
    assert show_run(store, "r1").status == "running"
    with running_stage(store, "r1", "train", "atto") as stage:
        stage.result = {"best": 0.5}
        stage.key = "0" * 32
        during = show_run(store, "r1")
        assert during.stage_status == {"train-atto": "running"}
        assert (during.stages[0].pid, during.stages[0].seconds) == (os.getpid(), None)
    finish_run(store, "r1", "succeeded")
    view = show_run(store, "r1")
    assert (view.status, view.stage_status) == ("succeeded", {"train-atto": "succeeded"})
    assert view.run.ended is not None
    assert view.run.keys == {"train-atto": "0" * 32}
    assert view.stages[0].result == {"best": 0.5}
    assert view.stages[0].seconds is not None
    assert view.stages[0].cpus >= 1
    assert {"python", "hep2flow", "torch"} <= view.run.versions.keys()


def test_a_failing_stage_leaves_one_line_and_raises(store: Store) -> None:
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    start_run(store, RunRecord(run_id="r1"))
    with pytest.raises(RuntimeError), running_stage(store, "r1", "train"):
        raise RuntimeError(f"first line with {secret}\nsecond line")
    with pytest.raises(UserError), running_stage(store, "r1", "mask"):
        raise UserError("no such file; check it")
    with pytest.raises(KeyboardInterrupt), running_stage(store, "r1", "split"):
        raise KeyboardInterrupt
    view = show_run(store, "r1")
    assert view.stage_status == {"train": "failed", "mask": "failed", "split": "interrupted"}
    errors = {stage.stage: stage.error for stage in view.stages}
    assert errors == {
        "train": "RuntimeError: first line with ***",
        "mask": "no such file; check it",
        "split": "KeyboardInterrupt",
    }


def test_heartbeats_are_sent_while_the_body_works(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    start_run(store, RunRecord(run_id="r1"))
    monkeypatch.setattr(stage_recorder, "HEARTBEAT_SECONDS", 0.01)
    key, beaten = "runs/r1/stages/train.json", threading.Event()
    with running_stage(store, "r1", "train"):
        store.delete([key])
        for _ in range(500):
            if store.exists(key):
                beaten.set()
                break
    assert beaten.is_set()
    assert show_run(store, "r1").stage_status == {"train": "succeeded"}


def test_a_failed_heartbeat_does_not_end_the_stage(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    start_run(store, RunRecord(run_id="r1"))
    monkeypatch.setattr(stage_recorder, "HEARTBEAT_SECONDS", 0.01)
    failed = threading.Event()
    with running_stage(store, "r1", "train") as stage:
        # What JSON cannot hold makes the beat fail, as an unreachable store would, but at once.
        stage.result = {"x": object()}
        handler = _Setting(failed)
        stage_recorder.log.addHandler(handler)
        assert failed.wait(10)
        stage_recorder.log.removeHandler(handler)
        stage.result = {}
    assert show_run(store, "r1").stage_status == {"train": "succeeded"}


class _Setting(logging.Handler):
    def __init__(self, event: threading.Event) -> None:
        super().__init__()
        self.event = event

    def emit(self, record: logging.LogRecord) -> None:
        self.event.set()


KILLED = """
import os, signal
from hep2flow.store.stage_recorder import running_stage
from hep2flow.store.open_store import open_store
with running_stage(open_store(), "r1", "train"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_stage_is_lost_after_three_minutes(store: Store) -> None:
    start_run(store, RunRecord(run_id="r1"))
    subprocess.run([sys.executable, "-c", KILLED], check=False)
    assert show_run(store, "r1").status == "running"
    key = "runs/r1/stages/train.json"
    record = store.get_json(key)
    store.put_json(key, {**record, "heartbeat": (now() - timedelta(minutes=4)).isoformat()})
    view = show_run(store, "r1")
    assert (view.status, view.stage_status) == ("lost", {"train": "lost"})
    assert [run.status for run in list_runs(store)] == ["lost"]


def test_a_run_id_serves_one_run_and_its_retries(store: Store) -> None:
    first = start_run(store, RunRecord(run_id="r1", parameters={"seed": 1}))
    finish_run(store, "r1", "failed")
    again = start_run(store, RunRecord(run_id="r1", parameters={"seed": 1}))
    assert (again.status, again.ended, again.started) == ("running", None, first.started)
    with pytest.raises(UserError, match="choose another run id"):
        start_run(store, RunRecord(run_id="r1", parameters={"seed": 2}))
    assert show_run(store, "r1").run.parameters == {"seed": 1}


def test_runs_are_listed_latest_first_despite_a_damaged_one(store: Store) -> None:
    assert list_runs(store) == []
    for i, run_id in enumerate(("a", "b")):
        start_run(store, RunRecord(run_id=run_id, started=now() + timedelta(minutes=i)))
    store.put_bytes("runs/c/run.json", b"{")
    store.put_json("runs/d/run.json", {"run_id": "d", "status": "sleeping"})
    assert [view.run.run_id for view in list_runs(store)] == ["b", "a"]
    with pytest.raises(UserError, match="status is damaged"):
        show_run(store, "d")


def test_an_unknown_run_is_reported(store: Store) -> None:
    with pytest.raises(UserError, match="no such run"):
        show_run(store, "nobody")
    with pytest.raises(UserError, match="not allowed"):
        show_run(store, "No Body")


def heartbeat_of_long_ago(store: Store, key: str, **changes: object) -> None:
    record = store.get_json(key)
    old = (now() - timedelta(minutes=4)).isoformat()
    times = {name: old for name in ("heartbeat", "attempt_started") if name in record}
    store.put_json(key, {**record, **times, **changes})


def test_a_run_that_nothing_was_heard_of_for_three_minutes_is_lost_before_its_first_step_and_between_two(
    store: Store,
) -> None:
    start_run(store, RunRecord(run_id="r1", status="submitted"))
    assert show_run(store, "r1").status == "submitted"
    heartbeat_of_long_ago(store, "runs/r1/run.json")
    assert show_run(store, "r1").status == "lost"
    with running_stage(store, "r1", "ingest"):
        pass
    assert show_run(store, "r1").status == "submitted", "a step has just given a sign of life"
    heartbeat_of_long_ago(store, "runs/r1/stages/ingest.json")
    assert show_run(store, "r1").status == "lost"
    update_run(store, "r1")
    assert show_run(store, "r1").status == "submitted", "whoever follows it vouches for it"


def test_only_what_this_attempt_s_own_steps_recorded_counts(store: Store) -> None:
    start_run(store, RunRecord(run_id="r1"))
    claim_run(store, "r1", "job-1")
    for stage in ("ingest", "report"):
        with running_stage(store, "r1", stage, attempt="job-1"):
            pass
    with running_stage(store, "r1", "external", "a-on-b"):
        pass
    finish_run(store, "r1", "succeeded", "job-1")
    again = start_run(store, RunRecord(run_id="r1", status="submitted"))
    view = show_run(store, "r1")
    assert (again.attempts, view.status, view.stage_status) == (2, "submitted", {"external-a-on-b": "succeeded"})
    claim_run(store, "r1", "job-2")
    assert finish_run(store, "r1", "failed", "job-1").status == "running", "the earlier attempt closes nothing any more"
    with running_stage(store, "r1", "ingest", attempt="job-2"):
        assert show_run(store, "r1").stage_status["ingest"] == "running"


def test_the_report_ends_a_run_and_a_stage_that_failed_is_never_a_success(store: Store) -> None:
    start_run(store, RunRecord(run_id="r1"))
    with running_stage(store, "r1", "report"):
        pass
    assert show_run(store, "r1").status == "succeeded"
    with pytest.raises(UserError), running_stage(store, "r1", "train", "a"):
        raise UserError("diverged")
    assert show_run(store, "r1").status == "failed"


def test_a_clone_of_a_run_in_kubeflow_s_page_is_another_attempt_and_the_first_step_of_the_submitted_one_is_not(
    store: Store,
) -> None:
    start_run(store, RunRecord(run_id="r1", status="submitted"))
    update_run(store, "r1", attempt="job-1", kubeflow_run="job-1")
    assert (claim_run(store, "r1", "job-1").attempts, show_run(store, "r1").status) == (1, "running")
    assert claim_run(store, "r1", "clone").attempts == 2
    assert start_run(store, RunRecord(run_id="r1", attempt="clone")).attempts == 2, "its own first task begins it"


def test_a_step_whose_run_was_started_again_ends_and_leaves_the_record_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_recorder, "HEARTBEAT_SECONDS", 0.01)
    start_run(store, RunRecord(run_id="r1", attempt="job-1"))
    with (
        pytest.raises(stage_recorder.SupersededError),
        raise_on_sigterm(),
        running_stage(store, "r1", "train", attempt="job-1"),
    ):
        start_again_and_wait(store)
    record = store.get_json("runs/r1/stages/train.json")
    assert (record["status"], record["error"]) == ("running", None), "it is the next attempt's to change"
    assert show_run(store, "r1").stages == []


def start_again_and_wait(store: Store) -> None:
    update_run(store, "r1", attempt="job-2")
    assert not threading.Event().wait(30), "no signal came"
    raise AssertionError


def test_the_last_word_of_a_terminated_step_is_there_before_it_has_cleaned_up(store: Store) -> None:
    start_run(store, RunRecord(run_id="r1"))

    with pytest.raises(TerminatedError), raise_on_sigterm(), running_stage(store, "r1", "train"):
        end_and_wait_for_the_word(store)
    assert show_run(store, "r1").status == "interrupted"


def end_and_wait_for_the_word(store: Store) -> None:
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        seen = (show_run(store, "r1").stage_status for _ in range(500))
        assert {"train": "interrupted"} in seen, "the record still says that it runs"


def test_a_job_that_continues_while_its_step_is_moved_is_running(store: Store) -> None:
    start_run(store, RunRecord(run_id="r1"))
    with pytest.raises(TerminatedError), running_stage(store, "r1", "train"):
        raise stage_recorder.DetachedError
    view = show_run(store, "r1")
    assert (view.status, view.stages[0].error) == ("running", None)
