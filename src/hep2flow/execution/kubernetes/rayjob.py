"""The manifest of the RayJob (``ray.io/v1``, KubeRay) that runs a training, a sweep or an evaluation."""

import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from hep2flow.errors import UserError
from hep2flow.execution.job_spec import JobSpec
from hep2flow.execution.kubernetes.cluster_options import ClusterOptions
from hep2flow.execution.kubernetes.pods import (
    GPU,
    SUBMITTER,
    common_environment,
    pod_template,
    store_environment,
    worker_placement,
)
from hep2flow.recipe import Resources
from hep2flow.store.address import StoreAddress

API_VERSION = "ray.io/v1"
# Of the image: KubeRay chooses the commands of its pods by it.
RAY_VERSION = "2.60.0"
DIGEST_ANNOTATION = "hep2flow/specification"
JOB_LABEL = "hep2flow/job"
_PLAIN_URI = re.compile(r"s3://[A-Za-z0-9._/-]+")


@dataclass(frozen=True)
class RayJob:
    """Builds the manifest of a RayJob; no side effects.

    No pod owns the RayJob: the next attempt at a step whose pod was lost, or moved to another node, adopts it.

    Attributes:
        spec: What to run; ``uri`` is the specification's.
        store: As the pods reach it.
        attempt: From 1; another attempt at the same specification is another RayJob.
    """

    spec: JobSpec
    uri: str
    store: StoreAddress
    options: ClusterOptions
    attempt: int = 1

    @property
    def name(self) -> str:
        """``h2-`` and 32 hexadecimal digits: the same for the same attempt at the same stage, model and seed of a run."""
        recipe = self.spec.recipe
        text = json.dumps([self.spec.run_id, self.spec.stage, recipe.name, recipe.train.seed, self.attempt])
        return f"h2-{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    @property
    def labels(self) -> dict[str, str]:
        """Of the RayJob and of all its pods."""
        product = dict.fromkeys(("app.kubernetes.io/name", "app.kubernetes.io/part-of"), "hep2flow")
        run = {"hep2flow/run": self.spec.run_id, "hep2flow/stage": self.spec.stage}
        return {**product, JOB_LABEL: self.name, **run, "hep2flow/model": self.spec.recipe.name}

    def to_manifest(self) -> dict[str, Any]:
        """The manifest; UserError for a store whose names do not fit into a command line."""
        if not _PLAIN_URI.fullmatch(self.uri):
            raise UserError(
                f"{self.uri}: on a cluster the store's prefix has letters, digits, '.', '_', '-' and '/' only; "
                "choose another store_prefix"
            )
        options = self.options
        queue_labels = {"kueue.x-k8s.io/queue-name": options.queue, "kueue.x-k8s.io/priority-class": options.priority}
        kueue = {key: value for key, value in queue_labels.items() if options.queue and value}
        metadata = {
            "name": self.name,
            "labels": {**self.labels, **kueue},
            "annotations": {DIGEST_ANNOTATION: self.spec.digest},
            **({"namespace": options.namespace} if options.namespace else {}),
        }
        # It submits the entry point to Ray and follows its log; it needs no access to the store.
        submitter = pod_template("submitter", SUBMITTER, self.labels, options, common_environment())
        submitter["spec"]["restartPolicy"] = "Never"
        return {
            "apiVersion": API_VERSION,
            "kind": "RayJob",
            "metadata": metadata,
            "spec": {
                "entrypoint": f"hep2flow {self.spec.stage} --spec {self.uri}",
                "submissionMode": "K8sJobMode",
                "submitterPodTemplate": submitter,
                "rayClusterSpec": self._ray_cluster(),
                "shutdownAfterJobFinishes": True,
                "ttlSecondsAfterFinished": options.ttl_seconds,
                "preRunningDeadlineSeconds": options.waiting_seconds,
                "activeDeadlineSeconds": options.deadline_seconds,
                "backoffLimit": options.retries,
            },
        }

    def _ray_cluster(self) -> dict[str, Any]:
        options, resources = self.options, self.spec.recipe.resources
        environment = common_environment() + store_environment(self.store, options)
        head = {"cpu": str(options.head_cpus), "memory": f"{options.head_memory}Gi"}
        least, most = worker_pods(self.spec, options)
        workers = pod_template("worker", worker_resources(resources), self.labels, options, environment)
        workers["spec"].update(worker_placement(math.ceil(resources.gpus_per_worker), options))
        sizes = {"replicas": most, "minReplicas": least, "maxReplicas": most}
        return {
            "rayVersion": RAY_VERSION,
            **({"authOptions": {"mode": "token"}} if options.ray_token else {}),
            "headGroupSpec": {
                # No Ray tasks on the head: it has no GPU, and only the driver runs there.
                "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},  # noqa: S104 - the submitter connects there
                "template": pod_template("head", head, self.labels, options, environment),
            },
            "workerGroupSpecs": [{"groupName": "workers", **sizes, "rayStartParams": {}, "template": workers}],
        }


def workers_per_pod(resources: Resources) -> int:
    """1, or as many as share a GPU."""
    share = resources.gpus_per_worker
    return math.floor(1 / share) if 0 < share < 1 else 1


def worker_resources(resources: Resources) -> dict[str, str]:
    """Resource -> quantity of each worker pod."""
    count, gpus = workers_per_pod(resources), math.ceil(resources.gpus_per_worker)
    quantities = {"cpu": str(count * resources.cpus_per_worker), "memory": f"{count * resources.memory_per_worker}Gi"}
    return {**quantities, GPU: str(gpus)} if gpus else quantities


def worker_pods(spec: JobSpec, options: ClusterOptions) -> tuple[int, int]:
    """Smallest and requested number of worker pods; under Kueue the same, because it admits all or none.

    No autoscaler changes their number (under Kueue it can kill the head, kueue#7569): KubeRay replaces a lost pod, and Ray
    Train continues meanwhile with fewer workers, down to the recipe's minimum.
    """
    resources, sweep = spec.recipe.resources, spec.sweep
    if spec.stage == "evaluate":
        return 1, 1
    at_once = 1 if sweep is None else min(sweep.trials, sweep.concurrency or options.trials_at_once)
    wanted = (resources.workers.min, at_once * resources.workers.max)
    least, most = (math.ceil(workers / workers_per_pod(resources)) for workers in wanted)
    return most if options.queue else least, most
