"""How a submitted run is waited for and how it ends, against an HTTP double of Kubeflow: no Kubeflow can run here.

What the steps of a run leave in the store they leave here through what they use themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from hep2flow.execution.kubeflow import wait_for_run
from hep2flow.store import layout
from hep2flow.store.runs import (
    RunStatus,
    RunView,
    StageRecord,
    StageStatus,
    claim_run,
    finish_run,
    now,
    read_run,
    show_run,
)
from hep2flow.store.s3 import Store
from tests.execution.kubeflow_double import AWAY, BUSY, TERMINATED, UNREPORTED, Double, Look
from tests.execution.test_submit import RUN, submit
from tests.test_cli import hep2flow


class Steps:
    """The steps of one attempt: each method is something that they do, before the next look at Kubeflow."""

    def __init__(self, store: Store, attempt: str = "one") -> None:
        self.store, self.attempt = store, attempt

    def begin(self) -> None:
        """The first of them."""
        claim_run(self.store, RUN, self.attempt)
        self._record("succeeded", "ingest")

    def end(self, status: RunStatus = "succeeded") -> Callable[[], None]:
        """The last of them."""

        def last() -> None:
            finish_run(self.store, RUN, status, self.attempt)

        return last

    def train(self, status: StageStatus, error: str = "", mendable: bool = False) -> Callable[[], None]:
        """One of them comes to this."""
        return lambda: self._record(status, "train", "coat-mini", error or None, mendable)

    def _record(
        self,
        status: StageStatus,
        stage: str,
        model: str | None = None,
        error: str | None = None,
        mendable: bool = False,
    ) -> None:
        record = StageRecord(run_id=RUN, stage=stage, model=model, attempt=self.attempt, status=status, seconds=1.0)
        record.error, record.mendable = error, mendable
        self.store.put_json(layout.stage_record(RUN, stage, model), record.model_dump(mode="json"))


def silence(store: Store) -> None:
    """Ten minutes pass in which nobody gives a sign of life."""
    view = show_run(store, RUN)
    past = {"heartbeat": now() - timedelta(minutes=10)}
    run = view.run.model_copy(update={**past, "attempt_started": past["heartbeat"]})
    store.put_json(layout.run_record(RUN), run.model_dump(mode="json"))
    for stage in view.stages:
        key = layout.stage_record(RUN, stage.stage, stage.model)
        store.put_json(key, stage.model_copy(update=past).model_dump(mode="json"))


@pytest.fixture
def steps(store: Store) -> Steps:
    return Steps(store)


def test_a_run_is_over_when_its_last_step_says_so_though_kubeflow_calls_it_running_for_ever(
    store: Store, kubeflow: Double, steps: Steps
) -> None:
    """As after Kubeflow's API was restarted: its persistence agent reports in vain."""
    kubeflow.plans = [["PENDING", steps.begin, "RUNNING", steps.end(), "RUNNING"]]
    answer = submit(kubeflow, store, "--wait")
    assert answer.code == 0, answer.err
    assert "run monday: succeeded; fetch its results with: hep2flow pull monday" in answer.out
    assert len(kubeflow.runs) == 1


def test_what_the_user_can_mend_is_one_message_and_exit_code_2(store: Store, kubeflow: Double, steps: Steps) -> None:
    failed = steps.train("failed", "cells.csv:3: no such pattern", mendable=True)
    kubeflow.plans = [["PENDING", steps.begin, "RUNNING", failed, "RUNNING", "FAILED"]]
    answer = submit(kubeflow, store, "--wait")
    assert (answer.code, answer.err) == (2, "hep2flow: cells.csv:3: no such pattern\n")
    record = read_run(store, RUN)
    assert record.status == "failed"
    assert record.ended is not None
    assert len(kubeflow.runs) == 1, "it would fail again"


def test_what_the_user_cannot_mend_is_one_message_and_exit_code_1(store: Store, kubeflow: Double, steps: Steps) -> None:
    failed = steps.train("failed", "JobFailedError: RayJob h2-0: AppFailed: exit code 139")
    kubeflow.plans = [[steps.begin, "RUNNING", failed, "FAILED"]]
    answer = submit(kubeflow, store, "--wait")
    assert answer.code == 1
    (line,) = answer.err.splitlines()
    assert line.startswith("hep2flow: run monday failed, train-coat-mini: JobFailedError: RayJob h2-0: AppFailed")
    assert line.endswith(f"the whole story is in {kubeflow.url}/#/runs/details/one")
    assert len(kubeflow.runs) == 1


