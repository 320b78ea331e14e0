"""A step of a pipeline as a pod of its own, under the steps' service account: it makes a RayJob and follows it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hep2flow.execution.job_spec import JobSpec
from hep2flow.execution.kubernetes.rayjob import ENVIRONMENT, JOB_LABEL, pod_template, store_environment
from hep2flow.execution.kubernetes.rayjob_log import ENDED
from hep2flow.execution.kubernetes.rayjob_state import find_start_problem, is_over
from hep2flow.store.address import StoreAddress
from tests.on_cluster.kubectl import Tree, kubectl, listed
from tests.on_cluster.overlay import Overlay

STEP = Path(__file__).with_name("step.py")
RUN = "hep2flow/run"
ASKED = {"cpu": "500m", "memory": "2Gi"}
LOOK_SECONDS = 2.0
JOB_SECONDS = 1200.0  # of a whole job; on a fresh cluster its images come first
GONE_SECONDS = 180.0  # of pods that are being deleted

Seen = TypeVar("Seen")


def pod(overlay: Overlay, store: StoreAddress, specification: JobSpec) -> Tree:
    """The pod, as Kubeflow Pipelines would make it: its name in its environment, no label of a job's pods.

    store: where it finds it
    """
    options = overlay.options.model_copy(update={"service_account": overlay.account})
    # As Kubeflow has it, so that the step can ask whether its pod is being deleted.
    itself = [{"name": "KFP_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    environment = ENVIRONMENT + store_environment(store, options) + itself
    template = pod_template("step", ASKED, {RUN: specification.run_id}, options, environment)
    (container,) = template["spec"]["containers"]
    container["name"] = "step"
    container["command"] = [
        "python3",
        "-c",
        STEP.read_text(encoding="utf-8"),
        specification.model_dump_json(),
        overlay.options.model_dump_json(),
    ]
    template["spec"] |= {
        "restartPolicy": "Never",
        "automountServiceAccountToken": True,
        # The first process of a namespace takes no signal that it does not handle, SIGKILL among them.
        "shareProcessNamespace": True,
    }
    name = {"name": f"hep2flow-{specification.run_id}", "namespace": overlay.namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {**name, **template["metadata"]}, "spec": template["spec"]}


class Follower:
    """The pod while it runs, and the RayJob that it follows."""

    def __init__(self, manifest: Tree) -> None:
        self.name: str = manifest["metadata"]["name"]
        self._namespace: str = manifest["metadata"]["namespace"]
        self._run = f"{RUN}={manifest['metadata']['labels'][RUN]}"
        kubectl("create", "-f", "-", given=json.dumps(manifest))

    def exit_code(self) -> int | None:
        """Of the step; None while it runs."""
        found = json.loads(kubectl("-n", self._namespace, "get", "pod", self.name, "-o", "json"))
        problem = find_start_problem([found])
        assert problem is None or not problem.hopeless, problem.message
        for container in found["status"].get("containerStatuses", []):
            if ended := container["state"].get("terminated"):
                return int(ended["exitCode"])
        return None

    def ended(self) -> int:
        """Its exit code, once it has one."""
        return until(self.exit_code, JOB_SECONDS, f"pod {self.name} ended")

    def works(self) -> Tree:
        """The RayJob, once its entry point runs."""

        def running() -> Tree | None:
            assert self.exit_code() is None, self.log()
            return next((job for job in self.jobs() if job.get("status", {}).get("jobStatus") == "RUNNING"), None)

        return until(running, JOB_SECONDS, f"the RayJob of {self.name} ran")

    def send(self, signal: str, pid: int) -> None:
        """Send the step a signal, as Kubeflow does when a run is terminated, or a machine when it dies."""
        kubectl("-n", self._namespace, "exec", self.name, "--", "sh", "-c", f"kill -{signal} {pid}")

    def is_evicted(self) -> None:
        """Delete its pod, as when its node is drained, and wait until it is gone."""
        kubectl("-n", self._namespace, "delete", "pod", self.name, "--wait=true")

    def log(self) -> str:
        """What it printed."""
        return kubectl("-n", self._namespace, "logs", self.name)

    def jobs(self) -> list[Tree]:
        """Its RayJobs."""
        return listed(self._namespace, "rayjobs.ray.io", self._run)

    def jobs_are_over(self, seconds: float = GONE_SECONDS) -> None:
        """Until KubeRay will do nothing more for its RayJobs, or they are gone."""
        until(lambda: all(map(is_over, self.jobs())) or None, seconds, f"the RayJob of {self.name} was over")

    def jobs_are_gone(self) -> None:
        """Until its RayJobs are deleted."""
        until(lambda: not self.jobs() or None, GONE_SECONDS, f"the RayJob of {self.name} was deleted")

    def leaves_nothing_running(self) -> None:
        """Until no pod of its RayJobs runs, or is about to."""

        def none_left() -> bool | None:
            pods = listed(self._namespace, "pods", f"{self._run},{JOB_LABEL}")
            return all(one["status"].get("phase") in ENDED for one in pods) or None

        until(none_left, GONE_SECONDS, f"the pods of {self.name}'s RayJob were gone")

    def clean_up(self) -> None:
        """Delete the pod, the RayJob, and through it all of its pods."""
        kubectl("-n", self._namespace, "delete", "rayjobs.ray.io,pods", "-l", self._run, "--wait=false")


def until(look: Callable[[], Seen | None], seconds: float, what: str) -> Seen:
    """What it sees, once that is not None; an AssertionError where it takes too long."""
    deadline = time.monotonic() + seconds
    while (seen := look()) is None:
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(LOOK_SECONDS)
    return seen
