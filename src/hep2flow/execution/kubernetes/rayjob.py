"""The manifest of the RayJob (``ray.io/v1``, KubeRay) that runs a training, a sweep or an evaluation.

Its pods are as the ``restricted`` Pod Security Standard requires them.
"""

import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from hep2flow.errors import UserError
from hep2flow.execution.job_spec import JobSpec
from hep2flow.execution.kubernetes.cluster_options import ClusterOptions, Toleration
from hep2flow.recipe import Resources
from hep2flow.store.address import StoreAddress

# Of the image: KubeRay chooses the commands of its pods by it.
RAY_VERSION = "2.60.0"
DIGEST_ANNOTATION = "hep2flow/specification"
JOB_LABEL = "hep2flow/job"
_PLAIN_URI = re.compile(r"s3://[A-Za-z0-9._/-]+")
Fields = dict[str, Any]

GPU = "nvidia.com/gpu"
SCRATCH = "/tmp"  # noqa: S108 - an empty volume of the pod's own
SUBMITTER = {"cpu": "500m", "memory": "256Mi"}
SUBMITTER_MODULE = "hep2flow.execution.kubernetes.submitter"  # not imported: it needs what only the Ray image has
# KubeRay's own waits for ten seconds before it looks at all, while the GPUs are held.
READINESS_PROBE = {"httpGet": {"path": "/api/healthz", "port": 52365}, "initialDelaySeconds": 1, "periodSeconds": 1}
READINESS_PROBE |= {"timeoutSeconds": 5, "failureThreshold": 120}
SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
# Of every container: a writable home, and no usage reports to Ray's makers.
ENVIRONMENT: list[Fields] = [{"name": "HOME", "value": SCRATCH}]
ENVIRONMENT += [{"name": "RAY_USAGE_STATS_ENABLED", "value": "0"}]


