"""What the doctor finds on a cluster, against an HTTP double of the Kubernetes API: faults only, one by one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from hep2flow.errors import UserError
from hep2flow.execution.kubernetes.cluster_options import ClusterOptions
from hep2flow.execution.kubernetes.doctor import check_cluster
from hep2flow.execution.local.doctor import Finding
from tests.test_cli import hep2flow

NAMESPACE = "/api/v1/namespaces/kubeflow"
PIPELINES = f"{NAMESPACE}/services/ml-pipeline:8888/proxy/apis/v2beta1/healthz"
SECRET = f"{NAMESPACE}/secrets/mlpipeline-minio-artifact"
ACCOUNT = f"{NAMESPACE}/serviceaccounts/hep2flow-ray"
QUEUE = "/apis/kueue.x-k8s.io/v1beta2/namespaces/kubeflow/localqueues/hep2flow"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

OPERATOR = "/api/v1/pods?labelSelector=app.kubernetes.io/component%3Dkuberay-operator"


def operator(ready: str) -> dict[str, Any]:
    """A pod of KubeRay's operator."""
    metadata = {"namespace": "kuberay", "name": "kuberay-operator-1"}
    return {"metadata": metadata, "status": {"conditions": [{"type": "Ready", "status": ready}]}}


GPU_NODE = {"metadata": {"labels": {"gpu": "yes"}}, "status": {"allocatable": {"nvidia.com/gpu": "4"}}}
WELL: dict[str, Any] = {
    "/version": {"gitVersion": "v1.33.1"},
    "/apis/ray.io/v1": {"resources": [{"name": "rayjobs"}, {"name": "rayjobs/status"}]},
    "/openapi/v3/apis/ray.io/v1": {"components": {"schemas": {"RayJob": {"preRunningDeadlineSeconds": {}}}}},
    OPERATOR: {"items": [operator("False"), operator("True")]},
    PIPELINES: {"multi_user": False},
    SECRET: {"data": {"accesskey": "c2VjcmV0", "secretkey": "c2VjcmV0"}},
    ACCOUNT: {"metadata": {"name": "hep2flow-ray"}},
    QUEUE: {"status": {"pendingWorkloads": 2, "conditions": [{"type": "Active", "status": "True"}]}},
    "/api/v1/nodes": {"items": [GPU_NODE, {"metadata": {}, "status": {}}]},
}
OPTIONS = ClusterOptions(queue="hep2flow", node_selector={"gpu": "yes"})