def test_a_step_that_failed_ends_the_wait_though_kubeflow_calls_the_run_running_for_ever(
    store: Store, kubeflow: Double, steps: Steps
) -> None:
    failed = steps.train("failed", "the masks are missing", mendable=True)
    kubeflow.plans = [[steps.begin, failed, lambda: silence(store), "RUNNING"]]
    answer = submit(kubeflow, store, "--wait")
    assert (answer.code, answer.err) == (2, "hep2flow: the masks are missing\n")
    assert read_run(store, RUN).status == "failed"


def test_while_others_still_work_a_step_that_failed_does_not_end_the_wait(
    store: Store, kubeflow: Double, steps: Steps
) -> None:
    seen: list[str] = []
    failed = steps.train("failed", "the masks are missing", mendable=True)
    looks: list[Look] = [failed, "RUNNING", "RUNNING", lambda: seen.append(read_run(store, RUN).status), "FAILED"]
    kubeflow.plans = [[steps.begin, *looks]]
    assert submit(kubeflow, store, "--wait").code == 2
    assert seen == ["running"]


@pytest.mark.parametrize("reported", [True, False])
def test_a_run_that_somebody_terminated_is_not_submitted_again_and_its_record_says_so(
    store: Store, kubeflow: Double, steps: Steps, reported: bool
) -> None:
    """It is FAILED in the end; that it was CANCELING before may stand in its history or not."""
    looks: list[Look] = TERMINATED if reported else ["RUNNING", UNREPORTED, "FAILED"]
    kubeflow.plans = [[steps.begin, steps.train("running"), *looks[:-1], steps.train("interrupted"), looks[-1]]]
    answer = submit(kubeflow, store, "--wait")
    assert answer.code == 2
    (line,) = answer.err.splitlines()
    assert line == "hep2flow: run monday was ended by somebody; submit it again with --run-id monday, and it resumes"
    record = read_run(store, RUN)
    assert record.status == "interrupted"
    assert record.ended is not None
    assert len(kubeflow.runs) == 1


def test_a_run_that_kubeflow_lost_is_submitted_again_under_its_run_id_and_told(
    store: Store, kubeflow: Double, steps: Steps
) -> None:
    """As when Argo tried a driver again: no step has failed, and every later driver refuses its work."""
    second = Steps(store, "two")
    kubeflow.plans = [
        [steps.begin, steps.train("succeeded"), "RUNNING", "FAILED"],
        ["PENDING", second.begin, "RUNNING", second.end(), "RUNNING"],
    ]
    answer = submit(kubeflow, store, "--wait")
    assert answer.code == 0, answer.err
    (line,) = answer.err.splitlines()
    assert line.startswith(
        "Kubeflow lost the run, and no step of it failed; submitted again, it resumes from where it was"
    )
    assert line.endswith("/runs/details/two")
    first, again = (run.asked["runtime_config"]["parameters"] for run in kubeflow.runs.values())
    assert first == again
    record = read_run(store, RUN)
    assert (record.attempts, record.attempt, record.status) == (2, "two", "succeeded")


def test_submitting_again_waits_for_a_kubeflow_that_is_away(store: Store, kubeflow: Double, steps: Steps) -> None:
    second, asked = Steps(store, "two"), []

    def goes_away() -> None:
        kubeflow.refuses = BUSY

    def comes_back() -> None:
        asked.append(kubeflow.refuses)
        if asked.count(BUSY) == 3:
            kubeflow.refuses = None

    kubeflow.before = comes_back
    kubeflow.plans = [[steps.begin, goes_away, "RUNNING", "FAILED"], ["PENDING", second.begin, second.end(), "RUNNING"]]
    answer = submit(kubeflow, store, "--wait")
    assert answer.code == 0, answer.err
    away, again = answer.err.splitlines()
    assert "is unavailable (503: upstream connect error)" in away
    assert again.startswith("Kubeflow lost the run")
    assert asked == [None, BUSY, BUSY, BUSY]


@pytest.mark.parametrize(("resubmit", "sent"), [((), 3), (("--resubmit", "1"), 2), (("--resubmit", "0"), 1)])
def test_a_run_that_kubeflow_loses_again_and_again_is_given_up_with_what_to_do(
    store: Store, kubeflow: Double, resubmit: tuple[str, ...], sent: int
) -> None:
    kubeflow.plans, kubeflow.error = [["PENDING", "FAILED"]], "no such service account"
    answer = submit(kubeflow, store, "--wait", *resubmit)
    assert answer.code == 1
    *before, last = answer.err.splitlines()
    assert len(before) == sent - 1, "each time"
    assert last.startswith(f"hep2flow: run monday failed: Kubeflow lost it {sent} times, and no step of it failed")
    assert "(no such service account)" in last
    assert "submit it again with --run-id monday" in last
    assert len(kubeflow.runs) == sent
    assert read_run(store, RUN).status == "failed"


