"""A RayJob followed to its end. Kubernetes is an HTTP double here: only what it answers is tested, no cluster."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import CustomObjectsApi
from kubernetes.client.exceptions import ApiException

from hep2flow.errors import UserError
from hep2flow.execution.job_spec import JobOutcome, JobSpec
from hep2flow.execution.kubernetes import client, rayjob_log, rayjob_watcher
from hep2flow.execution.kubernetes.client import KubernetesApi
from hep2flow.execution.kubernetes.cluster_options import ClusterOptions
from hep2flow.execution.kubernetes.rayjob import DIGEST_ANNOTATION, RayJob
from hep2flow.execution.kubernetes.rayjob_state import JobFailedError
from hep2flow.execution.kubernetes.rayjob_watcher import run_rayjob
from hep2flow.process import EXIT_TERMINATED, raise_on_sigterm
from hep2flow.recipe import load_recipe
from hep2flow.stage_result import StageResult
from hep2flow.store import layout, stage_recorder
from hep2flow.store.runs import RunRecord, StageRecord, now, show_run, start_run, update_run
from hep2flow.store.s3 import Store
from hep2flow.store.stage_recorder import running_stage
from tests.execution.double import (
    ADMITTED,
    BEGUN,
    DISCONNECT,
    END,
    ENDING,
    EXPIRED,
    HOLD,
    INITIALIZING,
    NAMESPACE,
    NEW_AGAIN,
    RUNNING,
    SUCCEEDED,
    SUSPENDED,
    UNKNOWN_QUOTA,
    Double,
    Fault,
    Step,
    failed,
    given_up,
    leaving,
    pod,
    refused_pods,
    serving,
)
from tests.stages.test_train import prepared, tiny

RUN = "monday"
RESULT = StageResult(stage="train", key=32 * "0", uri="s3://b/trainings/0", summary={"updates": 6})
LATE = "The RayJob has passed the preRunningDeadlineSeconds"


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    for module, name in (
        (client, "FIRST_PAUSE"),
        (rayjob_watcher, "SHORT_SECONDS"),
        (rayjob_watcher, "QUOTA_SECONDS"),
        (rayjob_log, "PAUSE_SECONDS"),
    ):
        monkeypatch.setattr(module, name, 0.01)
    monkeypatch.setattr(client, "LONGEST_PAUSE", 0.1)
    monkeypatch.setattr(rayjob_watcher, "HOPELESS_SECONDS", 0.0)
    world = Double()
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with serving(world, tmp_path) as config:
        monkeypatch.setenv("KUBECONFIG", str(config))
        yield world


@pytest.fixture
def asked() -> JobSpec:
    return JobSpec(run_id=RUN, recipe=load_recipe("convnext-b", "laptop"), dataset="s3://b/d", split="s3://b/s")


class Followed:
    """Follows, and remembers what was told."""

    def __init__(self, store: Store, asked: JobSpec) -> None:
        self.store, self.asked = store, asked
        self.told: list[str] = []

    def __call__(self, superseded: Callable[[], bool] = lambda: False, **options: Any) -> StageResult:
        return run_rayjob(self.store, self.asked, ClusterOptions(**options), self.told.append, superseded)

    def leaves(self, **outcome: Any) -> Callable[[], None]:
        """What the job's entry point does at its end."""
        return lambda: JobOutcome(**outcome).write(self.store, self.asked.write(self.store))

    def succeeds(self) -> list[Step]:
        """All of a job that goes well."""
        return [*BEGUN, self.leaves(result=RESULT), *SUCCEEDED]

    @property
    def words(self) -> list[str]:
        """What was told of the job, without its name."""
        return [text.partition(": ")[2] for text in self.told if text.startswith("RayJob ")]


@pytest.fixture
def follow(store: Store, asked: JobSpec) -> Followed:
    return Followed(store, asked)


