"""``make test-cluster`` as far as it goes without a cluster: what it says then, and the pods that it would make."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from hep2flow import __version__
from hep2flow.execution.job_spec import JobOutcome, JobSpec
from hep2flow.execution.kubernetes.cluster_options import ClusterOptions
from hep2flow.execution.kubernetes.rayjob import JOB_LABEL
from hep2flow.search.settings import SweepSettings
from hep2flow.stage_result import StageResult
from hep2flow.store.address import StoreAddress
from hep2flow.store.runs import RunRecord, show_run, start_run
from hep2flow.store.s3 import Store
from tests.execution.double import BEGUN, SUCCEEDED, Double, serving
from tests.execution.test_kubernetes_doctor import SECRET, Cluster
from tests.k8s.manifests import OVERLAYS, of_kind
from tests.k8s.test_manifests import KUBERNETES
from tests.on_cluster.follower import pod
from tests.on_cluster.forward import service_of
from tests.on_cluster.overlay import ROOT, Overlay, read_overlay
from tests.stages.test_train import prepared, tiny

STORE = StoreAddress(endpoint="http://seaweedfs.kubeflow:9000", bucket="mlpipeline", prefix="hep2flow/test-cluster-0")
SAID = JobSpec(
    run_id="test-0", recipe=tiny(), dataset="s3://b/d", split="s3://b/s", sweep=SweepSettings(trials=4, judge=0)
)
WITH_SECRET = [overlay for overlay in OVERLAYS if overlay != "aws"]

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not there: it renders overlays")


def make(folder: Path, *variables: str, **environment: str) -> list[str]:
    """What ``make test-cluster`` says of ours where it cannot begin."""
    command = [
        "make",
        "--no-print-directory",
        "-o",
        ".venv/installed",
        f"BIN={Path(sys.executable).parent}",
        "test-cluster",
        *variables,
    ]
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("KUBERNETES_SERVICE_HOST", "MAKEFLAGS", "MAKELEVEL")
    }
    clean |= {"HOME": str(folder), **environment}
    ended = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stdout + ended.stderr
    assert ended.stdout == ""
    return [line for line in ended.stderr.splitlines() if not line.startswith("make: ***")]


def kubeconfig(folder: Path, server: str) -> str:
    """The path of one that names this server."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lost",
        "clusters": [{"name": "lost", "cluster": {"server": server}}],
        "users": [{"name": "nobody", "user": {"token": "none"}}],
        "contexts": [{"name": "lost", "context": {"cluster": "lost", "user": "nobody"}}],
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(config), encoding="utf-8")
    return str(folder / "kubeconfig")


@needs_kubectl
@pytest.mark.parametrize("file", ["nothing", ""])
def test_without_a_cluster_it_says_so(tmp_path: Path, file: str) -> None:
    (told,) = make(tmp_path, KUBECONFIG=file and str(tmp_path / file))
    assert told.startswith("make test-cluster: there is no Kubernetes cluster to be found")
    assert told.endswith("set KUBECONFIG")


@needs_kubectl
def test_a_cluster_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:  # and nobody listens
        taken.bind(("127.0.0.1", 0))
        server = f"http://127.0.0.1:{taken.getsockname()[1]}"
        (told,) = make(tmp_path, KUBECONFIG=kubeconfig(tmp_path, server))
    assert told.startswith(f"make test-cluster: Kubernetes at {server} cannot be reached")
    assert "check KUBECONFIG" in told


@needs_kubectl
@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/apis/ray.io/v1", "kuberay: the cluster knows no RayJobs of ray.io/v1; helm upgrade"),
        (SECRET, "secret: namespace kubeflow has no Secret mlpipeline-minio-artifact; create it"),
    ],
)
def test_http_double_what_a_cluster_lacks_is_named(tmp_path: Path, path: str, told: str) -> None:
    cluster = Cluster()
    cluster.answers[path] = 404
    threading.Thread(target=cluster.serve_forever, daemon=True).start()
    try:
        (line,) = make(tmp_path, KUBECONFIG=kubeconfig(tmp_path, f"http://127.0.0.1:{cluster.server_port}"))
    finally:
        cluster.shutdown()
        cluster.server_close()
    assert line.startswith(f"make test-cluster: {told}")


