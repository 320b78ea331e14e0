"""A RayJob from its creation to its result: created or adopted, followed through everything, deleted or left to the next."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from hep2flow.errors import UserError
from hep2flow.execution.job_spec import Outcome, Specification, forget_outcome
from hep2flow.execution.kubernetes.client import (
    LONGEST_PAUSE,
    ConflictError,
    GoneError,
    KubernetesApi,
    QuotaExceededError,
)
from hep2flow.execution.kubernetes.cluster_options import ClusterOptions
from hep2flow.execution.kubernetes.rayjob import DIGEST, JOB, Job
from hep2flow.execution.kubernetes.rayjob_log import JobLog
from hep2flow.execution.kubernetes.rayjob_state import (
    JobFailedError,
    describe,
    failure,
    has_succeeded,
    hindrance_of,
    is_over,
    is_waiting,
)
from hep2flow.process import TerminatedError
from hep2flow.stage_result import StageResult
from hep2flow.store import layout
from hep2flow.store.outage import Tell
from hep2flow.store.runs import LeftRunningError
from hep2flow.store.s3 import Store

HOPELESS_SECONDS = 120.0  # a registry may be away for a moment, a Secret come late
QUOTA_SECONDS = 15.0
SHORT_SECONDS = 1.0  # a watch that ends sooner was broken off


def run_job(
    store: Store,
    specification: Specification,
    options: ClusterOptions,
    tell: Tell,
    is_superseded: Callable[[], bool] = lambda: False,
) -> StageResult:
    """Do what is specified as a RayJob, and return what the stage returned there.

    A job that an earlier process left running is adopted. Where this process cannot go on, or is terminated, the job is
    deleted, and its GPUs are free in seconds. Where only the pod of this process is deleted, as when its node is drained,
    the job goes on for as long as its lease lasts: the next attempt at this step adopts it.

    Args:
        store: Where everything lies.
        specification: What is to be done.
        options: What the cluster is.
        tell: Told in one line whenever the job's state changes.
        is_superseded: Whether another attempt at the run follows the job by now.

    Raises:
        UserError: The user can mend it; also as the stage raised it.
        JobFailedError: All other failures.
        LeftRunningError: This process ends, and the job does not.
    """
    api = KubernetesApi(options.namespace, tell)
    name = _created(api, store, specification, options, tell)
    key = layout.log_key(specification.run_id, name)
    following = _Following(api, store, specification, name, tell)
    with JobLog(api, name, store, key):
        try:
            ended = following.to_the_end()
        except TerminatedError as ended_by:
            pod = os.environ.get("KFP_POD_NAME")
            if is_superseded() or (pod and api.is_leaving(pod)):
                raise LeftRunningError from ended_by
            _delete(api, name)
            raise
        except BaseException:
            _delete(api, name)
            raise
    outcome = Outcome.read(store, specification)
    if outcome is not None and outcome.abandoned:  # this step came a moment too late to keep it
        tell(f"RayJob {name}: ended for want of a follower; begun again, it goes on from its last state")
        return run_job(store, specification, options, tell, is_superseded)
    if has_succeeded(ended) and outcome is not None and outcome.result is not None:
        return outcome.result
    error = failure(ended, following.waited_for)
    if outcome is not None and outcome.error and not isinstance(error, UserError):
        error = UserError(outcome.error) if outcome.mendable else JobFailedError(f"RayJob {name}: {outcome.error}")
    if isinstance(error, JobFailedError):
        error = JobFailedError(f"{error}; its log is {store.uri(key)}")
    raise error


def _created(
    api: KubernetesApi, store: Store, specification: Specification, options: ClusterOptions, tell: Tell
) -> str:
    """Name of the RayJob that does this: a new one, or the one that does it already."""
    uri = specification.write(store)
    here = options.model_copy(update={"namespace": api.namespace})
    for attempt in count(1):
        job = Job(specification, uri, store.address, here, attempt)
        there = api.get(job.name)
        if there is None:
            forget_outcome(store, specification)
            try:
                _create(api, job, options.waiting_seconds, tell)
            except ConflictError:  # somebody was faster, or an answer of Kubernetes was lost
                there = api.get(job.name)
            else:
                return job.name
        if there is not None:
            if there["metadata"].get("annotations", {}).get(DIGEST) != specification.digest:
                raise UserError(
                    f"RayJob {job.name} in namespace {api.namespace}: is there already and does something else for run "
                    f"{specification.run_id}; delete it (kubectl -n {api.namespace} delete rayjob {job.name}), or choose "
                    "another run id"
                )
            if not is_over(there) and "deletionTimestamp" not in there["metadata"]:
                return job.name
    raise AssertionError("attempts are never used up")


def _create(api: KubernetesApi, job: Job, patience: float, tell: Tell) -> None:
    """Create the job, once the namespace's quota has room for it."""
    deadline, told = time.monotonic() + patience, False
    while True:
        try:
            return api.create(job.to_manifest())
        except QuotaExceededError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"RayJob {job.name}: found no room in {patience:.0f} s ({error}); end other jobs, ask for a larger "
                    "quota, or raise cluster.waiting_seconds"
                ) from error
            if not told:
                tell(f"RayJob {job.name}: waits for another job of namespace {api.namespace} to end ({error})")
            told = True
            time.sleep(QUOTA_SECONDS)


def _delete(api: KubernetesApi, name: str) -> None:
    try:
        api.delete(name)
    except UserError as error:  # without a follower it ends itself in minutes
        print(f"hep2flow: RayJob {name} could not be deleted: {error}", file=sys.stderr, flush=True)


class _Following:
    """What is known of one job."""

    def __init__(self, api: KubernetesApi, store: Store, specification: Specification, name: str, tell: Tell) -> None:
        self._api, self._store, self._specification, self._name = api, store, specification, name
        self._tell, self._told = tell, ""
        self._hopeless_since: float | None = None
        self.waited_for = ""

    def to_the_end(self) -> dict[str, Any]:
        """The job, once it is over."""
        pause = SHORT_SECONDS
        while True:
            job, version = self._api.look(self._name)
            seen = self._see(job)
            try:
                while not is_over(seen):
                    began = time.monotonic()
                    for job in self._api.watch(self._name, version):
                        seen, pause = self._see(job), SHORT_SECONDS
                        version = seen["metadata"]["resourceVersion"]
                        if is_over(seen):
                            return seen
                    self._see(seen)
                    if time.monotonic() - began < SHORT_SECONDS:
                        raise OSError("the watch ended at once")
                return seen
            except GoneError:
                continue
            except OSError:
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _see(self, job: dict[str, Any] | None) -> dict[str, Any]:
        """Tell what is new about the job; raises where it makes no sense to follow it on."""
        if job is None:
            raise UserError(
                f"RayJob {self._name}: was deleted by somebody; run again, the training goes on from its last state"
            )
        hindrance = hindrance_of(self._api.pods(f"{JOB}={self._name}")) if is_waiting(job) else None
        self._give_up(hindrance.told if hindrance is not None and hindrance.hopeless else None)
        text = describe(job, hindrance)
        if not is_over(job):
            self.waited_for = text if is_waiting(job) else ""
            if text != self._told:
                self._told = text
                self._tell(f"RayJob {self._name}: {text}")
        return job

    def _give_up(self, hopeless: str | None) -> None:
        """Raise where it has been hopeless for a while."""
        if hopeless is None:
            self._hopeless_since = None
            return
        self._hopeless_since = self._hopeless_since or time.monotonic()
        if time.monotonic() - self._hopeless_since >= HOPELESS_SECONDS:
            raise UserError(f"RayJob {self._name}: {hopeless}")
