"""Checks of the Kubernetes cluster with the caller's own rights: what is missing, and how to fix it."""

import os
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import quote

import kubernetes.client
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from hep2flow.errors import UserError
from hep2flow.execution.kubernetes.client import load_configuration
from hep2flow.execution.kubernetes.cluster_options import ClusterOptions
from hep2flow.execution.local.doctor import Finding, ok

SECONDS = 10
REQUESTS = 3  # of what is not answered within SECONDS: an API server that is busy answers late
OPERATOR = "app.kubernetes.io/component=kuberay-operator"  # set by KubeRay's Helm chart and by its kustomization
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
UNSEEN = "nodes that come on demand are not seen"
ADD_GPUS = f"add GPU nodes with NVIDIA's device plugin, or run with profile laptop; {UNSEEN}"
AUTHORIZATION = "authorization.k8s.io/v1"
KINDS = {"secrets": "Secret", "serviceaccounts": "ServiceAccount", "localqueues": "LocalQueue"}
APPLY = "kubectl apply -k k8s/overlays/ and the overlay that fits, see k8s/README.md"


class _FaultError(Exception):
    """What a check found wrong, and how to fix it."""

    def __init__(self, what: str, fix: str, state: Literal["warning", "error"] = "error") -> None:
        super().__init__(what)
        self.fix, self.state = fix, state


def check_cluster(options: ClusterOptions, kubeflow: str = "kubeflow") -> Iterator[Finding]:
    """Check everything that a run on the cluster needs, one after the other; changes nothing.

    The runs' namespace, when not given, is that of Kubeflow Pipelines, ``kubeflow``.

    Raises:
        UserError: There is no cluster, or it does not answer.
    """
    cluster = _Cluster(options, kubeflow)
    try:
        status, version = cluster.request("/version")
    except _FaultError as fault:
        raise UserError(f"{fault}; {fault.fix}") from fault
    if status == 401:
        raise UserError(f"Kubernetes at {cluster.server} does not accept these credentials; log in again")
    yield ok("kubernetes", f"{(version or {}).get('gitVersion', 'unknown version')} at {cluster.server}")
    checks = [("kuberay", cluster.kuberay), ("operator", cluster.operator)]
    checks += [("pipelines", cluster.pipelines), ("rights", cluster.rights)]
    checks += [("secret", cluster.secret)] if options.secret else []
    checks += [("service account", cluster.service_account)] if options.service_account else []
    checks += [("queue", cluster.queue)] if options.queue else []
    for subject, check in [*checks, ("gpu", cluster.gpus)]:
        try:
            yield ok(subject, check())
        except _FaultError as fault:
            yield Finding(subject, fault.state, str(fault), fault.fix)
    fix = f"kubectl -n {cluster.namespace} create -f k8s/doctor.yaml does, where Ray's pods run"
    yield Finding("store", "warning", "cannot be looked at from here as a pod sees it", fix)