def test_http_double_a_job_that_succeeds_returns_what_its_stage_returned(double: Double, follow: Followed) -> None:
    double.script = follow.succeeds()
    assert follow() == RESULT
    (job,) = double.made
    assert job["metadata"]["annotations"][DIGEST_ANNOTATION] == follow.asked.digest
    assert job["metadata"]["namespace"] == NAMESPACE
    assert re.fullmatch(r"hep2flow train --spec s3://\S+", job["spec"]["entrypoint"])
    assert follow.words == ["waits for its pods", "runs"]
    assert double.jobs == {}, "its GPUs are free at once"


def test_http_double_no_pod_owns_a_job_so_that_it_outlives_its_step(
    double: Double, follow: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_POD_NAME", "step-1")
    monkeypatch.setenv("KFP_POD_UID", "0d1f1e9c-0000-0000-0000-000000000000")
    double.script = follow.succeeds()
    follow()
    (job,) = double.made
    assert "ownerReferences" not in job["metadata"]


@pytest.mark.parametrize(
    ("end", "kind", "told"),
    [
        (failed("Job failed\nexit code 137, killed"), JobFailedError, "AppFailed: exit code 137, killed"),
        (
            [{"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}],
            UserError,
            "was stopped by somebody; run again",
        ),
        ([given_up("DeadlineExceeded")], UserError, "longer than 86400 s; run again"),
        (
            [given_up("PreRunningDeadlineExceeded", LATE)],
            UserError,
            r"did not start within 3600 s \(waits: no node for worker-0: 0/3 nodes .*raise cluster.waiting_seconds",
        ),
        ([given_up("SubmissionFailed")], JobFailedError, "SubmissionFailed"),
        ([{"jobDeploymentStatus": "ValidationFailed", "message": "no"}], JobFailedError, "failed: no"),
        (SUCCEEDED, JobFailedError, "left no result"),
    ],
)
def test_http_double_each_end_is_told_as_what_it_is(
    double: Double, follow: Followed, end: list[Step], kind: type[Exception], told: str
) -> None:
    unschedulable = {"type": "PodScheduled", "reason": "Unschedulable", "message": "0/3 nodes have a GPU"}
    double.pods = [pod("worker-0", conditions=[unschedulable])]
    double.script = [INITIALIZING, *end]
    with pytest.raises(kind, match=told):
        follow(retries=0)


@pytest.mark.parametrize("mendable", [True, False])
def test_http_double_the_jobs_own_error_is_told_where_it_left_one(
    double: Double, follow: Followed, mendable: bool
) -> None:
    double.script = [*BEGUN, follow.leaves(error="optim.lr: too high", mendable=mendable), *failed()]
    with pytest.raises(UserError if mendable else JobFailedError, match=r"optim\.lr: too high"):
        follow(retries=0)


def test_http_double_a_job_that_ended_well_to_say_what_the_user_has_to_mend_raises_that(
    double: Double, follow: Followed
) -> None:
    double.script = [*BEGUN, follow.leaves(error="the masks are missing", mendable=True), *SUCCEEDED]
    with pytest.raises(UserError, match=r"^the masks are missing$"):
        follow()
    assert double.verbs().count("create") == 1, "trying again would help nobody"


def test_http_double_a_job_that_ended_for_want_of_a_follower_is_begun_again_from_its_last_state(
    double: Double, follow: Followed
) -> None:
    double.script = [*BEGUN, follow.leaves(abandoned=True), *SUCCEEDED, *follow.succeeds()]
    assert follow() == RESULT
    assert len(double.made) == 2
    assert [text for text in follow.told if "ended because no step watched it" in text]


def test_http_double_a_job_that_kuberay_begins_again_is_followed_on_and_the_new_cluster_told(
    double: Double, follow: Followed
) -> None:
    lost = failed("the head is lost")
    double.script = [*BEGUN, *lost, NEW_AGAIN, *follow.succeeds()]
    assert follow() == RESULT
    (job,) = double.made
    assert (job["status"]["failed"], job["status"]["rayClusterName"][-5:]) == (1, "00001"), "a cluster of its own"
    words = ["waits for its pods", "runs", "starts again with a new Ray cluster", "waits for its pods", "runs"]
    assert follow.words == words
    assert double.verbs().count("delete") == 1, "at its end alone"


def test_http_double_a_job_is_given_up_once_its_retries_are_used(double: Double, follow: Followed) -> None:
    again: list[Step] = [NEW_AGAIN, *BEGUN]
    double.script = [*BEGUN, *failed(), *again, *failed(), *again, *failed("exit code 137")]
    with pytest.raises(JobFailedError, match=r"exit code 137; its log is s3://"):
        follow(retries=2)
    (job,) = double.made
    assert job["status"]["failed"] == 3


def test_http_double_a_result_is_taken_before_the_job_is_complete_and_the_end_of_its_log_with_it(
    double: Double, follow: Followed
) -> None:
    """KubeRay takes 15 s to complete it, and begins again where the head dies in them."""
    double.pods = [pod("submitter-x", phase="Running")]
    double.logs = {"submitter-x": [[], ["2026-01-01T00:00:00.000000000Z the last line"]]}
    double.script = [*BEGUN, follow.leaves(result=RESULT), double.wait_for_log, ENDING, HOLD]
    assert follow() == RESULT
    (job,) = double.made
    assert job["status"]["jobDeploymentStatus"] == "Running"
    assert double.jobs == {}
    assert follow.store.get_bytes(layout.log_key(RUN, job["metadata"]["name"])) == b"the last line\n"


def test_http_double_a_job_that_waits_says_for_what(double: Double, follow: Followed) -> None:
    double.script = [INITIALIZING, *SUSPENDED, *ADMITTED, RUNNING, follow.leaves(result=RESULT), *SUCCEEDED]
    assert follow(queue="team-a") == RESULT
    assert follow.words == ["waits for its pods", "waits in the queue team-a", "waits for its pods", "runs"]


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
    double.script = [INITIALIZING, HOLD]
    with pytest.raises(UserError, match=told):
        follow()
    assert double.jobs == {}


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            'pods "h2-0-head-{number}" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true',
            r"refuses its head \(violates PodSecurity .*have it allowed",
        ),
        (
            'pods "h2-0-head-{number}" is forbidden: maximum cpu usage per Pod is 1, but limit is 2',
            r"refuses its head \(maximum cpu usage per Pod is 1",
        ),
    ],
)
def test_http_double_pods_that_are_refused_for_good_are_told_at_once_and_given_up(
    double: Double, follow: Followed, message: str, told: str
) -> None:
    """No pod and no event tells of it."""
    refusals = [refused_pods(message.format(number=number)) for number in range(3)]
    double.script = [*refusals, HOLD]
    with pytest.raises(UserError, match=told):
        follow()
    assert double.jobs == {}