def test_without_kubectl_it_says_so(tmp_path: Path) -> None:
    for name in ("make", "sed", "sh"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    (told,) = make(tmp_path, PATH=str(tmp_path))
    assert told.startswith("make test-cluster: there is no kubectl; install it")


@needs_kubectl
@pytest.mark.parametrize(
    ("variable", "told"),
    [("OVERLAY=moon", "OVERLAY=moon: choose one of aws, "), ("OVERLAY=aws", "OVERLAY=aws: its store")],
)
def test_an_overlay_that_cannot_be_tried_is_refused(tmp_path: Path, variable: str, told: str) -> None:
    (line,) = make(tmp_path, variable)
    assert line.startswith(f"make test-cluster: {told}")


def test_other_tests_do_not_collect_it() -> None:
    def collected(*options: str) -> list[str]:
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/on_cluster", *options]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        return [line for line in ended.stdout.splitlines() if "::" in line]

    assert collected() == []
    assert len(collected("--overlay=kind", "--images=hep2flow", "--namespace=")) == 8


@needs_kubectl
@pytest.mark.parametrize("name", WITH_SECRET)
def test_kubernetes_takes_the_pod_and_no_policy_of_ours_chooses_it(name: str) -> None:
    overlay = read_overlay(name, "registry.example/hep2flow")
    made = pod(overlay, STORE, SAID)
    kubernetes_validate.validate(made, KUBERNETES, strict=True)
    assert made["metadata"]["namespace"] == overlay.namespace
    policies = [one["spec"]["podSelector"]["matchLabels"] for one in of_kind(name, "NetworkPolicy")]
    assert not any(chosen.items() <= made["metadata"]["labels"].items() for chosen in policies), "it asks Kubernetes"
    assert JOB_LABEL not in made["metadata"]["labels"]
    spec = made["spec"]
    assert spec["serviceAccountName"] == ("default-editor" if name == "profile" else "hep2flow-step")
    assert spec["automountServiceAccountToken"]
    assert spec["securityContext"]["runAsNonRoot"]
    (container,) = spec["containers"]
    assert container["image"] == f"registry.example/hep2flow/ray:{__version__}"
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert "$(" not in "".join(container["command"]), "Kubernetes would put a variable's value there"
    *_, specification, cluster = container["command"]
    assert JobSpec.model_validate_json(specification) == SAID
    assert ClusterOptions.model_validate_json(cluster) == overlay.options
    by_name = {one["name"] for one in container["env"] if "secretKeyRef" in one.get("valueFrom", {})}
    assert by_name == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


@needs_kubectl
def test_an_overlay_can_be_tried_in_another_namespace() -> None:
    overlay = read_overlay("kind", "hep2flow", "team-a")
    assert (overlay.namespace, overlay.account) == ("team-a", "hep2flow-step")
    rendered = subprocess.run(["kubectl", "kustomize", str(overlay.folder)], capture_output=True, text=True, check=True)
    objects = list(yaml.safe_load_all(rendered.stdout))
    assert {one["metadata"]["namespace"] for one in objects} == {"team-a"}
    subjects = [one for binding in objects if binding["kind"] == "RoleBinding" for one in binding["subjects"]]
    assert {one["namespace"] for one in subjects} == {"team-a"}


@pytest.mark.parametrize(
    ("endpoint", "service"),
    [
        ("http://seaweedfs.kubeflow:9000", ("seaweedfs", "kubeflow")),
        ("http://seaweedfs:9000", ("seaweedfs", "team-a")),
        ("http://seaweedfs.kubeflow.svc.cluster.local:9000", ("seaweedfs", "kubeflow")),
        ("https://s3.example.com", None),
        ("http://10.0.0.1:9000", None),
        (None, None),
    ],
)
def test_a_store_inside_the_cluster_is_told_from_one_outside(
    endpoint: str | None, service: tuple[str, str] | None
) -> None:
    assert service_of(StoreAddress(endpoint=endpoint, bucket="mlpipeline"), "team-a") == service


def test_http_double_the_pods_command_makes_a_job_and_follows_it(store: Store, tmp_path: Path) -> None:
    recipe = tiny()
    dataset, split = prepared(store, tmp_path, recipe)
    said = JobSpec(run_id="monday", recipe=recipe, dataset=dataset, split=split)
    start_run(store, RunRecord(run_id=said.run_id))
    result = StageResult(stage="train", key=32 * "0", uri="s3://b/trainings/0", summary={"updates": 6})
    overlay = Overlay(ROOT, "kubeflow", "hep2flow-step", ClusterOptions(), store.address)
    (container,) = pod(overlay, store.address, said)["spec"]["containers"]
    _, *arguments = container["command"]
    plain: dict[str, Any] = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    double = Double(
        script=[
            *BEGUN,
            lambda: JobOutcome(result=result).write(store, said.write(store)),
            *SUCCEEDED,
        ]
    )
    with serving(double, tmp_path) as config:
        ended = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, **plain, "HOME": str(tmp_path), "KUBECONFIG": str(config)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    (record,) = show_run(store, said.run_id).stages
    assert record.result == result.model_dump(mode="json")
    assert (len(double.made), double.jobs) == (1, {})
