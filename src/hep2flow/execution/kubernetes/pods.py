"""Pods of a Ray cluster, as the ``restricted`` Pod Security Standard requires them."""

from typing import Any

from hep2flow.execution.kubernetes.cluster_options import ClusterOptions, Toleration
from hep2flow.store.address import StoreAddress

GPU = "nvidia.com/gpu"
SCRATCH = "/tmp"  # noqa: S108 - an empty volume of the pod's own
SUBMITTER = {"cpu": "500m", "memory": "1Gi"}

SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}


def pod_template(
    component: str,
    resources: dict[str, str],
    labels: dict[str, str],
    options: ClusterOptions,
    environment: list[dict[str, Any]],
) -> dict[str, Any]:
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


def worker_placement(gpus: int, options: ClusterOptions) -> dict[str, Any]:
    """Node selector and tolerations of a worker: GPU nodes for one with GPUs, spot nodes where they are allowed."""
    spot = [Toleration(key=options.spot)] if options.spot else []
    tolerations = [_non_empty(one.model_dump()) for one in [*(options.tolerations if gpus else ()), *spot]]
    return _non_empty({"tolerations": tolerations, "nodeSelector": options.node_selector if gpus else {}})


def _non_empty(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value}


def store_environment(store: StoreAddress, options: ClusterOptions) -> list[dict[str, Any]]:
    """The store's address in plain text, and its credentials by reference to the Secret."""
    plain = {"AWS_ENDPOINT_URL": store.endpoint, "AWS_REGION": store.region}
    plain |= {"HEP2FLOW_BUCKET": store.bucket, "HEP2FLOW_PREFIX": store.prefix}
    environment: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in plain.items() if value]
    if options.secret:
        for name, key in {"AWS_ACCESS_KEY_ID": options.access_key, "AWS_SECRET_ACCESS_KEY": options.secret_key}.items():
            reference = {"secretKeyRef": {"name": options.secret, "key": key}}
            environment.append({"name": name, "valueFrom": reference})
    return environment


def common_environment() -> list[dict[str, Any]]:
    """Of every container: a writable home, and no usage reports to Ray's makers."""
    return [{"name": "HOME", "value": SCRATCH}, {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"}]