def test_http_double_a_quota_that_refuses_pods_is_told_once_and_waited_for(double: Double, follow: Followed) -> None:
    quota = 'pods "h2-0-head-{}" is forbidden: exceeded quota: team, requested: cpu=2, used: cpu=3, limited: cpu=4'
    double.script = [*(refused_pods(quota.format(number)) for number in range(3)), *follow.succeeds()]
    assert follow() == RESULT
    (waits,) = (words for words in follow.words if "exceeded quota" in words)
    assert waits.startswith("waits: Kubernetes refuses its head (exceeded quota: team, requested: cpu=2")


def test_http_double_all_attempts_of_a_job_wait_together_no_longer_than_waiting_seconds(
    double: Double, follow: Followed
) -> None:
    """KubeRay counts each attempt anew."""
    unschedulable = {"type": "PodScheduled", "reason": "Unschedulable", "message": "0/3 nodes have a GPU"}
    double.pods = [pod("worker-0", conditions=[unschedulable])]
    late = given_up("PreRunningDeadlineExceeded", LATE)
    double.script = [INITIALIZING, late, NEW_AGAIN, INITIALIZING, late, NEW_AGAIN, INITIALIZING, HOLD]
    started = time.monotonic()
    told = (
        r"did not start within 1 s \(waits: no node for worker-0: 0/3 nodes have a GPU\).*raise cluster.waiting_seconds"
    )
    with pytest.raises(UserError, match=told):
        follow(waiting_seconds=1, retries=2)
    assert time.monotonic() - started < 20
    assert double.jobs == {}


