"""Waits for a submitted run: its record decides first; Kubeflow's state, which comes late, decides second."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, cast

from hep2flow.errors import RunFailedError, UserError
from hep2flow.execution.kubeflow.client import FINAL_STATES, Kubeflow, KubeflowUnreachableError, RunState, SubmittedRun
from hep2flow.execution.watch_run import run_failure, show_run_progress
from hep2flow.store.outage import Log, log_to_stderr
from hep2flow.store.runs import LOST_AFTER, RunStatus, RunView, finish_run, now, show_run, update_run
from hep2flow.store.s3 import Store

PAUSE_SECONDS = 5.0
PATIENCE_SECONDS = 3600.0
SIGN_SECONDS = 60.0  # between two signs of life, while a run's pods wait for a node

Submit = Callable[[], SubmittedRun]


class _End(NamedTuple):
    """How an attempt ended."""

    view: RunView  # with the run's record closed
    lost: bool = False  # Kubeflow ended it, though no step failed and nobody terminated it
    reason: str = ""  # in Kubeflow's words; mostly empty


def wait_for_run(
    store: Store, kubeflow: Kubeflow, submitted: SubmittedRun, run_id: str, resubmissions: int, resubmit: Submit
) -> RunView:
    """Show a run, and a line for each event, until it is over; returns its view where it succeeded.

    A run that Kubeflow has lost is submitted again so many times, and resumes.

    Raises:
        UserError: A step failed for a reason that the user can fix, or somebody ended the run.
        RunFailedError: It failed otherwise.
    """
    log, resumes = _log_without_repetition(), f"submit it again with --run-id {run_id}, and it resumes"
    remaining = resubmissions
    while True:
        with show_run_progress(store, run_id):
            end = _wait_for_end(store, kubeflow, submitted, run_id, log)
        if end.view.status == "succeeded":
            return end.view
        if end.view.status == "interrupted" and not end.lost:
            raise UserError(f"run {run_id} was ended by somebody; {resumes}")
        if not end.lost:
            raise run_failure(end.view, submitted.url, end.reason)
        if not remaining:
            what = f"Kubeflow lost it {resubmissions + 1} times, and no step of it failed"
            what += f" ({end.reason})" if end.reason else ""
            raise RunFailedError(f"run {run_id} failed: {what}; {resumes}; its pods are in {submitted.url}")
        remaining -= 1
        submitted = _resubmit(resubmit, log)
        what = "Kubeflow lost the run, and no step of it failed"
        log(f"{what}; submitted again, it resumes from where it was: {submitted.url}")


def _resubmit(resubmit: Submit, log: Log) -> SubmittedRun:
    """Submit once Kubeflow answers: what has lost the run may be what makes it unreachable."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return resubmit()
        except KubeflowUnreachableError as error:
            if time.monotonic() > deadline:
                raise
            log(str(error))
            time.sleep(PAUSE_SECONDS)


def sync_with_kubeflow(store: Store, kubeflow: Kubeflow, view: RunView) -> tuple[RunView, RunState | None]:
    """A run's view and its state in Kubeflow; its record is closed where Kubeflow says that it is over."""
    if not view.run.kubeflow_run:
        return view, None
    state = kubeflow.state(view.run.kubeflow_run)
    if view.run.ended is None and _has_ended(view, state):
        return _close(store, view.run.run_id, state), state
    return view, state


def _wait_for_end(store: Store, kubeflow: Kubeflow, submitted: SubmittedRun, run_id: str, log: Log) -> _End:
    terminated = False
    while True:
        view, state = show_run(store, run_id), None
        try:
            state = kubeflow.state(submitted.id)
            terminated |= state.terminated  # Kubeflow's history does not always keep it
            state = replace(state, terminated=terminated)
        except UserError as error:  # the run continues without it, and its record will show its end
            log(str(error))
        if view.run.attempt not in ("", submitted.id):
            raise UserError(f"run {run_id}: was started again by somebody else; `hep2flow runs show {run_id}` shows it")
        if view.run.ended is not None:
            return _End(view)
        if state is not None and _has_ended(view, state):
            closed = _close(store, run_id, state)
            failed = any(record.status == "failed" for record in closed.stages)
            lost = closed.status != "succeeded" and not failed and not state.terminated
            return _End(closed, lost, state.message)
        silence = now() - view.last_sign
        if view.status in ("failed", "interrupted") and silence > LOST_AFTER:  # Kubeflow may never say so
            finish_run(store, run_id, cast("RunStatus", view.status))
            return _End(show_run(store, run_id))
        if state is not None:
            if silence.total_seconds() > SIGN_SECONDS and view.status in ("submitted", "running"):
                update_run(store, run_id)  # its pods wait for a node, and nobody else can give a sign of life
            if view.status == "lost":
                what = f"no step has given a sign of life for 3 minutes; Kubeflow says {state.state}, and is waited for"
                fix = f"press Ctrl-C and submit again with --run-id {run_id}: it resumes from where it was"
                log(f"{what}. Where its pods are gone, {fix}")
        time.sleep(PAUSE_SECONDS)


def _has_ended(view: RunView, state: RunState) -> bool:
    """Whether Kubeflow says that the run is over, or is ending it and no step works any more."""
    return state.state in FINAL_STATES or (state.terminated and "running" not in view.stage_status.values())


def _close(store: Store, run_id: str, state: RunState) -> RunView:
    """Close the run's record. Reads it again: the last step may have ended since."""
    view = show_run(store, run_id)
    if view.run.ended is None:
        status: RunStatus = "interrupted" if state.terminated else "failed"
        finish_run(store, run_id, "succeeded" if view.status == "succeeded" else status)
        view = show_run(store, run_id)
    return view


def _log_without_repetition() -> Log:
    last = ""

    def log_new(text: str) -> None:
        nonlocal last
        if text != last:
            log_to_stderr(text)
        last = text

    return log_new
