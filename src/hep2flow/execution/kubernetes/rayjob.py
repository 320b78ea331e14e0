"""A training, a sweep or an evaluation as a RayJob of KubeRay's: pure, what it is made of in, the object out."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from hep2flow.errors import UserError
from hep2flow.execution.job_spec import Specification
from hep2flow.execution.kubernetes.cluster_options import ClusterOptions
from hep2flow.execution.kubernetes.pods import (
    GPU,
    SUBMITTER,
    own_environment,
    pod_template,
    store_environment,
    worker_placement,
)
from hep2flow.recipe import Resources
from hep2flow.store.s3 import StoreAddress

API_VERSION = "ray.io/v1"
# Of the image: KubeRay picks its commands by it.
RAY_VERSION = "2.60.0"
DIGEST = "hep2flow/specification"
JOB = "hep2flow/job"
_PLAIN_URI = re.compile(r"s3://[A-Za-z0-9._/-]+")


@dataclass(frozen=True)
class Job:
    """One RayJob: a specification, where it lies, and what the cluster is.

    No pod owns it: a step whose pod is lost, or moved to another node, finds it again, and its training has gone on.

    Attributes:
        specification: What is to be done.
        uri: Of the specification.
        store: Where the pods find it.
        options: What the cluster is.
        attempt: From 1; another one of the same is another RayJob.
    """

    specification: Specification
    uri: str
    store: StoreAddress
    options: ClusterOptions
    attempt: int = 1

    @property
    def name(self) -> str:
        """``h2-`` and 32 hexadecimal digits: the same for the same attempt at the same stage, model and seed of a run."""
        said, recipe = self.specification, self.specification.recipe
        text = json.dumps([said.run_id, said.stage, recipe.name, recipe.train.seed, self.attempt])
        return f"h2-{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    @property
    def labels(self) -> dict[str, str]:
        """Of the RayJob and of all its pods."""
        said = self.specification
        return {
            "app.kubernetes.io/name": "hep2flow",
            "app.kubernetes.io/part-of": "hep2flow",
            JOB: self.name,
            "hep2flow/run": said.run_id,
            "hep2flow/stage": said.stage,
            "hep2flow/model": said.recipe.name,
        }

    def to_manifest(self) -> dict[str, Any]:
        """The object as Kubernetes takes it; UserError for a store whose names do not fit into a command line."""
        if not _PLAIN_URI.fullmatch(self.uri):
            raise UserError(
                f"{self.uri}: on a cluster the store's prefix has letters, digits, '.', '_', '-' and '/' only; "
                "choose another store_prefix"
            )
        options, said = self.options, self.specification
        metadata: dict[str, Any] = {
            "name": self.name,
            "labels": {**self.labels, **_queue(options)},
            "annotations": {DIGEST: said.digest},
        }
        if options.namespace:
            metadata["namespace"] = options.namespace
        return {
            "apiVersion": API_VERSION,
            "kind": "RayJob",
            "metadata": metadata,
            "spec": {
                "entrypoint": f"hep2flow {said.stage} --spec {self.uri}",
                "submissionMode": "K8sJobMode",
                "submitterPodTemplate": self._submitter(),
                "rayClusterSpec": self._ray_cluster(),
                "shutdownAfterJobFinishes": True,
                "ttlSecondsAfterFinished": options.ttl_seconds,
                "preRunningDeadlineSeconds": options.waiting_seconds,
                "activeDeadlineSeconds": options.deadline_seconds,
                "backoffLimit": options.retries,
            },
        }

    def _submitter(self) -> dict[str, Any]:
        """It submits the entry point to Ray and follows its log; it knows nothing of the store."""
        template = pod_template("submitter", SUBMITTER, self.labels, self.options, own_environment())
        template["spec"]["restartPolicy"] = "Never"
        return template

    def _ray_cluster(self) -> dict[str, Any]:
        options, resources = self.options, self.specification.recipe.resources
        environment = own_environment() + store_environment(self.store, options)
        head = {"cpu": str(options.head_cpus), "memory": f"{options.head_memory}Gi"}
        least, most = worker_pods(self.specification, options)
        workers = pod_template("worker", worker_resources(resources), self.labels, options, environment)
        workers["spec"].update(worker_placement(math.ceil(resources.gpus_per_worker), options))
        return {
            "rayVersion": RAY_VERSION,
            **({"authOptions": {"mode": "token"}} if options.ray_token else {}),
            "headGroupSpec": {
                # The driver runs there, and nothing else.
                "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},  # noqa: S104 - the submitter's door
                "template": pod_template("head", head, self.labels, options, environment),
            },
            "workerGroupSpecs": [
                {
                    "groupName": "workers",
                    "replicas": most,
                    "minReplicas": least,
                    "maxReplicas": most,
                    "rayStartParams": {},
                    "template": workers,
                }
            ],
        }


def workers_per_pod(resources: Resources) -> int:
    """One worker has a pod of its own, but those that share a GPU share a pod."""
    share = resources.gpus_per_worker
    return math.floor(1 / share) if 0 < share < 1 else 1


def worker_resources(resources: Resources) -> dict[str, str]:
    """What each worker pod asks for, and may use."""
    count, gpus = workers_per_pod(resources), math.ceil(resources.gpus_per_worker)
    asked = {"cpu": str(count * resources.cpus_per_worker), "memory": f"{count * resources.memory_per_worker}Gi"}
    return {**asked, GPU: str(gpus)} if gpus else asked


def worker_pods(specification: Specification, options: ClusterOptions) -> tuple[int, int]:
    """Pods that the job can go on with, and pods that it gets; under Kueue the same, because it admits all or none.

    No autoscaler changes their number: KubeRay replaces a pod that is lost, and Ray Train goes on meanwhile with fewer
    workers, down to the recipe's minimum.
    """
    resources, sweep = specification.recipe.resources, specification.sweep
    at_once = 1 if sweep is None else min(sweep.trials, sweep.concurrency or options.trials_at_once)

    if specification.stage == "evaluate":
        return 1, 1

    def pods(workers: int) -> int:
        return math.ceil(workers / workers_per_pod(resources))

    most = pods(at_once * resources.workers.max)
    return most if options.queue else pods(resources.workers.min), most


def _queue(options: ClusterOptions) -> dict[str, str]:
    if not options.queue:
        return {}
    named = {"kueue.x-k8s.io/queue-name": options.queue}
    return {**named, "kueue.x-k8s.io/priority-class": options.priority} if options.priority else named