class Cluster(ThreadingHTTPServer):
    """answers: path -> what is there, or a refusal's status; denied: verb and resource; asked_as: whom reviews were for

    unanswered: path -> how many requests get no answer
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, Any] = dict(WELL)
        self.unanswered: dict[str, int] = {}
        self.denied: set[str] = set()
        self.asked_as: set[str] = set()


class _Handler(BaseHTTPRequestHandler):
    server: Cluster

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.server.unanswered.get(self.path, 0) > 0:
            self.server.unanswered[self.path] -= 1
            self.close_connection = True
            return
        self._tell(self.server.answers.get(self.path, 404))

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["spec"]["resourceAttributes"]
        self.server.asked_as.add(self.headers.get("Impersonate-User", ""))
        resource = f"{asked['resource']}/{asked['subresource']}".rstrip("/")
        allowed = f"{asked['verb']} {resource}" not in self.server.denied
        self._tell(self.server.answers.get(self.path, {"status": {"allowed": allowed}}))

    def _tell(self, answer: Any) -> None:
        status, body = (answer, {"kind": "Status"}) if isinstance(answer, int) else (200, answer)
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster on which all is well, named by KUBECONFIG."""
    server = Cluster()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "double",
        "clusters": [{"name": "double", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "somebody", "user": {"token": "none"}}],
        "contexts": [{"name": "double", "context": {"cluster": "double", "user": "somebody"}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    yield server
    server.shutdown()
    server.server_close()


def found(options: ClusterOptions = OPTIONS) -> dict[str, Finding]:
    """What the doctor finds, by subject."""
    return {finding.subject: finding for finding in check_cluster(options)}


def test_where_all_is_well_only_the_store_is_left_to_look_at(cluster: Cluster, tmp_path: Path) -> None:
    findings = found()
    assert {name: one.state for name, one in findings.items() if one.state != "ok"} == {"store": "warning"}
    assert findings["gpu"].what == "4 on 1 nodes"
    assert cluster.asked_as == {"system:serviceaccount:kubeflow:hep2flow-step"}
    (tmp_path / "cluster.json").write_text(OPTIONS.model_dump_json())
    answer = hep2flow("doctor", "--cluster", "--options", tmp_path / "cluster.json")
    assert (answer.code, answer.err) == (0, "")
    assert "ok      kubernetes: v1.33.1 at http://127.0.0.1:" in answer.out


@pytest.mark.parametrize(
    ("path", "answer", "subject", "what", "mend"),
    [
        ("/apis/ray.io/v1", 404, "kuberay", "knows no RayJobs", "--version 1.7.0"),
        ("/apis/ray.io/v1", {"resources": [{"name": "rayclusters"}]}, "kuberay", "knows no RayJobs", "helm upgrade"),
        ("/openapi/v3/apis/ray.io/v1", {"components": {}}, "kuberay", "older than KubeRay 1.7", "--version 1.7.0"),
        (OPERATOR, {"items": []}, "operator", "no pod of KubeRay's operator in any namespace", "--version 1.7.0"),
        (
            OPERATOR,
            {"items": [operator("False")]},
            "operator",
            "operator kuberay/kuberay-operator-1 is not ready",
            "kubectl -n kuberay describe pod kuberay-operator-1",
        ),
        (PIPELINES, 503, "pipelines", "no API of Kubeflow Pipelines answers", "k8s/README.md"),
        (SECRET, 404, "secret", "has no Secret mlpipeline-minio-artifact", "cluster.secret"),
        (
            SECRET,
            {"data": {"user": "", "accesskey": ""}},
            "secret",
            "has no secretkey, it has accesskey, user",
            "secret_key",
        ),
        (ACCOUNT, 404, "service account", "has no ServiceAccount hep2flow-ray", "kubectl apply -k"),
        (QUEUE, 404, "queue", "has no LocalQueue hep2flow", "kubectl apply -k k8s/overlays/kueue"),
        (
            QUEUE,
            {"status": {"conditions": [{"type": "Active", "status": "False", "message": "ClusterQueue is stopped"}]}},
            "queue",
            "admits nothing: ClusterQueue is stopped",
            "ClusterQueue",
        ),
    ],
)
def test_each_fault_is_named_with_what_mends_it(
    path: str, answer: Any, subject: str, what: str, mend: str, cluster: Cluster
) -> None:
    cluster.answers[path] = answer
    finding = found()[subject]
    assert finding.state == "error"
    assert what in finding.what
    assert mend in finding.mend
    assert hep2flow("doctor", "--cluster", "--namespace", "kubeflow").code == (0 if subject == "queue" else 2)


def test_a_right_that_the_step_lacks_is_named(cluster: Cluster) -> None:
    cluster.denied = {"watch rayjobs", "get pods/log"}
    assert found()["rights"].what.endswith("hep2flow-step may not watch rayjobs, get pods/log")
    assert found()["rights"].state == "error"


@pytest.mark.parametrize(
    ("path", "subject"),
    [
        (OPERATOR, "operator"),
        (PIPELINES, "pipelines"),
        (REVIEWS, "rights"),
        (SECRET, "secret"),
        (ACCOUNT, "service account"),
        (QUEUE, "queue"),
        ("/api/v1/nodes", "gpu"),
    ],
)
def test_what_one_may_not_look_at_is_said_and_is_no_fault(path: str, subject: str, cluster: Cluster) -> None:
    cluster.answers[path] = 403
    assert found()[subject].state == "warning"
    assert "not looked at: you may not" in found()[subject].what


def test_a_busy_server_is_asked_again_and_what_stays_unanswered_hides_nothing_else(cluster: Cluster) -> None:
    cluster.unanswered = {SECRET: 2, ACCOUNT: 100}
    findings = found()
    assert findings["secret"].state == "ok"
    assert (findings["service account"].state, findings["queue"].state) == ("error", "ok")
    assert "cannot be reached" in findings["service account"].what


def test_no_gpu_among_the_chosen_nodes_is_said(cluster: Cluster) -> None:
    gpu = found(ClusterOptions(node_selector={"gpu": "other"}))["gpu"]
    assert (gpu.state, gpu.what) == ("warning", "none on the nodes that cluster.node_selector chooses")


def test_no_value_of_the_secret_is_told(cluster: Cluster) -> None:
    cluster.answers[SECRET] = {"data": {"accesskey": "c2VjcmV0"}}
    answer = hep2flow("doctor", "--cluster", "--json")
    assert answer.code == 2
    assert "c2VjcmV0" not in answer.out + answer.err


def test_credentials_that_are_not_accepted_and_a_server_that_is_away_are_one_line(cluster: Cluster) -> None:
    cluster.answers["/version"] = 401
    with pytest.raises(UserError, match="does not accept these credentials; log in again"):
        found()
    cluster.shutdown()
    cluster.server_close()
    answer = hep2flow("doctor", "--cluster")
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert "cannot be reached" in answer.err
