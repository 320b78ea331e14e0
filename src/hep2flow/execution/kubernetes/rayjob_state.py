"""What a RayJob and its pods say about a job, as a person reads it. Pure functions of what the Kubernetes API answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hep2flow.errors import UserError

OVER = frozenset({"Complete", "Failed", "ValidationFailed"})
# What a container waits for that does not come by itself.
BAD_IMAGE = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"})
BAD_SETTING = frozenset({"CreateContainerConfigError"})
# As much as a line takes.
TOLD_CHARACTERS = 300


class JobFailedError(Exception):
    """A job ended without its result, and not by anything the user can mend."""


@dataclass(frozen=True)
class Hindrance:
    """Why a pod does not start. hopeless: it will not without somebody's help."""

    told: str
    hopeless: bool


def is_over(job: dict[str, Any]) -> bool:
    """Whether KubeRay will do nothing more for it."""
    return _status(job).get("jobDeploymentStatus") in OVER


def has_succeeded(job: dict[str, Any]) -> bool:
    """Whether it is over, and its entry point ended with 0."""
    return is_over(job) and _status(job).get("jobStatus") == "SUCCEEDED"


def is_retried(job: dict[str, Any]) -> bool:
    """Whether KubeRay is about to begin it again, with a new Ray cluster."""
    return _status(job).get("jobDeploymentStatus") == "Retrying"


def is_waiting(job: dict[str, Any]) -> bool:
    """Whether its entry point has not begun."""
    return not is_over(job) and _status(job).get("jobStatus") not in ("RUNNING", "SUCCEEDED", "FAILED", "STOPPED")


def describe(job: dict[str, Any], hindrance: Hindrance | None) -> str:
    """Where the job is, in a few words."""
    deployment = _status(job).get("jobDeploymentStatus", "")
    queue = job["metadata"].get("labels", {}).get("kueue.x-k8s.io/queue-name")
    if job["spec"].get("suspend") or deployment in ("Suspending", "Suspended"):
        return f"waits in the queue {queue}" if queue else "is suspended"
    if is_retried(job):
        return "begins again with a new Ray cluster"
    if not is_waiting(job):
        return "runs"
    return f"waits: {hindrance.told}" if hindrance else "waits for its pods"


def failure(job: dict[str, Any], waited_for: str) -> Exception:
    """Why a job that is over, and brought no result, ended so.

    waited_for: what it last waited for, empty where it ran
    """
    status, spec, name = _status(job), job["spec"], job["metadata"]["name"]
    reason, told = status.get("reason", ""), _last_line(status.get("message", ""))
    if reason == "DeadlineExceeded":
        return UserError(
            f"RayJob {name}: took longer than {spec['activeDeadlineSeconds']} s; run again, it goes on from its last "
            "state, or raise cluster.deadline_seconds"
        )
    if reason == "PreRunningDeadlineExceeded":
        return UserError(
            f"RayJob {name}: did not begin within {spec['preRunningDeadlineSeconds']} s ({waited_for or told}); give the "
            "cluster what it waits for, ask for less (resources), or raise cluster.waiting_seconds"
        )
    if status.get("jobStatus") == "STOPPED":
        return UserError(f"RayJob {name}: was stopped by somebody; run again, it goes on from its last state")
    if status.get("jobStatus") == "SUCCEEDED":
        return JobFailedError(f"RayJob {name}: succeeded, but left no result in the store")
    return JobFailedError(f"RayJob {name}: {reason or 'failed'}: {told or 'no message'}")


def hindrance_of(pods: list[dict[str, Any]]) -> Hindrance | None:
    """What keeps the first pod that does not start; None where all have started."""
    found = [one for pod in pods if (one := _hindrance(pod)) is not None]
    return next((one for one in found if one.hopeless), found[0] if found else None)


def _hindrance(pod: dict[str, Any]) -> Hindrance | None:
    status, name = pod.get("status", {}), pod["metadata"]["name"]
    for condition in status.get("conditions") or []:
        if condition.get("reason") == "Unschedulable":
            return Hindrance(f"no node for {name}: {_last_line(condition.get('message', ''))}", hopeless=False)
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason, told = waiting.get("reason", ""), _last_line(waiting.get("message", ""))
        if reason in BAD_IMAGE:
            return Hindrance(
                f"{name} cannot pull {container.get('image', 'its image')} ({reason}: {told}); check cluster.image and "
                "cluster.pull_secret",
                hopeless=True,
            )
        if reason in BAD_SETTING:
            return Hindrance(
                f"{name} cannot be set up ({told}); check cluster.secret, access_key and secret_key", hopeless=True
            )
    return None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:TOLD_CHARACTERS] if lines else ""


def _status(job: dict[str, Any]) -> dict[str, Any]:
    return job.get("status") or {}
