"""Checks of the Kubernetes cluster with the caller's own rights: what is missing, and how to fix it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import kubernetes.client
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from hep2flow.errors import UserError
from hep2flow.execution.kubernetes.client import load_configuration
from hep2flow.execution.kubernetes.cluster_options import ClusterOptions
from hep2flow.execution.local.doctor import Finding, ok

SECONDS = 10
STEP = "hep2flow-step"
# Group, resource and verbs that a step needs, as in k8s/base/role.yaml.
RULES = (
    ("ray.io", "rayjobs", ("get", "list", "watch", "create", "delete")),
    ("ray.io", "rayjobs/status", ("get",)),
    ("", "pods", ("get", "list")),
    ("", "pods/log", ("get", "list")),
)
KUBERAY = "helm upgrade --install kuberay-operator kuberay/kuberay-operator --version 1.7.0"
PIPELINES = "install Kubeflow Pipelines 2.17.0 as k8s/README.md says"
ADD_GPUS = (
    "add GPU nodes with NVIDIA's device plugin, or run with profile laptop; nodes that come on demand are not seen"
)
KINDS = {"secrets": "Secret", "serviceaccounts": "ServiceAccount", "localqueues": "LocalQueue"}
APPLY = "kubectl apply -k k8s/overlays/ and the overlay that fits, see k8s/README.md"


class _Cluster:
    """The cluster that KUBECONFIG or the service account names; answers are plain JSON."""

    def __init__(self) -> None:
        configuration, _ = load_configuration()
        self.inside = bool(os.environ.get("KUBERNETES_SERVICE_HOST"))
        self.server = str(configuration.host)
        self._client = kubernetes.client.ApiClient(configuration)

    def request(
        self, path: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and answer of a GET, or with a body of a POST; UserError where the server is unreachable."""
        try:
            answer = self._client.call_api(
                path,
                "GET" if body is None else "POST",
                header_params={"Accept": "application/json", "Content-Type": "application/json", **(headers or {})},
                body=body,
                response_type="object",
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _request_timeout=SECONDS,
            )
        except ApiException as error:
            return int(error.status or 0), None
        except HTTPError as error:
            raise UserError(
                f"Kubernetes at {self.server} cannot be reached ({type(error).__name__}); "
                "check KUBECONFIG, the network, and that you are logged in"
            ) from error
        return 200, answer


def check_cluster(options: ClusterOptions, kubeflow: str = "kubeflow") -> Iterator[Finding]:
    """Check everything that a run on the cluster needs, one after the other; changes nothing.

    Args:
        options: Of the runs; their namespace, when not given, is Kubeflow's.
        kubeflow: Namespace of Kubeflow Pipelines.

    Raises:
        UserError: There is no cluster, or it does not answer.
    """
    cluster, namespace = _Cluster(), options.namespace or kubeflow
    status, version = cluster.request("/version")
    if status == 401:
        raise UserError(f"Kubernetes at {cluster.server} does not accept these credentials; log in again")
    yield ok("kubernetes", f"{(version or {}).get('gitVersion', 'unknown version')} at {cluster.server}")
    yield _kuberay(cluster)
    yield _pipelines(cluster, kubeflow)
    yield _rights(cluster, namespace)
    if options.secret:
        yield _secret(cluster, namespace, options)
    if options.service_account:
        yield _service_account(cluster, namespace, options.service_account)
    if options.queue:
        yield _queue(cluster, namespace, options.queue)
    yield _gpus(cluster, options)
    fix = f"kubectl -n {namespace} create -f k8s/doctor.yaml does, where Ray's pods run"
    yield Finding("store", "warning", "cannot be looked at from here as a pod sees it", fix)


def _kuberay(cluster: _Cluster) -> Finding:
    status, found = cluster.request("/apis/ray.io/v1")
    if status != 200 or "rayjobs" not in {one["name"] for one in found["resources"]}:
        return Finding("kuberay", "error", "the cluster knows no RayJobs of ray.io/v1", KUBERAY)
    status, schema = cluster.request("/openapi/v3/apis/ray.io/v1")
    if status == 200 and "preRunningDeadlineSeconds" not in str(schema):
        what = "its RayJobs are older than KubeRay 1.7: a field of ours is dropped"
        return Finding("kuberay", "error", what, KUBERAY)
    return ok("kuberay", "RayJobs of ray.io/v1, with all fields that we use")


