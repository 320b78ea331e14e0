"""Creates a RayJob or adopts a running one, watches it to its end, and deletes it where this step is stopped."""

import math
import os
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from hep2flow.errors import UserError
from hep2flow.execution.job_spec import JobOutcome, JobSpec, delete_outcome
from hep2flow.execution.kubernetes import client, rayjob_state
from hep2flow.execution.kubernetes.client import ConflictError, GoneError, KubernetesApi, QuotaExceededError
from hep2flow.execution.kubernetes.cluster_options import ClusterOptions
from hep2flow.execution.kubernetes.rayjob import DIGEST_ANNOTATION, JOB_LABEL, RayJob
from hep2flow.execution.kubernetes.rayjob_log import JobLog
from hep2flow.execution.kubernetes.rayjob_state import JobFailedError, is_over, is_waiting
from hep2flow.process import TerminatedError
from hep2flow.stage_result import StageResult
from hep2flow.store import layout
from hep2flow.store.outage import Log, log_to_stderr
from hep2flow.store.s3 import Store
from hep2flow.store.stage_recorder import DetachedError

HOPELESS_SECONDS = 120.0  # a registry may be unreachable for a moment, a Secret come late
QUOTA_SECONDS = 15.0
LOOK_SECONDS = 5  # at the pods of a job that waits: their troubles change nothing of the job
SHORT_SECONDS = 1.0  # a watch that ends sooner was broken off


def run_rayjob(
    store: Store, spec: JobSpec, options: ClusterOptions, log: Log, is_superseded: Callable[[], bool] = lambda: False
) -> StageResult:
    """Run a job specification as a RayJob, and return what the stage returned there.

    A job that an earlier process left running is adopted. It is deleted as soon as its outcome is known, and where this
    process cannot continue, or is terminated: its GPUs are free in seconds. Where only the pod of this process is deleted,
    as when its node is drained, the job runs on for as long as its lease lasts: the next attempt at this step adopts it.
    ``log`` gets one line whenever the job's state changes; ``is_superseded`` says whether another attempt at the run watches
    the job by now.

    Raises:
        UserError: The user can fix it; also as the stage raised it.
        JobFailedError: All other failures.
        DetachedError: This process ends, and the job does not.
    """
    api = KubernetesApi(options.namespace, log)
    started = time.monotonic()
    name = _create_or_adopt(api, store, spec, options, log)
    log_key = layout.log_key(spec.run_id, name)
    watcher = _Watcher(api, name, options.waiting_seconds, started, log)
    with JobLog(api, name, store, log_key):
        try:
            ended = watcher.wait()
        except BaseException as error:
            # Kubeflow's Terminate leaves the pod, a drained node deletes it: only then another attempt comes.
            pod = os.environ.get("KFP_POD_NAME")
            if isinstance(error, TerminatedError) and (is_superseded() or (pod and api.is_being_deleted(pod))):
                raise DetachedError from error
            _delete(api, name)
            raise
    _delete(api, name)
    outcome = JobOutcome.read(store, spec)
    if outcome is not None and outcome.abandoned:  # this step adopted the job a moment after its lease ended
        log(f"RayJob {name}: ended because no step watched it; started again, it resumes from its last state")
        return run_rayjob(store, spec, options, log, is_superseded)
    if rayjob_state.has_succeeded(ended) and outcome is not None and outcome.result is not None:
        return outcome.result
    failure = rayjob_state.job_failure(ended, watcher.waited_for)
    if outcome is not None and outcome.error and not isinstance(failure, UserError):
        failure = UserError(outcome.error) if outcome.mendable else JobFailedError(f"RayJob {name}: {outcome.error}")
    if isinstance(failure, JobFailedError):
        failure = JobFailedError(f"{failure}; its log is {store.uri(log_key)}")
    raise failure


def _create_or_adopt(api: KubernetesApi, store: Store, spec: JobSpec, options: ClusterOptions, log: Log) -> str:
    """Name of the RayJob that runs this specification: a new one, or one that runs it already."""
    uri = spec.write(store)
    options = options.model_copy(update={"namespace": api.namespace})
    for attempt in count(1):
        job = RayJob(spec, uri, store.address, options, attempt)
        existing = api.get(job.name)
        if existing is None:
            delete_outcome(store, spec)
            try:
                _create(api, job, options.waiting_seconds, log)
                return job.name
            except ConflictError:  # another process was faster, or Kubernetes' answer was lost
                existing = api.get(job.name)
        if existing is not None:
            if existing["metadata"].get("annotations", {}).get(DIGEST_ANNOTATION) != spec.digest:
                what = f"already exists with another specification for run {spec.run_id}"
                fix = f"delete it (kubectl -n {api.namespace} delete rayjob {job.name}), or choose another run id"
                raise UserError(f"RayJob {job.name} in namespace {api.namespace}: {what}; {fix}")
            if not is_over(existing) and "deletionTimestamp" not in existing["metadata"]:
                return job.name
    raise AssertionError("attempts are never used up")