class _Cluster:
    """The cluster that KUBECONFIG or the service account names; each check returns what is well, or raises _FaultError."""

    def __init__(self, options: ClusterOptions, kubeflow: str) -> None:
        configuration, _ = load_configuration()
        self.server, self.namespace = str(configuration.host), options.namespace or kubeflow
        self._options, self._kubeflow = options, kubeflow
        self._client = kubernetes.client.ApiClient(configuration)

    def request(
        self, path: str, right: str = "", body: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and answer of a GET, or with a body of a POST, as plain JSON.

        A 403 where it needs a right is a fault, and so is a server that does not answer several times.
        """
        method, types = "GET" if body is None else "POST", dict.fromkeys(("Accept", "Content-Type"), "application/json")
        options = {"response_type": "object", "auth_settings": ["BearerToken"], "_return_http_data_only": True}
        options |= {"header_params": {**types, **(headers or {})}, "_request_timeout": SECONDS}
        for request in range(1, REQUESTS + 1):
            try:
                return 200, self._client.call_api(path, method, body=body, **options)
            except ApiException as error:
                if error.status == 403 and right:
                    what = f"not looked at: you may not {right}"
                    raise _FaultError(what, "ask somebody who may", "warning") from error
                return int(error.status or 0), None
            except HTTPError as error:
                if request == REQUESTS:
                    what = f"Kubernetes at {self.server} cannot be reached ({type(error).__name__}, {REQUESTS} times)"
                    raise _FaultError(what, "check KUBECONFIG, the network, and that you are logged in") from error
        raise AssertionError("the last request returns or raises")

    def operator(self) -> str:
        """KubeRay's process, without which RayJobs can be created and nothing ever comes of them."""
        path = f"/api/v1/pods?labelSelector={quote(OPERATOR)}"
        status, found = self.request(path, "list pods of all namespaces")
        pods = found["items"] if status == 200 else []
        if not pods:
            raise _FaultError(
                f"no pod of KubeRay's operator in any namespace (label {OPERATOR}): no job would start", KUBERAY
            )
        for pod in pods:
            conditions = {one["type"]: one["status"] for one in pod.get("status", {}).get("conditions", [])}
            if conditions.get("Ready") == "True":
                return f"runs in namespace {pod['metadata']['namespace']}"
        place = f"{pods[0]['metadata']['namespace']}/{pods[0]['metadata']['name']}"
        fix = f"kubectl -n {pods[0]['metadata']['namespace']} describe pod {pods[0]['metadata']['name']}"
        raise _FaultError(f"KubeRay's operator {place} is not ready: no job would start", fix)

    def kuberay(self) -> str:
        status, found = self.request("/apis/ray.io/v1")
        if status != 200 or "rayjobs" not in {one["name"] for one in found["resources"]}:
            raise _FaultError("the cluster knows no RayJobs of ray.io/v1", KUBERAY)
        status, schema = self.request("/openapi/v3/apis/ray.io/v1")
        if status == 200 and "preRunningDeadlineSeconds" not in str(schema):
            raise _FaultError("its RayJobs are older than KubeRay 1.7: a field of ours is dropped", KUBERAY)
        return "RayJobs of ray.io/v1, with all fields that we use"

    def pipelines(self) -> str:
        path = f"/api/v1/namespaces/{self._kubeflow}/services/ml-pipeline:8888/proxy/apis/v2beta1/healthz"
        status, _ = self.request(path, f"get services/proxy in namespace {self._kubeflow}")
        if status != 200:
            what = f"no API of Kubeflow Pipelines answers in namespace {self._kubeflow} ({status})"
            raise _FaultError(what, PIPELINES)
        return f"the API in namespace {self._kubeflow} answers"

    def rights(self) -> str:
        """Of the step's service account; inside a pod of the pod's own."""
        inside = bool(os.environ.get("KUBERNETES_SERVICE_HOST"))
        account = f"system:serviceaccount:{self.namespace}:{STEP}"
        headers = {} if inside else {"Impersonate-User": account}
        path, missing = f"/apis/{AUTHORIZATION}/selfsubjectaccessreviews", []
        for group, resource, verb in ((group, resource, verb) for group, resource, verbs in RULES for verb in verbs):
            name, _, part = resource.partition("/")
            access = {"namespace": self.namespace, "group": group, "resource": name, "subresource": part, "verb": verb}
            spec = {"resourceAttributes": access}
            review = {"apiVersion": AUTHORIZATION, "kind": "SelfSubjectAccessReview", "spec": spec}
            status, answer = self.request(path, f"impersonate {account}", review, headers)
            if status not in (200, 201) or not answer["status"]["allowed"]:
                missing.append(f"{verb} {resource}")
        who = "this pod" if inside else account
        if missing:
            raise _FaultError(f"{who} may not {', '.join(missing)}", APPLY)
        return f"{who} may do all that a step does"

    def secret(self) -> str:
        options, fix = self._options, "create it with the store's credentials, or name another as cluster.secret"
        keys = set(self._find("/api/v1", "secrets", options.secret, fix).get("data") or {})
        missing = [key for key in (options.access_key, options.secret_key) if key not in keys]
        if missing:
            what = f"{options.secret} has no {' and no '.join(missing)}, it has {', '.join(sorted(keys)) or 'nothing'}"
            raise _FaultError(what, "name its keys as cluster.access_key and cluster.secret_key")
        return f"{options.secret} has {options.access_key} and {options.secret_key}"

    def service_account(self) -> str:
        self._find("/api/v1", "serviceaccounts", self._options.service_account, APPLY)
        return f"{self._options.service_account} exists"

    def queue(self) -> str:
        name, fix = self._options.queue, "kubectl apply -k k8s/overlays/kueue"
        found = self._find("/apis/kueue.x-k8s.io/v1beta2", "localqueues", name, fix)
        conditions = found.get("status", {}).get("conditions", [])
        active: dict[str, Any] = next((one for one in conditions if one["type"] == "Active"), {})
        if active.get("status") != "True":
            what = f"{name} admits nothing: {active.get('message', 'no word from Kueue')}"
            raise _FaultError(what, "look at its ClusterQueue and its flavors")
        return f"{name} is open, {found['status'].get('pendingWorkloads', 0)} jobs wait in it"

    def gpus(self) -> str:
        _, found = self.request("/api/v1/nodes", "list nodes")
        selector = self._options.node_selector
        counts = [
            int(node["status"].get("allocatable", {}).get("nvidia.com/gpu", 0))
            for node in (found or {}).get("items", [])
            if selector.items() <= (node["metadata"].get("labels") or {}).items()
        ]
        if not sum(counts):
            chosen = " that cluster.node_selector chooses" if selector else ""
            raise _FaultError(f"none on the nodes{chosen}", ADD_GPUS, "warning")
        return f"{sum(counts)} on {sum(count > 0 for count in counts)} nodes"

    def _find(self, api: str, resource: str, name: str, fix: str) -> dict[str, Any]:
        """An object of the namespace."""
        path, right = f"namespaces/{self.namespace}/{resource}", f"get {resource} in namespace {self.namespace}"
        status, found = self.request(f"{api}/{path}/{name}", right)
        if status != 200:
            raise _FaultError(f"namespace {self.namespace} has no {KINDS[resource]} {name}", fix)
        return dict(found)
