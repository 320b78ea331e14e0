"""What is asked of Kubernetes, and the Role that allows it. The other tests with the HTTP double are refused all else."""

from __future__ import annotations

import ast
from pathlib import Path

import kubernetes.client
import pytest

from hep2flow.errors import UserError
from hep2flow.execution.kubernetes import client
from hep2flow.execution.kubernetes.client import KubernetesApi
from tests.execution.double import PODS, Double, serving
from tests.execution.rights import Access, allowed, asked
from tests.test_imports import PACKAGE, imported

RAYJOBS = ("ray.io", "rayjobs")
# What each method of the Kubernetes client asks for that a step calls; a list is also watched.
METHODS: dict[str, set[Access]] = {
    "create_namespaced_custom_object": {(*RAYJOBS, "create")},
    "get_namespaced_custom_object": {(*RAYJOBS, "get")},
    "delete_namespaced_custom_object": {(*RAYJOBS, "delete")},
    "list_namespaced_custom_object": {(*RAYJOBS, "list"), (*RAYJOBS, "watch")},
    "list_namespaced_pod": {("", "pods", "list")},
    "read_namespaced_pod": {("", "pods", "get")},
    "read_namespaced_pod_log": {("", "pods/log", "get")},
}
# For a person who looks under the step's name (kubectl logs, kubectl get pod); no step calls them.
FOR_PEOPLE: set[Access] = {("ray.io", "rayjobs/status", "get"), ("", "pods/log", "list")}


def test_the_methods_that_are_called_need_the_role_and_nothing_besides() -> None:
    tree = ast.parse(Path(client.__file__).read_text(encoding="utf-8"))
    clients = (kubernetes.client.CoreV1Api, kubernetes.client.CustomObjectsApi)
    offered = {name for client in clients for name in dir(client) if not name.startswith("_")} - {"api_client"}
    called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & offered
    assert called == set(METHODS)
    needed = set().union(*METHODS.values())
    assert needed | FOR_PEOPLE == allowed()
    assert not needed & FOR_PEOPLE


def test_a_step_reaches_kubernetes_through_one_file_alone() -> None:
    files = {
        path.name
        for path in PACKAGE.rglob("*.py")
        for _, name in imported(path)
        if f"{name}.".startswith("kubernetes.")
    }
    assert files == {"client.py", "doctor.py"}, "the doctor asks as the person who calls it"


def test_http_double_what_the_role_does_not_allow_is_forbidden_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(client, "RAYJOBS", "rayclusters")
    double = Double()
    with serving(double, tmp_path) as config:
        monkeypatch.setenv("KUBECONFIG", str(config))
        with pytest.raises(UserError, match=r"Kubernetes forbids to delete rayclusters in namespace laboratory"):
            KubernetesApi().delete("h2-0")
        assert double.beyond == {("ray.io", "rayclusters", "delete")}
        double.beyond.clear()  # in any other test it is a fault, and the double says so


@pytest.mark.parametrize(
    ("method", "url", "access"),
    [
        ("GET", PODS, ("", "pods", "list")),
        ("GET", f"{PODS}?watch=True", ("", "pods", "watch")),
        ("GET", f"{PODS}/step-1", ("", "pods", "get")),
        ("GET", f"{PODS}/head/log?follow=True", ("", "pods/log", "get")),
        ("DELETE", PODS, ("", "pods", "deletecollection")),
        ("PATCH", "/apis/ray.io/v1/namespaces/a/rayjobs/b/status", ("ray.io", "rayjobs/status", "patch")),
    ],
)
def test_a_request_is_read_as_an_api_server_reads_it(method: str, url: str, access: Access) -> None:
    assert asked(method, url) == access