def test_a_kubeflow_that_is_away_between_two_looks_ends_nothing_and_is_told_once(
    store: Store, kubeflow: Double, steps: Steps
) -> None:
    kubeflow.plans = [[steps.begin, "RUNNING", *[BUSY] * 3, "RUNNING", *[AWAY] * 8, "RUNNING", steps.end(), "RUNNING"]]
    answer = submit(kubeflow, store, "--wait")
    assert answer.code == 0, answer.err
    busy, away = answer.err.splitlines()
    assert "is unavailable (503: upstream connect error)" in busy
    assert "has become unreachable" in away


def test_while_kubeflow_is_away_the_run_itself_tells_its_end(store: Store, kubeflow: Double, steps: Steps) -> None:
    kubeflow.plans = [[steps.begin, "RUNNING", steps.end(), *[BUSY] * 50]]
    assert submit(kubeflow, store, "--wait").code == 0


def test_an_earlier_attempt_is_not_taken_for_this_one(store: Store, kubeflow: Double, steps: Steps) -> None:
    """Its failure, its steps and its end are of the past, and it has no say any more."""
    failed = steps.train("failed", "the masks are missing", mendable=True)
    second, seen = Steps(store, "two"), list[RunView]()

    def look() -> None:
        seen.append(show_run(store, RUN))

    kubeflow.plans = [
        [steps.begin, failed, "FAILED"],
        [look, "PENDING", second.begin, look, "RUNNING", steps.end("failed"), "RUNNING", look, second.end(), "RUNNING"],
    ]
    assert submit(kubeflow, store, "--wait").code == 2
    answer = submit(kubeflow, store, "--wait")
    assert (answer.code, answer.err) == (0, "")
    before, begun, late = seen
    assert (before.status, before.stages) == ("submitted", [])
    assert list(begun.stage_status) == ["ingest"]
    assert late.run.ended is None
    assert "failed" not in hep2flow("runs", "show", RUN).out


def test_a_run_whose_pods_wait_for_a_node_gives_signs_of_life(
    store: Store, kubeflow: Double, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[RunView] = []
    kubeflow.plans = [
        ["PENDING", lambda: silence(store), "PENDING", "PENDING", *[lambda: seen.append(show_run(store, RUN))]]
    ]
    kubeflow.plans[0] += ["PENDING", steps.begin, steps.end(), "RUNNING"]
    monkeypatch.setattr(wait_for_run, "SIGN_SECONDS", -1.0)
    assert submit(kubeflow, store, "--wait").code == 0
    (view,) = seen
    assert view.status == "submitted", "and not lost"


def test_a_step_that_gives_no_sign_of_life_is_told_once_and_kubeflow_is_waited_for(
    store: Store, kubeflow: Double, steps: Steps
) -> None:
    kubeflow.plans = [[steps.begin, steps.train("running"), "RUNNING", lambda: silence(store), *["RUNNING"] * 4]]
    kubeflow.plans[0] += [steps.train("succeeded"), steps.end(), "RUNNING"]
    answer = submit(kubeflow, store, "--wait")
    assert answer.code == 0
    (line,) = answer.err.splitlines()
    assert line.startswith("no step has given a sign of life for 3 minutes; Kubeflow says RUNNING, and is waited for.")
    assert line.endswith("submit again with --run-id monday: it resumes from where it was")


@pytest.mark.parametrize(
    ("looks", "status", "told"),
    [
        (["RUNNING"], "running", "(RUNNING)"),
        (TERMINATED, "interrupted", "(FAILED)"),
        (["RUNNING", "FAILED"], "failed", "(FAILED)"),
    ],
)
def test_a_run_that_kubeflow_ended_is_closed_when_it_is_shown(
    store: Store, kubeflow: Double, steps: Steps, looks: list[Look], status: str, told: str
) -> None:
    kubeflow.plans = [list(looks)]
    assert submit(kubeflow, store).code == 0
    steps.begin()
    for _ in looks:
        answer = hep2flow("runs", "show", RUN, "--host", kubeflow.url)
    assert answer.code == 0, answer.err
    assert f"monday: {status}" in answer.out
    assert f"/runs/details/one {told}" in answer.out
    record = read_run(store, RUN)
    assert (record.status, record.ended is not None) == (status, status != "running")
    assert "ingest" in hep2flow("runs", "show", RUN).out, "what it did is shown on"


def test_a_run_that_nobody_works_on_says_whom_to_ask(store: Store, kubeflow: Double) -> None:
    assert submit(kubeflow, store).code == 0
    silence(store)
    answer = hep2flow("runs", "show", RUN)
    assert "monday: lost" in answer.out
    assert "ask Kubeflow for it with --host" in answer.out