def _pipelines(cluster: _Cluster, kubeflow: str) -> Finding:
    path = f"/api/v1/namespaces/{kubeflow}/services/ml-pipeline:8888/proxy/apis/v2beta1/healthz"
    status, _ = cluster.request(path)
    if status == 200:
        return ok("pipelines", f"the API in namespace {kubeflow} answers")
    if status == 403:
        return _not_allowed("pipelines", f"get services/proxy in namespace {kubeflow}")
    what = f"no API of Kubeflow Pipelines answers in namespace {kubeflow} ({status})"
    return Finding("pipelines", "error", what, PIPELINES)


def _rights(cluster: _Cluster, namespace: str) -> Finding:
    """Of the step's service account; inside a pod of the pod's own."""
    account = f"system:serviceaccount:{namespace}:{STEP}"
    headers = {} if cluster.inside else {"Impersonate-User": account}
    missing = []
    for group, resource, verbs in RULES:
        name, _, part = resource.partition("/")
        for verb in verbs:
            access = {"namespace": namespace, "group": group, "resource": name, "subresource": part, "verb": verb}
            review = {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": access},
            }
            status, answer = cluster.request("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review, headers)
            if status == 403:
                return _not_allowed("rights", f"impersonate {account}")
            if status not in (200, 201) or not answer["status"]["allowed"]:
                missing.append(f"{verb} {resource}")
    who = "this pod" if cluster.inside else account
    if missing:
        return Finding("rights", "error", f"{who} may not {', '.join(missing)}", APPLY)
    return ok("rights", f"{who} may do all that a step does")


def _secret(cluster: _Cluster, namespace: str, options: ClusterOptions) -> Finding:
    fix = "create it with the store's credentials, or name another as cluster.secret"
    found = _find(cluster, "secret", f"/api/v1/namespaces/{namespace}/secrets/{options.secret}", fix)
    if isinstance(found, Finding):
        return found
    keys = set(found.get("data") or {})
    missing = [key for key in (options.access_key, options.secret_key) if key not in keys]
    if missing:
        what = f"{options.secret} has no {' and no '.join(missing)}, it has {', '.join(sorted(keys)) or 'nothing'}"
        return Finding("secret", "error", what, "name its keys as cluster.access_key and cluster.secret_key")
    return ok("secret", f"{options.secret} has {options.access_key} and {options.secret_key}")


def _service_account(cluster: _Cluster, namespace: str, name: str) -> Finding:
    found = _find(cluster, "service account", f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}", APPLY)
    return found if isinstance(found, Finding) else ok("service account", f"{name} exists")


def _queue(cluster: _Cluster, namespace: str, name: str) -> Finding:
    path = f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{namespace}/localqueues/{name}"
    found = _find(cluster, "queue", path, "kubectl apply -k k8s/overlays/kueue")
    if isinstance(found, Finding):
        return found
    conditions = {one["type"]: one for one in found.get("status", {}).get("conditions", [])}
    active = conditions.get("Active", {})
    if active.get("status") != "True":
        what = f"{name} admits nothing: {active.get('message', 'no word from Kueue')}"
        return Finding("queue", "error", what, "look at its ClusterQueue and its flavors")
    return ok("queue", f"{name} is open, {found['status'].get('pendingWorkloads', 0)} jobs wait in it")


def _find(cluster: _Cluster, subject: str, path: str, fix: str) -> dict[str, Any] | Finding:
    """A namespaced object, or the finding that it is missing or may not be looked at."""
    status, found = cluster.request(path)
    namespace, resource, name = path.split("/")[-3:]
    if status == 403:
        return _not_allowed(subject, f"get {resource} in namespace {namespace}")
    if status != 200:
        return Finding(subject, "error", f"namespace {namespace} has no {KINDS[resource]} {name}", fix)
    return dict(found)


def _gpus(cluster: _Cluster, options: ClusterOptions) -> Finding:
    status, found = cluster.request("/api/v1/nodes")
    if status == 403:
        return _not_allowed("gpu", "list nodes")
    counts = [
        int(node["status"].get("allocatable", {}).get("nvidia.com/gpu", 0))
        for node in (found or {}).get("items", [])
        if options.node_selector.items() <= (node["metadata"].get("labels") or {}).items()
    ]
    if not sum(counts):
        chosen = " that cluster.node_selector chooses" if options.node_selector else ""
        return Finding("gpu", "warning", f"none on the nodes{chosen}", ADD_GPUS)
    return ok("gpu", f"{sum(counts)} on {sum(count > 0 for count in counts)} nodes")


def _not_allowed(subject: str, right: str) -> Finding:
    return Finding(subject, "warning", f"not looked at: you may not {right}", "ask somebody who may")
