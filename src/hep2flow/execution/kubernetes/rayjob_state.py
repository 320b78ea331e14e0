"""State of a RayJob and its pods in words: pure functions of the Kubernetes API's answers."""

from dataclasses import dataclass
from typing import Any

from hep2flow.errors import UserError

OVER = frozenset({"Complete", "Failed", "ValidationFailed"})
# Reasons of a waiting container that do not pass by themselves.
BAD_IMAGE = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"})
BAD_SETTING = "CreateContainerConfigError"
MESSAGE_CHARACTERS = 300
CLUSTER_LABEL = "ray.io/cluster"


class JobFailedError(Exception):
    """A job ended without a result, for no reason that the user can fix."""


@dataclass(frozen=True)
class StartProblem:
    """Why a pod does not start; where it is hopeless, it never will by itself."""

    message: str
    hopeless: bool


def is_over(job: dict[str, Any]) -> bool:
    """Whether KubeRay will do nothing more for it."""
    return _status(job).get("jobDeploymentStatus") in OVER


def has_succeeded(job: dict[str, Any]) -> bool:
    """Whether its entry point ended with 0; KubeRay takes 15 s more to be done, or begins again where the head is lost."""
    return _status(job).get("jobStatus") == "SUCCEEDED"


def is_waiting(job: dict[str, Any]) -> bool:
    """Whether its entry point has not started."""
    return not is_over(job) and _status(job).get("jobStatus") not in ("RUNNING", "SUCCEEDED", "FAILED", "STOPPED")


def is_suspended(job: dict[str, Any]) -> bool:
    """Whether it waits in a queue, or until somebody resumes it."""
    return bool(job["spec"].get("suspend")) or _status(job).get("jobDeploymentStatus") in ("Suspending", "Suspended")


def describe(job: dict[str, Any], problem: StartProblem | None) -> str:
    """The job's state in a few words."""
    deployment = _status(job).get("jobDeploymentStatus", "")
    queue = job["metadata"].get("labels", {}).get("kueue.x-k8s.io/queue-name")
    if is_suspended(job):
        return f"waits in the queue {queue}" if queue else "is suspended"
    if deployment == "Retrying":
        return "starts again with a new Ray cluster"
    if not is_waiting(job):
        return "runs"
    return f"waits: {problem.message}" if problem else "waits for its pods"


def job_failure(job: dict[str, Any], waited_for: str) -> Exception:
    """Why a job ended without a result; ``waited_for`` is what it last waited for, empty where it ran."""
    status, spec, name = _status(job), job["spec"], f"RayJob {job['metadata']['name']}"
    reason, message = status.get("reason", ""), _last_line(status.get("message", ""))
    again = "run again, it resumes from its last state"
    if reason == "DeadlineExceeded":
        what = f"{name}: took longer than {spec['activeDeadlineSeconds']} s"
        return UserError(f"{what}; {again}, or raise cluster.deadline_seconds")
    if reason == "PreRunningDeadlineExceeded":
        return did_not_start(name, spec["preRunningDeadlineSeconds"], waited_for or message)
    if status.get("jobStatus") == "STOPPED":
        return UserError(f"{name}: was stopped by somebody; {again}")
    if status.get("jobStatus") == "SUCCEEDED":
        return JobFailedError(f"{name}: succeeded, but left no result in the store")
    return JobFailedError(f"{name}: {reason or 'failed'}: {message or 'no message'}")


def did_not_start(name: str, seconds: int, waited_for: str) -> UserError:
    """The error of a job that waited too long."""
    fix = "give the cluster what it waits for, ask for less (resources), or raise cluster.waiting_seconds"
    return UserError(f"{name}: did not start within {seconds} s ({waited_for}); {fix}")


def find_start_problem(job: dict[str, Any], pods: list[dict[str, Any]]) -> StartProblem | None:
    """Why the job does not start, what is hopeless first: a pod is refused, or does not start; None where all have started.

    Pods of an earlier Ray cluster of the job, which are ending, are no problem of it.
    """
    cluster = _status(job).get("rayClusterName")
    own = [pod for pod in pods if pod["metadata"].get("labels", {}).get(CLUSTER_LABEL, cluster) == cluster]
    found = [one for one in [_refusal(job), *map(_start_problem, own)] if one is not None]
    return next((one for one in found if one.hopeless), found[0] if found else None)


def _refusal(job: dict[str, Any]) -> StartProblem | None:
    """What the API server says of pods that it does not let in: they exist nowhere, and no event tells of them."""
    for condition in (_status(job).get("rayClusterStatus") or {}).get("conditions") or []:
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            # The pod's name before it is another one at each attempt.
            why = _last_line(condition.get("message", "")).rpartition(" is forbidden: ")[2]
            what = f"Kubernetes refuses its {'head' if 'Head' in condition.get('reason', '') else 'workers'} ({why})"
            if "exceeded quota" in why:
                return StartProblem(f"{what}; end other jobs, ask for less or for a larger quota", hopeless=False)
            return StartProblem(f"{what}; ask for what the namespace allows, or have it allowed", hopeless=True)
    return None


def _start_problem(pod: dict[str, Any]) -> StartProblem | None:
    status, name = pod.get("status", {}), pod["metadata"]["name"]
    for condition in status.get("conditions") or []:
        if condition.get("reason") == "Unschedulable":
            return StartProblem(f"no node for {name}: {_last_line(condition.get('message', ''))}", hopeless=False)
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), _last_line(waiting.get("message", ""))
        if reason in BAD_IMAGE:
            what = f"{name} cannot pull {container.get('image', 'its image')} ({reason}: {message})"
            return StartProblem(f"{what}; check cluster.image and cluster.pull_secret", hopeless=True)
        if reason == BAD_SETTING:
            what = f"{name} cannot be set up ({message})"
            return StartProblem(f"{what}; check cluster.secret, access_key and secret_key", hopeless=True)
    return None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:MESSAGE_CHARACTERS] if lines else ""


def _status(job: dict[str, Any]) -> dict[str, Any]:
    return job.get("status") or {}