def test_http_double_pods_of_the_ray_cluster_before_are_not_what_a_job_waits_for(
    double: Double, follow: Followed
) -> None:
    old = pod("worker-0", conditions=[{"type": "PodScheduled", "reason": "Unschedulable", "message": "no node"}])
    old["metadata"]["labels"] = {"ray.io/cluster": "h2-0-00000"}
    double.pods = [old]
    double.script = [INITIALIZING, RUNNING, *failed("the head is lost"), NEW_AGAIN, *follow.succeeds()]
    assert follow() == RESULT
    assert not [words for words in follow.words if "worker-0" in words]


def test_http_double_a_watch_that_breaks_off_is_begun_again(double: Double, follow: Followed) -> None:
    double.script = [RUNNING, DISCONNECT, END, EXPIRED, DISCONNECT, follow.leaves(result=RESULT), *SUCCEEDED]
    assert follow() == RESULT
    assert double.verbs().count("watch") >= 5
    assert double.verbs().count("delete") == 1, "at its end alone"


def test_http_double_a_busy_or_broken_server_is_asked_again(double: Double, follow: Followed) -> None:
    double.faults = [
        Fault("get", 503),
        Fault("create", 429, headers={"Retry-After": "0"}),
        Fault("list", 500),
        Fault("watch", 503),
        Fault("watch", 410),
        Fault("list pods", 502),
    ]
    double.script = [RUNNING, follow.leaves(result=RESULT), *SUCCEEDED]
    assert follow() == RESULT
    assert double.faults == []


def test_http_double_a_server_that_refuses_connections_for_a_while_ends_nothing_and_is_told_once(
    double: Double, follow: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "OUTAGE_NOTICE_SECONDS", 0.0)

    def told(text: str) -> None:
        follow.told.append(text)
        if text.endswith("running jobs continue"):
            double.open()

    double.script = [*BEGUN, double.close, follow.leaves(result=RESULT), *SUCCEEDED]
    assert run_rayjob(follow.store, follow.asked, ClusterOptions(), told) == RESULT
    away = [text for text in follow.told if text.startswith("Kubernetes at ")]
    assert [text.partition(" is ")[2].split()[0] for text in away] == ["unreachable", "reachable"]
    assert double.verbs().count("create") == double.verbs().count("delete") == 1


def test_http_double_a_token_that_is_being_renewed_is_no_wrong_one(double: Double, follow: Followed) -> None:
    """And what is answered after it, here that there is no such job yet, is believed at once."""
    double.faults = [
        Fault("get", 401),
        Fault("create", 401),
        Fault("create", 401),
        Fault("list", 401),
        Fault("watch", 401),
    ]
    double.script = follow.succeeds()
    assert follow() == RESULT
    assert double.faults == []
    assert double.verbs().count("get") == 2