def _create(api: KubernetesApi, job: RayJob, patience: float, log: Log) -> None:
    """Create the job, once the namespace's quota admits it."""
    deadline, logged = time.monotonic() + patience, False
    while True:
        try:
            return api.create(job.to_manifest())
        except QuotaExceededError as error:
            if time.monotonic() > deadline:
                what = f"RayJob {job.name}: the quota had no room for {patience:.0f} s ({error})"
                fix = "end other jobs, ask for a larger quota, or raise cluster.waiting_seconds"
                raise UserError(f"{what}; {fix}") from error
            if not logged:
                log(f"RayJob {job.name}: waits for another job of namespace {api.namespace} to end ({error})")
            logged = True
            time.sleep(QUOTA_SECONDS)


def _delete(api: KubernetesApi, name: str) -> None:
    try:
        api.delete(name)
    except UserError as error:  # its lease ends it in minutes
        log_to_stderr(f"hep2flow: RayJob {name} could not be deleted: {error}")


class _Watcher:
    """Watches one job, which may wait for ``patience`` seconds: all its attempts together, but not in a queue."""

    def __init__(self, api: KubernetesApi, name: str, patience: int, waiting_since: float, log: Log) -> None:
        self._api, self._name, self._patience, self._log, self._state = api, name, patience, log, ""
        self._waiting_since: float | None = waiting_since
        self._hopeless_since: float | None = None
        self.waited_for = ""  # what the job last waited for; empty once it runs

    def wait(self) -> dict[str, Any]:
        """The job, once its outcome is known."""
        pause = SHORT_SECONDS
        while True:
            found, version = self._api.find(self._name)
            job = self._check(found)
            try:
                while not _is_decided(job):
                    started = time.monotonic()
                    for found in self._api.watch(self._name, version, self._watch_seconds(job)):
                        job, pause = self._check(found), SHORT_SECONDS
                        version = job["metadata"]["resourceVersion"]
                        if _is_decided(job):
                            return job
                    self._check(job)
                    if time.monotonic() - started < SHORT_SECONDS:
                        raise OSError("the watch ended at once")
                return job
            except GoneError:
                continue
            except OSError:
                time.sleep(pause)
                pause = min(2 * pause, client.LONGEST_PAUSE)

    def _watch_seconds(self, job: dict[str, Any]) -> int:
        if not is_waiting(job):
            return client.WATCH_SECONDS
        left = LOOK_SECONDS if self._waiting_since is None else self._waiting_since + self._patience - time.monotonic()
        return max(1, min(LOOK_SECONDS, math.ceil(left)))

    def _check(self, job: dict[str, Any] | None) -> dict[str, Any]:
        """Log the job's state where it is new; raise where the job is gone or cannot start."""
        if job is None:
            raise UserError(f"RayJob {self._name}: was deleted by somebody; run again, it resumes from its last state")
        pods = self._api.pods(f"{JOB_LABEL}={self._name}") if is_waiting(job) else []
        problem = rayjob_state.find_start_problem(job, pods) if is_waiting(job) else None
        if problem is None or not problem.hopeless:
            self._hopeless_since = None
        else:
            self._hopeless_since = self._hopeless_since or time.monotonic()
            if time.monotonic() - self._hopeless_since >= HOPELESS_SECONDS:
                raise UserError(f"RayJob {self._name}: {problem.message}")
        if not is_over(job):
            state = rayjob_state.describe(job, problem)
            self.waited_for = state if is_waiting(job) else ""
            if state != self._state:
                self._state = state
                self._log(f"RayJob {self._name}: {state}")
        if not is_waiting(job) or rayjob_state.is_suspended(job):
            self._waiting_since = None
            return job
        self._waiting_since = self._waiting_since or time.monotonic()
        if time.monotonic() - self._waiting_since >= self._patience:
            raise rayjob_state.did_not_start(f"RayJob {self._name}", self._patience, self.waited_for)
        return job


def _is_decided(job: dict[str, Any]) -> bool:
    """Whether the job is over, or will be, with an outcome that lies in the store."""
    return is_over(job) or rayjob_state.has_succeeded(job)
