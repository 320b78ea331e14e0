"""A submitted run followed to its own end: its record is the first source, Kubeflow's word, which comes late, the second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, cast

from hep2flow.errors import RunFailedError, UserError
from hep2flow.execution.kubeflow.client import Kubeflow, KubeflowAwayError, RunState, Sent
from hep2flow.execution.progress_display import followed
from hep2flow.execution.run_errors import failure
from hep2flow.store.outage import Tell
from hep2flow.store.runs import LOST_AFTER, RunStatus, RunView, finish_run, now, show_run, update_run
from hep2flow.store.s3 import Store

PAUSE_SECONDS = 5.0
PATIENCE_SECONDS = 3600.0
SIGN_SECONDS = 60.0  # between two signs of life, while a run's pods are waited for


class _End(NamedTuple):
    """How an attempt ended.

    view: of the run, closed
    lost: Kubeflow ended it, though no step of ours failed and nobody asked for it
    """

    view: RunView
    lost: bool
    reason: str


def wait_to_the_end(
    store: Store, kubeflow: Kubeflow, sent: Sent, run_id: str, resubmit: int, again: Callable[[], Sent], tell: Tell
) -> RunView:
    """Show a run until it is over; returns its view where it succeeded.

    Args:
        store: Where the run lies.
        kubeflow: That runs it.
        sent: As it was submitted.
        run_id: The run.
        resubmit: How often it is submitted again where Kubeflow has lost it; it goes on from where it was.
        again: Submits it again.
        tell: Told in one line when that is done.

    Raises:
        UserError: A step failed by what the user can mend, or somebody ended the run.
        RunFailedError: It failed otherwise.
    """
    left = resubmit
    while True:
        with followed(store, run_id):
            end = _end_of(store, kubeflow, sent, run_id, tell)
        if end.view.status == "succeeded":
            return end.view
        if not end.lost:
            raise _failure(end, sent.url, run_id)
        if not left:
            raise RunFailedError(
                f"run {run_id} failed: Kubeflow lost it {resubmit + 1} times, and no step of it failed"
                f"{f' ({end.reason})' if end.reason else ''}; submit it again with --run-id {run_id}, and it goes on; "
                f"its pods are in {sent.url}"
            )
        left -= 1
        sent = _patiently(again, tell)
        tell(
            f"Kubeflow lost the run, and no step of it failed; submitted again, it goes on from where it was: {sent.url}"
        )


def _patiently(again: Callable[[], Sent], tell: Tell) -> Sent:
    """Submit, once Kubeflow answers: what has lost the run may be what keeps it away."""
    deadline, told = time.monotonic() + PATIENCE_SECONDS, ""
    while True:
        try:
            return again()
        except KubeflowAwayError as error:
            if time.monotonic() > deadline:
                raise
            told = _tell_once(tell, told, str(error))
            time.sleep(PAUSE_SECONDS)


def ask_kubeflow(store: Store, kubeflow: Kubeflow, view: RunView) -> tuple[RunView, RunState | None]:
    """A run's view, and what Kubeflow says of it; its record is closed where Kubeflow says that it is over."""
    if not view.run.kubeflow_run:
        return view, None
    state = kubeflow.state(view.run.kubeflow_run)
    if view.run.ended is None and _has_ended(view, state):
        return _closed(store, view.run.run_id, state), state
    return view, state


def _end_of(store: Store, kubeflow: Kubeflow, sent: Sent, run_id: str, tell: Tell) -> _End:
    told, terminated = "", False
    while True:
        view, state = show_run(store, run_id), None
        try:
            state = kubeflow.state(sent.id)
            terminated |= state.terminated  # Kubeflow's history does not always keep it
            state = replace(state, terminated=terminated)
        except UserError as error:  # the run goes on without it, and its record will tell
            told = _tell_once(tell, told, str(error))
        if view.run.attempt not in ("", sent.id):
            raise UserError(
                f"run {run_id}: was started again by somebody else; `hep2flow runs show {run_id}` follows it"
            )
        if view.run.ended is not None:
            return _End(view, lost=False, reason="")
        if state is not None and _has_ended(view, state):
            # Read again: the last step may have written its word between the two looks.
            closed = _closed(store, run_id, state)
            return _End(closed, _is_lost(closed, state), state.message)
        quiet = now() - view.last_sign
        if view.status in ("failed", "interrupted") and quiet > LOST_AFTER:  # Kubeflow may never say so
            finish_run(store, run_id, cast("RunStatus", view.status))
            return _End(show_run(store, run_id), lost=False, reason="")
        if state is not None and quiet.total_seconds() > SIGN_SECONDS and view.status in ("submitted", "running"):
            update_run(store, run_id)  # its pods wait for a node, and nobody else can say so
        if view.status == "lost" and state is not None:
            told = _tell_once(
                tell,
                told,
                f"no step has given a sign of life for 3 minutes; Kubeflow says {state.state}, and is waited for. Where its "
                f"pods are gone, press Ctrl-C and submit again with --run-id {run_id}: it goes on from where it was",
            )
        time.sleep(PAUSE_SECONDS)


def _has_ended(view: RunView, state: RunState) -> bool:
    """Whether nothing more will come: Kubeflow says so, or it is ending the run, and no step works any more."""
    return state.is_over or (state.terminated and "running" not in view.stage_status.values())


def _closed(store: Store, run_id: str, state: RunState) -> RunView:
    """The run with its record closed, as its steps and Kubeflow say."""
    view = show_run(store, run_id)
    if view.run.ended is None:
        status: RunStatus = "interrupted" if state.terminated else "failed"
        finish_run(store, run_id, "succeeded" if view.status == "succeeded" else status)
        view = show_run(store, run_id)
    return view


def _is_lost(view: RunView, state: RunState) -> bool:
    failed = any(record.status == "failed" for record in view.stages)
    return view.status != "succeeded" and not failed and not state.terminated


def _failure(end: _End, url: str, run_id: str) -> Exception:
    if end.view.status == "interrupted":
        return UserError(f"run {run_id} was ended by somebody; submit it again with --run-id {run_id}, and it goes on")
    return failure(end.view, url, end.reason)


def _tell_once(tell: Tell, told: str, text: str) -> str:
    if text != told:
        tell(text)
    return text