def test_http_double_an_address_that_leads_elsewhere_while_the_server_is_away_ends_nothing(
    double: Double, follow: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client gives a failed TLS handshake the status 0 (kubernetes/client/rest.py, RESTClientObject.request)."""
    faults = [ApiException(status=0, reason="SSLError\ncertificate verify failed") for _ in range(3)]
    true = CustomObjectsApi.get_namespaced_custom_object

    def get(*arguments: Any, **options: Any) -> Any:
        if faults:
            raise faults.pop()
        return true(*arguments, **options)

    monkeypatch.setattr(CustomObjectsApi, "get_namespaced_custom_object", get)
    double.script = follow.succeeds()
    assert follow() == RESULT
    assert not faults


def test_http_double_credentials_that_are_wrong_are_told(double: Double, follow: Followed) -> None:
    double.faults = [Fault("get", 401) for _ in range(50)]
    with pytest.raises(UserError, match="does not accept these credentials; log in again"):
        follow()
    assert double.verbs() == ["get"] * client.MAX_UNAUTHORIZED


def test_http_double_a_server_that_stays_away_for_hours_is_told(
    double: Double, follow: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = client.KubernetesApi._call.__kwdefaults__
    assert defaults["patience"] >= 3600, "a job that runs needs no API server"
    monkeypatch.setitem(defaults, "patience", 0.05)
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


def test_http_double_a_quota_that_is_used_up_is_waited_for_with_one_message(
    double: Double, follow: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = JobSpec(**{**dict(follow.asked), "run_id": "sunday"})
    earlier = RayJob(other, other.write(follow.store), follow.store.address, ClusterOptions(namespace=NAMESPACE))
    KubernetesApi().create(earlier.to_manifest())
    double.quota, double.script = 1, follow.succeeds()

    def pause(seconds: float) -> None:
        if double.verbs().count("create") == 4:
            double.jobs.pop(earlier.name)  # it has ended

    monkeypatch.setattr(rayjob_watcher.time, "sleep", pause)
    assert follow() == RESULT
    (waits,) = (text for text in follow.words if "waits for another job" in text)
    assert f"of namespace {NAMESPACE} to end" in waits
    assert "exceeded quota: hep2flow" in waits
    assert list(double.jobs) != [earlier.name]


def test_http_double_a_quota_without_room_for_too_long_is_no_missing_rule(double: Double, follow: Followed) -> None:
    double.quota = 0
    with pytest.raises(
        UserError, match=r"the quota had no room for 1 s .*exceeded quota.*raise cluster.waiting_seconds"
    ):
        follow(waiting_seconds=1)


def test_http_double_a_quota_that_is_new_has_no_status_for_a_moment(double: Double, follow: Followed) -> None:
    double.faults = [Fault("create", 403, UNKNOWN_QUOTA)] * 2
    double.script = follow.succeeds()
    assert follow() == RESULT
    assert double.faults == []
    assert follow.words == ["waits for its pods", "runs"], "nobody has to know"


def test_http_double_a_cluster_without_kuberay_is_told(double: Double, follow: Followed) -> None:
    double.faults = [Fault("create", 404, "404 page not found")]
    with pytest.raises(UserError, match="KubeRay operator is installed"):
        follow()


def test_http_double_a_job_that_does_the_same_already_is_adopted(double: Double, follow: Followed) -> None:
    name = _create_and_leave(double, follow)
    double.requests.clear()
    double.script = [RUNNING, follow.leaves(result=RESULT), *SUCCEEDED]
    assert follow() == RESULT
    assert "create" not in double.verbs()
    assert [job["metadata"]["name"] for job in double.made] == [name]


def test_http_double_an_answer_that_was_lost_makes_no_second_job(double: Double, follow: Followed) -> None:
    name = _create_and_leave(double, follow)
    double.faults = [Fault("get", 404, "not found")]  # as before the first attempt to create it, which did reach
    double.script = [RUNNING, follow.leaves(result=RESULT), *SUCCEEDED]
    assert follow() == RESULT
    assert [job["metadata"]["name"] for job in double.made] == [name]


def test_http_double_a_job_that_does_something_else_is_not_touched(double: Double, follow: Followed) -> None:
    name = _create_and_leave(double, follow)
    double.jobs[name]["metadata"]["annotations"][DIGEST_ANNOTATION] = 32 * "f"
    with pytest.raises(
        UserError,
        match=f"RayJob {name} .*already exists with another specification.*kubectl -n {NAMESPACE} delete rayjob",
    ):
        follow()
    assert list(double.jobs) == [name]


def test_http_double_an_attempt_that_failed_is_followed_by_another(double: Double, follow: Followed) -> None:
    double.script = [*BEGUN, follow.leaves(error="worse", mendable=False), *failed()]
    with pytest.raises(JobFailedError, match="worse"):
        follow(retries=0)
    double.script = [*BEGUN, *failed()]
    with pytest.raises(JobFailedError, match="AppFailed"):  # and not what the first attempt said
        follow(retries=0)
    assert len(double.made) == 2


def test_http_double_a_job_that_is_being_deleted_is_not_adopted(double: Double, follow: Followed) -> None:
    name = _create_and_leave(double, follow)
    double.jobs[name]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    double.script = follow.succeeds()
    assert follow() == RESULT
    assert list(double.jobs) == [name]
    assert len(double.made) == 2


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
    double.script = [RUNNING, double.wait_for_log, follow.leaves(result=RESULT), *SUCCEEDED]
    follow()
    (name,) = (job["metadata"]["name"] for job in double.made)
    text = "epoch 0\nepoch 1\nepoch 2\nepoch 3\n"
    assert store.get_bytes(layout.log_key(RUN, name)).decode() == text
    assert text in capsys.readouterr().err


def test_http_double_a_submitter_that_replaces_a_lost_one_repeats_no_line(
    double: Double, follow: Followed, store: Store
) -> None:
    """It prints the whole log of the same Ray job; a new Ray cluster's job has another id, and a log of its own."""

    def submitter(name: str, submission: str) -> dict[str, Any]:
        environment = [{"name": "RAY_JOB_SUBMISSION_ID", "value": submission}]
        return {**pod(name, phase="Failed"), "spec": {"containers": [{"env": environment}]}}

    def log(minute: int, *texts: str) -> list[str]:
        return [f"2026-01-01T00:{minute:02}:0{second}.000000000Z {text}" for second, text in enumerate(texts)]

    double.pods = [submitter("submitter-1", "a"), submitter("submitter-2", "a"), submitter("submitter-3", "b")]
    double.logs = {
        "submitter-1": [log(0, "start", "epoch 1")] * 3,
        "submitter-2": [log(1, "start", "epoch 1", "epoch 2")] * 3,
        "submitter-3": [log(2, "start", "epoch 3")] * 2,
    }
    double.script = [RUNNING, double.wait_for_log, follow.leaves(result=RESULT), *SUCCEEDED]
    follow()
    (name,) = (job["metadata"]["name"] for job in double.made)
    assert store.get_bytes(layout.log_key(RUN, name)).decode() == "start\nepoch 1\nepoch 2\nstart\nepoch 3\n"


def test_http_double_a_log_that_may_not_be_read_does_not_end_the_job(
    double: Double, follow: Followed, capsys: pytest.CaptureFixture[str]
) -> None:
    double.pods = [pod("submitter-x", phase="Running")]
    double.faults = [Fault("log", 403, 'User "x" cannot get resource "pods/log"')]
    double.script = [RUNNING, follow.leaves(result=RESULT), *SUCCEEDED]
    assert follow() == RESULT
    assert "log cannot be shown" in capsys.readouterr().err


STEP = """
import json, sys
from hep2flow.components.train import train
train.python_func(
    **json.loads(sys.argv[1]), engine="rayjob", cluster={}, store_secret="none", job_id="first", trained=None
)
"""


def test_http_double_sigterm_of_a_step_whose_run_is_terminated_deletes_its_job(
    double: Double, store: Store, tmp_path: Path
) -> None:
    recipe = tiny()
    dataset, split = prepared(store, tmp_path, recipe)
    told = {recipe.name: recipe.model_dump(mode="json")}
    start_run(store, RunRecord(run_id=RUN, attempt="first", recipes=told, models={recipe.name: ""}))
    arguments = {
        "store": store.address.model_dump(),
        "run_id": RUN,
        "models": recipe.name,
        "dataset": dataset,
        "split": split,
    }
    double.script = [*BEGUN, HOLD]
    double.steps = {"step-1": pod("step-1", phase="Running")}
    process = subprocess.Popen(
        [sys.executable, "-c", STEP, json.dumps(arguments)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "KFP_POD_NAME": "step-1"},
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
    assert process.returncode == EXIT_TERMINATED, rest
    assert double.jobs == {}
    assert "Traceback" not in rest
    (record,) = show_run(store, RUN).stages
    assert record.status == "interrupted"
    assert record.key  # its progress could be followed


class Stepped:
    """A step's attempt at its stage, in this process: it ends itself by SIGTERM where the script says so."""

    def __init__(self, double: Double, follow: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
        self.double, self.follow = double, follow
        monkeypatch.setenv("KFP_POD_NAME", "step-1")
        start_run(follow.store, RunRecord(run_id=RUN, attempt="first"))

    def __call__(self) -> StageResult:
        said, store = self.follow.asked, self.follow.store
        with raise_on_sigterm(), running_stage(store, RUN, "train", said.recipe.name, "first") as record:
            return self.follow(lambda: record.is_superseded)

    def is_terminated(self, *script: Step) -> None:
        self.double.script = [*script, _sigterm, HOLD]
        with pytest.raises(SystemExit) as ended:
            self()
        assert ended.value.code == EXIT_TERMINATED

    @property
    def record(self) -> StageRecord:
        found = self.follow.store.get_json(layout.stage_record(RUN, "train", self.follow.asked.recipe.name))
        return StageRecord.model_validate(found)


def _sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def stepped(double: Double, follow: Followed, monkeypatch: pytest.MonkeyPatch) -> Stepped:
    return Stepped(double, follow, monkeypatch)


@pytest.mark.parametrize("fate", ["deleted", "gone"])
def test_http_double_a_step_whose_pod_is_deleted_leaves_its_job_and_the_next_attempt_adopts_it(
    double: Double, stepped: Stepped, fate: str
) -> None:
    """As when its node is drained: a training of hours does not end for it."""
    double.steps = {"step-1": leaving("step-1")} if fate == "deleted" else {}
    stepped.is_terminated(*BEGUN)
    (name,) = double.jobs
    assert "delete" not in double.verbs()
    record = stepped.record
    assert (record.status, record.error) == ("running", None), "the job's lease lasts"
    assert now() - record.heartbeat < timedelta(seconds=30)
    double.requests.clear()
    double.script = [stepped.follow.leaves(result=RESULT), *SUCCEEDED]
    assert stepped() == RESULT
    assert "create" not in double.verbs()
    assert [job["metadata"]["name"] for job in double.made] == [name]
    assert stepped.record.status == "succeeded"


def test_http_double_a_step_that_another_attempt_has_replaced_leaves_the_job_and_the_record_to_it(
    double: Double, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_recorder, "HEARTBEAT_SECONDS", 0.05)
    double.steps = {"step-1": pod("step-1", phase="Running")}
    store, name = stepped.follow.store, stepped.follow.asked.recipe.name

    def replaced() -> None:
        update_run(store, RUN, attempt="second")
        other = StageRecord(run_id=RUN, stage="train", model=name, attempt="second")
        store.put_json(layout.stage_record(RUN, "train", name), other.model_dump(mode="json"))

    double.script = [*BEGUN, replaced, HOLD]
    with pytest.raises(SystemExit) as ended:
        stepped()
    assert ended.value.code == EXIT_TERMINATED
    assert len(double.jobs) == 1
    assert "delete" not in double.verbs()
    assert (stepped.record.attempt, stepped.record.status) == ("second", "running")


def test_http_double_a_step_that_cannot_ask_whether_its_pod_is_leaving_deletes_its_job(
    double: Double, stepped: Stepped
) -> None:
    """A run that somebody ends must not hold GPUs: where in doubt, it is that."""
    double.faults = [Fault("get pod", 500)]
    stepped.is_terminated(*BEGUN)
    assert double.jobs == {}
    assert stepped.record.status == "interrupted"


def test_http_double_a_terminated_step_is_done_within_the_second_that_it_has(double: Double, stepped: Stepped) -> None:
    double.steps = {"step-1": pod("step-1", phase="Running")}
    at: list[float] = []
    stepped.is_terminated(*BEGUN, lambda: at.append(time.monotonic()))
    assert double.jobs == {}
    assert stepped.record.status == "interrupted"
    assert time.monotonic() - at[0] < 5, "and not the job's log, nor the hours of patience"


def _create_and_leave(double: Double, follow: Followed) -> str:
    """A job that somebody created who then was killed."""
    job = RayJob(
        follow.asked, follow.asked.write(follow.store), follow.store.address, ClusterOptions(namespace=NAMESPACE)
    )
    KubernetesApi().create(job.to_manifest())
    return job.name