@dataclass(frozen=True)
class RayJob:
    """Builds the manifest of a RayJob; no side effects.

    No pod owns the RayJob: the next attempt at a step whose pod was lost, or moved to another node, adopts it.
    """

    spec: JobSpec  # what to run
    uri: str  # of the specification
    store: StoreAddress  # as the pods reach it
    options: ClusterOptions
    attempt: int = 1  # from 1; another attempt at the same specification is another RayJob

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

    def to_manifest(self) -> Fields:
        """The manifest; UserError for a store whose names do not fit into a command line."""
        if not _PLAIN_URI.fullmatch(self.uri):
            what = f"{self.uri}: on a cluster the store's prefix has letters, digits, '.', '_', '-' and '/' only"
            raise UserError(f"{what}; choose another store_prefix")
        options = self.options.for_stage(self.spec.stage)
        queue_labels = {"kueue.x-k8s.io/queue-name": options.queue, "kueue.x-k8s.io/priority-class": options.priority}
        kueue = {key: value for key, value in queue_labels.items() if options.queue and value}
        metadata = {
            "name": self.name,
            "labels": {**self.labels, **kueue},
            "annotations": {DIGEST_ANNOTATION: self.spec.digest},
            **({"namespace": options.namespace} if options.namespace else {}),
        }
        # It submits the entry point to Ray and follows its log; it needs no access to the store.
        submitter = pod_template("submitter", SUBMITTER, self.labels, options, ENVIRONMENT)
        submitter["spec"]["restartPolicy"] = "Never"
        entrypoint = f"hep2flow {self.spec.stage} --spec {self.uri}"
        submitter["spec"]["containers"][0]["command"] = ["python", "-m", SUBMITTER_MODULE, entrypoint]
        return {
            "apiVersion": "ray.io/v1",
            "kind": "RayJob",
            "metadata": metadata,
            "spec": {
                "entrypoint": entrypoint,
                "submissionMode": "K8sJobMode",
                "submitterPodTemplate": submitter,
                "rayClusterSpec": self._ray_cluster(options),
                "shutdownAfterJobFinishes": True,
                # The step deletes the job at its end. Kueue lends the quota anew at once, whatever the pods still hold.
                "ttlSecondsAfterFinished": 0 if options.queue else options.ttl_seconds,
                "preRunningDeadlineSeconds": options.waiting_seconds,
                "activeDeadlineSeconds": options.deadline_seconds,
                "backoffLimit": options.retries,
            },
        }

    def _ray_cluster(self, options: ClusterOptions) -> Fields:
        resources = self.spec.recipe.resources
        environment = ENVIRONMENT + store_environment(self.store, options)
        head = {"cpu": str(options.head_cpus), "memory": f"{options.head_memory}Gi"}
        least, most = worker_pods(self.spec, options)
        workers = pod_template("worker", worker_resources(resources), self.labels, options, environment)
        workers["spec"].update(worker_placement(math.ceil(resources.gpus_per_worker), options))
        heads = pod_template("head", head, self.labels, options, environment)
        for template in heads, workers:
            template["spec"]["containers"][0]["readinessProbe"] = READINESS_PROBE
        sizes = {"replicas": most, "minReplicas": least, "maxReplicas": most}
        return {
            "rayVersion": RAY_VERSION,
            **({"authOptions": {"mode": "token"}} if options.ray_token else {}),
            "headGroupSpec": {
                # No Ray tasks on the head: it has no GPU, and only the driver runs there.
                "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},  # noqa: S104 - the submitter connects there
                "template": heads,
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


def pod_template(
    component: str, resources: Fields, labels: dict[str, str], options: ClusterOptions, environment: list[Fields]
) -> Fields:
    """A pod of one container, ``ray-{component}``, that can write to a volume at ``/tmp`` only.

    ``resources`` maps each resource to its quantity, as request and as limit.
    """
    container = {
        "name": f"ray-{component}",
        "image": options.image,
        "env": environment,
        "resources": {"requests": dict(resources), "limits": dict(resources)},
        "securityContext": SECURITY,
        "volumeMounts": [{"name": "scratch", "mountPath": SCRATCH}],
        "workingDir": SCRATCH,
    }
    identity = dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), options.user)
    spec = {
        "automountServiceAccountToken": False,
        "containers": [container],
        "securityContext": {"runAsNonRoot": True, **identity, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": f"{options.scratch}Gi"}}],
    }
    optional = {
        "serviceAccountName": options.service_account,
        "imagePullSecrets": [{"name": options.pull_secret}] if options.pull_secret else [],
        "priorityClassName": "" if options.queue else options.priority,
    }
    # Ray's ports change from job to job, and a submitter has to end: a service mesh's sidecar breaks both.
    no_sidecar = {"sidecar.istio.io/inject": "false"}
    labels = {**labels, "app.kubernetes.io/component": component, **no_sidecar}
    return {"metadata": {"labels": labels}, "spec": {**spec, **_non_empty(optional)}}


def worker_placement(gpus: int, options: ClusterOptions) -> Fields:
    """Node selector and tolerations of a worker: GPU nodes for one with GPUs, spot nodes where they are allowed."""
    spot = [Toleration(key=options.spot)] if options.spot else []
    tolerations = [_non_empty(one.model_dump()) for one in [*(options.tolerations if gpus else ()), *spot]]
    return _non_empty({"tolerations": tolerations, "nodeSelector": options.node_selector if gpus else {}})


def _non_empty(fields: Fields) -> Fields:
    return {key: value for key, value in fields.items() if value}


def store_environment(store: StoreAddress, options: ClusterOptions) -> list[Fields]:
    """The store's address in plain text, and its credentials by reference to the Secret."""
    plain = {"AWS_ENDPOINT_URL": store.endpoint, "AWS_REGION": store.region}
    plain |= {"HEP2FLOW_BUCKET": store.bucket, "HEP2FLOW_PREFIX": store.prefix}
    environment: list[Fields] = [{"name": name, "value": value} for name, value in plain.items() if value]
    if options.secret:
        for name, key in {"AWS_ACCESS_KEY_ID": options.access_key, "AWS_SECRET_ACCESS_KEY": options.secret_key}.items():
            reference = {"secretKeyRef": {"name": options.secret, "key": key}}
            environment.append({"name": name, "valueFrom": reference})
    return environment
