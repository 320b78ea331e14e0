"""Pods of a Ray cluster on Kubernetes, as the ``restricted`` Pod Security Standard wants them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hep2flow.execution.kubernetes.cluster_options import ClusterOptions
from hep2flow.store.s3 import StoreAddress

GPU = "nvidia.com/gpu"
SCRATCH = "/tmp"  # noqa: S108 - an empty volume of the pod's own
SUBMITTER = {"cpu": "500m", "memory": "1Gi"}

SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


def pod_template(
    component: str,
    asked: dict[str, str],
    labels: dict[str, str],
    options: ClusterOptions,
    environment: list[dict[str, Any]],
) -> dict[str, Any]:
    """A pod of one container, with everything that any of a job's pods has.

    component: ``head``, ``worker`` or ``submitter``; also the container's name, after ``ray-``
    asked:     resource -> quantity, of which it gets all and no more
    Its one place to write is a volume at ``/tmp``.
    """
    container = {
        "name": f"ray-{component}",
        "image": options.image,
        "env": environment,
        "resources": {"requests": dict(asked), "limits": dict(asked)},
        "securityContext": SECURITY,
        "volumeMounts": [{"name": "scratch", "mountPath": SCRATCH}],
        "workingDir": SCRATCH,
    }
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "containers": [container],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": options.user,
            "runAsGroup": options.user,
            "fsGroup": options.user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": f"{options.scratch}Gi"}}],
    }
    if options.service_account:
        spec["serviceAccountName"] = options.service_account
    if options.pull_secret:
        spec["imagePullSecrets"] = [{"name": options.pull_secret}]
    if options.priority and not options.queue:
        spec["priorityClassName"] = options.priority
    # Ray's ports change from job to job, and a submitter has to end: a service mesh's sidecar breaks both.
    out_of_the_mesh = {"sidecar.istio.io/inject": "false"}
    return {
        "metadata": {"labels": {**labels, "app.kubernetes.io/component": component, **out_of_the_mesh}},
        "spec": spec,
    }


def worker_placement(gpus: int, options: ClusterOptions) -> dict[str, Any]:
    """Where a worker may run: the GPU nodes for one that has GPUs, spot nodes where they are allowed."""
    tolerations = [toleration.model_dump() for toleration in options.tolerations] if gpus else []
    if options.spot:
        tolerations.append({"key": options.spot, "operator": "Exists"})
    placement: dict[str, Any] = {}
    if tolerations:
        placement["tolerations"] = [
            {key: value for key, value in toleration.items() if value} for toleration in tolerations
        ]
    if gpus and options.node_selector:
        placement["nodeSelector"] = options.node_selector
    return placement


def store_environment(store: StoreAddress, options: ClusterOptions) -> list[dict[str, Any]]:
    """Where the store is, in plain text, and the right to enter it, by the name of the Secret that has it."""
    plain = {
        "AWS_ENDPOINT_URL": store.endpoint,
        "AWS_REGION": store.region,
        "HEP2FLOW_BUCKET": store.bucket,
        "HEP2FLOW_PREFIX": store.prefix,
    }
    secret = {"AWS_ACCESS_KEY_ID": options.access_key, "AWS_SECRET_ACCESS_KEY": options.secret_key}
    return _plain((name, value) for name, value in plain.items() if value) + [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": options.secret, "key": key}}}
        for name, key in secret.items()
        if options.secret
    ]


def own_environment() -> list[dict[str, Any]]:
    """What any of our containers is told: a home that can be written, and that Ray keeps its usage to itself."""
    return _plain([("HOME", SCRATCH), ("RAY_USAGE_STATS_ENABLED", "0")])


def _plain(variables: Iterable[tuple[str, str | None]]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in variables]
