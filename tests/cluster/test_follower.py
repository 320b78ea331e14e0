"""A RayJob followed to its end. Kubernetes is an HTTP double here: only what it answers is tested, no cluster."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hep2flow.cluster import follower, job_log, kubernetes_api
from hep2flow.cluster.follower import run_job
from hep2flow.cluster.job_state import JobFailedError
from hep2flow.cluster.kubernetes_api import KubernetesApi
from hep2flow.cluster.options import ClusterOptions
from hep2flow.cluster.rayjob import DIGEST, Job
from hep2flow.cluster.specification import Outcome, Specification
from hep2flow.errors import UserError
from hep2flow.recipe import load_recipe
from hep2flow.results import StageResult
from hep2flow.store import layout
from hep2flow.store.runs import RunRecord, show_run, start_run
from hep2flow.store.s3 import Store
from tests.cluster.double import DISCONNECT, END, EXPIRED, HOLD, NAMESPACE, Double, Fault, pod, serving
from tests.stages.test_train import prepared, tiny

RUN = "monday"
RUNNING = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
SUCCEEDED = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
FAILED = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed"}
RESULT = StageResult(stage="train", key=32 * "0", uri="s3://b/trainings/0", summary={"updates": 6})


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    for module, name in (
        (kubernetes_api, "FIRST_PAUSE"),
        (follower, "SHORT_SECONDS"),
        (job_log, "PAUSE_SECONDS"),
    ):
        monkeypatch.setattr(module, name, 0.01)
    monkeypatch.setattr(follower, "HOPELESS_SECONDS", 0.0)
    world = Double()
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with serving(world, tmp_path) as config:
        monkeypatch.setenv("KUBECONFIG", str(config))
        yield world


@pytest.fixture
def asked() -> Specification:
    return Specification(run_id=RUN, recipe=load_recipe("convnext-b", "laptop"), dataset="s3://b/d", split="s3://b/s")


class Followed:
    """Follows, and remembers what was told."""

    def __init__(self, store: Store, asked: Specification) -> None:
        self.store, self.asked = store, asked
        self.told: list[str] = []

    def __call__(self, **options: Any) -> StageResult:
        return run_job(self.store, self.asked, ClusterOptions(**options), self.told.append)

    def leaves(self, **outcome: Any) -> Any:
        return lambda: Outcome(**outcome).write(self.store, self.asked)


@pytest.fixture
def follow(store: Store, asked: Specification) -> Followed:
    return Followed(store, asked)


def test_http_double_a_job_that_succeeds_returns_what_its_stage_returned(double: Double, follow: Followed) -> None:
    double.script = [{"jobDeploymentStatus": "Initializing"}, RUNNING, follow.leaves(result=RESULT), SUCCEEDED]
    assert follow() == RESULT
    (job,) = double.jobs.values()
    assert job["metadata"]["annotations"][DIGEST] == follow.asked.digest
    assert job["metadata"]["namespace"] == NAMESPACE
    assert re.fullmatch(r"hep2flow train --spec s3://\S+", job["spec"]["entrypoint"])
    assert [text.partition(": ")[2] for text in follow.told] == ["waits for its pods", "runs"]
    assert "delete" not in double.verbs()


@pytest.mark.parametrize(
    ("end", "kind", "told"),
    [
        (
            {**FAILED, "message": "Job failed\nexit code 137, killed"},
            JobFailedError,
            "AppFailed: exit code 137, killed",
        ),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, UserError, "was stopped by somebody; run again"),
        ({"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded"}, UserError, "longer than 86400 s; run again"),
        (
            {"jobDeploymentStatus": "Failed", "reason": "PreRunningDeadlineExceeded"},
            UserError,
            r"did not begin within 3600 s \(waits: no node for worker-0: 0/3 nodes .*raise cluster.waiting_seconds",
        ),
        ({"jobDeploymentStatus": "Failed", "reason": "SubmissionFailed"}, JobFailedError, "SubmissionFailed"),
        ({"jobDeploymentStatus": "ValidationFailed", "message": "no"}, JobFailedError, "failed: no"),
        (SUCCEEDED, JobFailedError, "left no result"),
    ],
)
def test_http_double_each_end_is_told_as_what_it_is(
    double: Double, follow: Followed, end: dict[str, Any], kind: type[Exception], told: str
) -> None:
    unschedulable = {"type": "PodScheduled", "reason": "Unschedulable", "message": "0/3 nodes have a GPU"}
    double.pods = [pod("worker-0", conditions=[unschedulable])]
    double.script = [{"jobDeploymentStatus": "Initializing"}, end]
    with pytest.raises(kind, match=told):
        follow()


@pytest.mark.parametrize("mendable", [True, False])
def test_http_double_the_jobs_own_error_is_told_where_it_left_one(
    double: Double, follow: Followed, mendable: bool
) -> None:
    double.script = [RUNNING, follow.leaves(error="optim.lr: too high", mendable=mendable), FAILED]
    with pytest.raises(UserError if mendable else JobFailedError, match=r"optim\.lr: too high"):
        follow()


def test_http_double_an_error_that_the_user_has_to_mend_is_not_tried_again(double: Double, follow: Followed) -> None:
    retrying = {"jobDeploymentStatus": "Retrying", "jobStatus": "FAILED"}
    double.script = [RUNNING, follow.leaves(error="the masks are missing", mendable=True), retrying, HOLD]
    with pytest.raises(UserError, match="the masks are missing"):
        follow()
    assert double.jobs == {}


def test_http_double_a_job_that_waits_says_for_what(double: Double, follow: Followed) -> None:
    double.script = [
        {"suspend": True, "jobDeploymentStatus": "Suspended"},
        {"suspend": False, "jobDeploymentStatus": "Initializing"},
        RUNNING,
        follow.leaves(result=RESULT),
        SUCCEEDED,
    ]
    assert follow(queue="team-a") == RESULT
    assert [text.partition(": ")[2] for text in follow.told] == [
        "waits for its pods",
        "waits in the queue team-a",
        "waits for its pods",
        "runs",
    ]


@pytest.mark.parametrize(
    ("waiting", "told"),
    [
        (
            {"reason": "ImagePullBackOff", "message": "no such tag"},
            "cannot pull a/b:c .*no such tag.*check cluster.image",
        ),
        (
            {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'},
            'secret "s" not found.*cluster.secret',
        ),
    ],
)
def test_http_double_what_never_starts_is_given_up_and_deleted(
    double: Double, follow: Followed, waiting: dict[str, str], told: str
) -> None:
    double.pods = [pod("head", containerStatuses=[{"image": "a/b:c", "state": {"waiting": waiting}}])]
    double.script = [{"jobDeploymentStatus": "Initializing"}, HOLD]
    with pytest.raises(UserError, match=told):
        follow()
    assert double.jobs == {}


def test_http_double_a_watch_that_breaks_off_is_begun_again(double: Double, follow: Followed) -> None:
    double.script = [RUNNING, DISCONNECT, END, EXPIRED, DISCONNECT, follow.leaves(result=RESULT), SUCCEEDED]
    assert follow() == RESULT
    assert double.verbs().count("watch") >= 5
    assert "delete" not in double.verbs()


def test_http_double_a_busy_or_broken_server_is_asked_again(double: Double, follow: Followed) -> None:
    double.faults = [
        Fault("get", 503),
        Fault("create", 429, headers={"Retry-After": "0"}),
        Fault("list", 500),
        Fault("watch", 503),
        Fault("watch", 410),
        Fault("list pods", 502),
    ]
    double.script = [RUNNING, follow.leaves(result=RESULT), SUCCEEDED]
    assert follow() == RESULT
    assert double.faults == []


def test_http_double_a_server_that_stays_away_is_told(
    double: Double, follow: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_api.KubernetesApi._call, "__defaults__", (0.05,))
    double.faults = [Fault("get", 503) for _ in range(100)]
    with pytest.raises(UserError, match=r"answers 503 since .* \(to get rayjobs\); check the API server"):
        follow()


@pytest.mark.parametrize(
    ("verb", "resource"), [("get", "rayjobs"), ("create", "rayjobs"), ("list", "rayjobs"), ("watch", "rayjobs")]
)
def test_http_double_what_is_forbidden_names_the_rule_that_is_missing(
    double: Double, follow: Followed, verb: str, resource: str
) -> None:
    double.faults = [Fault(verb, 403)]
    double.script = [HOLD]
    rule = rf'\{{apiGroups: \["ray.io"\], resources: \[{resource}\], verbs: \[{verb}\]\}}'
    with pytest.raises(UserError, match=f"forbids to {verb} {resource} in namespace {NAMESPACE}.*{rule}"):
        follow()
    assert double.jobs == {}


def test_http_double_a_quota_is_no_missing_rule(double: Double, follow: Followed) -> None:
    double.faults = [Fault("create", 403, "exceeded quota: hep2flow, requested: count/rayjobs.ray.io=1")]
    with pytest.raises(UserError, match=r"refuses to create rayjobs .*exceeded quota"):
        follow()


def test_http_double_a_cluster_without_kuberay_is_told(double: Double, follow: Followed) -> None:
    double.faults = [Fault("create", 404, "404 page not found")]
    with pytest.raises(UserError, match="KubeRay operator is installed"):
        follow()


def test_http_double_a_job_that_does_the_same_already_is_adopted(double: Double, follow: Followed) -> None:
    name = _create_and_leave(double, follow)
    double.requests.clear()
    double.script = [RUNNING, follow.leaves(result=RESULT), SUCCEEDED]
    assert follow() == RESULT
    assert "create" not in double.verbs()
    assert list(double.jobs) == [name]


def test_http_double_an_answer_that_was_lost_makes_no_second_job(double: Double, follow: Followed) -> None:
    name = _create_and_leave(double, follow)
    double.faults = [Fault("get", 404, "not found")]  # as before the first attempt to create it, which did reach
    double.script = [RUNNING, follow.leaves(result=RESULT), SUCCEEDED]
    assert follow() == RESULT
    assert list(double.jobs) == [name]


def test_http_double_a_job_that_does_something_else_is_not_touched(double: Double, follow: Followed) -> None:
    name = _create_and_leave(double, follow)
    double.jobs[name]["metadata"]["annotations"][DIGEST] = 32 * "f"
    with pytest.raises(UserError, match=f"RayJob {name} .*does something else.*kubectl -n {NAMESPACE} delete rayjob"):
        follow()
    assert list(double.jobs) == [name]


def test_http_double_an_attempt_that_failed_is_followed_by_another(double: Double, follow: Followed) -> None:
    double.script = [follow.leaves(error="worse", mendable=False), FAILED]
    with pytest.raises(JobFailedError, match="worse"):
        follow()
    double.script = [FAILED]
    with pytest.raises(JobFailedError, match="AppFailed"):  # and not what the first attempt said
        follow()
    assert len(double.jobs) == 2


def test_http_double_a_job_that_somebody_deletes_is_told(double: Double, follow: Followed) -> None:
    double.script = [RUNNING, double.jobs.clear]
    with pytest.raises(UserError, match="was deleted by somebody"):
        follow()


def test_http_double_the_log_is_shown_and_kept_without_a_line_twice(
    double: Double, follow: Followed, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"2026-01-01T00:00:0{second}.000000000Z epoch {second}" for second in range(4)]
    double.pods = [pod("submitter-x", phase="Running")]
    double.logs = {"submitter-x": [[], [*lines[:2], DISCONNECT], lines, lines]}
    double.script = [RUNNING, double.wait_for_log, follow.leaves(result=RESULT), SUCCEEDED]
    follow()
    (name,) = double.jobs
    text = "epoch 0\nepoch 1\nepoch 2\nepoch 3\n"
    assert store.get_bytes(layout.log_key(RUN, name)).decode() == text
    assert text in capsys.readouterr().err


def test_http_double_a_log_that_may_not_be_read_does_not_end_the_job(
    double: Double, follow: Followed, capsys: pytest.CaptureFixture[str]
) -> None:
    double.pods = [pod("submitter-x", phase="Running")]
    double.faults = [Fault("log", 403, 'User "x" cannot get resource "pods/log"')]
    double.script = [RUNNING, follow.leaves(result=RESULT), SUCCEEDED]
    assert follow() == RESULT
    assert "log cannot be shown" in capsys.readouterr().err


STEP = """
import json, sys
from hep2flow.components.train import train
train.python_func(**json.loads(sys.argv[1]), engine="rayjob", cluster={})
"""


def test_http_double_sigterm_of_the_step_deletes_its_job(double: Double, store: Store, tmp_path: Path) -> None:
    recipe = tiny()
    dataset, split = prepared(store, tmp_path, recipe)
    start_run(store, RunRecord(run_id=RUN))
    arguments = {
        "store": store.address.model_dump(),
        "run_id": RUN,
        "recipe": recipe.to_yaml(),
        "dataset": dataset,
        "split": split,
    }
    double.script = [RUNNING, HOLD]
    process = subprocess.Popen(
        [sys.executable, "-c", STEP, json.dumps(arguments)], stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith("RayJob") and line.endswith(": runs\n"):
            break
    else:
        pytest.fail("".join(seen))
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 143, rest
    assert double.jobs == {}
    (record,) = show_run(store, RUN).stages
    assert record.status == "interrupted"
    assert record.key  # its progress could be followed


def _create_and_leave(double: Double, follow: Followed) -> str:
    """A job that somebody created who then was killed."""
    job = Job(follow.asked, follow.asked.write(follow.store), follow.store.address, ClusterOptions(namespace=NAMESPACE))
    KubernetesApi().create(job.to_manifest())
    return job.name
