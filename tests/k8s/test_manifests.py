"""The manifests: what an API server would refuse of them, and what it would take though it is wrong."""

from __future__ import annotations

import json
import re
import shutil
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes.utils.quantity import parse_quantity

from hep2flow.components import images
from hep2flow.execution.job_spec import JobSpec
from hep2flow.execution.kubernetes.cluster_options import ClusterOptions, parse_cluster_options
from hep2flow.execution.kubernetes.doctor import RULES
from hep2flow.execution.kubernetes.rayjob import RayJob
from hep2flow.recipe import load_recipe
from hep2flow.store.address import StoreAddress
from tests.k8s import crds
from tests.k8s.manifests import K8S, OVERLAYS, built, leaves, of_kind

KUBERNETES = "1.33"  # whose schemas the core kinds are held against
CUSTOM = ("ray.io", "kueue.x-k8s.io")
# Whom we let in or go to, by labels that others gave: their source is in k8s/README.md.
OTHERS: tuple[dict[str, str], ...] = (
    {"app": "seaweedfs"},
    {"app.kubernetes.io/component": "kuberay-operator"},
    {"k8s-app": "kube-dns"},
)
# A quota that names one of these refuses pods that ask for none of it.
OF_ALL_PODS = ("pods", "cpu", "memory", "requests.cpu", "requests.memory", "limits.*")
KINDS_OF_PODS = ("hep2flow-ray", "hep2flow-ray-store")

every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def options(overlay: str) -> ClusterOptions:
    """The parameter ``cluster`` that goes with an overlay."""
    given = json.loads((K8S / "overlays" / overlay / "cluster.json").read_text(encoding="utf-8"))
    return parse_cluster_options(given)


@cache
def rayjob(overlay: str) -> dict[str, Any]:
    """A training of the paper's, as a RayJob for an overlay."""
    (store,) = of_kind(overlay, "ConfigMap")
    address = StoreAddress(
        endpoint=store["data"].get("AWS_ENDPOINT_URL"),
        region=store["data"]["AWS_REGION"],
        bucket=store["data"]["HEP2FLOW_BUCKET"],
        prefix=store["data"]["HEP2FLOW_PREFIX"],
    )
    asked = JobSpec(run_id="run-1", recipe=load_recipe("convnext-b"), dataset="s3://b/d", split="s3://b/s")
    return RayJob(asked, "s3://b/spec.json", address, options(overlay)).to_manifest()


def pods_of(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The templates of a RayJob's pods."""
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [job["spec"]["submitterPodTemplate"], *(group["template"] for group in groups)]


def requests_of(job: dict[str, Any]) -> list[dict[str, str]]:
    """What each of a RayJob's kinds of pods asks for."""
    return [pod["spec"]["containers"][0]["resources"]["requests"] for pod in pods_of(job)]


def test_there_is_an_overlay_for_each_kind_of_cluster() -> None:
    assert set(OVERLAYS) >= {"kind", "gpu", "kueue", "aws", "profile"}


@every_overlay
def test_kubernetes_takes_every_core_object(overlay: str) -> None:
    core = [one for one in built(overlay) if one["apiVersion"].partition("/")[0] not in CUSTOM]
    assert len(core) >= 8
    for resource in core:
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)


def test_kubernetes_takes_the_doctors_job() -> None:
    kubernetes_validate.validate(doctor(), KUBERNETES, strict=True)


@every_overlay
def test_the_crds_take_every_custom_object(overlay: str) -> None:
    folder = crds.folder()
    custom = [one for one in [*built(overlay), rayjob(overlay)] if one["apiVersion"].partition("/")[0] in CUSTOM]
    assert {one["kind"]: crds.faults(one, folder) for one in custom if crds.faults(one, folder)} == {}


def test_the_queues_are_those_of_the_namespace_wherever_that_is(tmp_path: Path) -> None:
    """kustomize's ``namespace:`` reaches no namespaceSelector, and the wrong one admits no job, ever."""
    shutil.copytree(K8S, tmp_path / "k8s")
    gpu = tmp_path / "k8s" / "overlays" / "gpu" / "kustomization.yaml"
    gpu.write_text(gpu.read_text(encoding="utf-8").replace("namespace: kubeflow", "namespace: laboratory"))
    objects = built("kueue", tmp_path / "k8s")
    (local,) = (one for one in objects if one["kind"] == "LocalQueue")
    (queue,) = (one for one in objects if one["kind"] == "ClusterQueue")
    assert local["metadata"]["namespace"] == "laboratory"
    assert queue["spec"]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "laboratory"}


@every_overlay
def test_every_quantity_is_one(overlay: str) -> None:
    found = {
        (*path, str(value))
        for resource in built(overlay)
        for path, value in leaves(resource)
        if {"hard", "defaultRequest", "requests", "limits", "nominalQuota"} & set(path)
        and path[-1] not in ("type", "name")
    }
    assert found
    for path in found:
        assert parse_quantity(path[-1]) > 0, path


@every_overlay
def test_whatever_has_a_namespace_is_in_the_overlays_own(overlay: str) -> None:
    namespaces = {one["metadata"].get("namespace") for one in built(overlay)} - {None}
    own = options(overlay).namespace or "kubeflow"
    assert namespaces == {own}
    assert {one["metadata"]["name"] for one in of_kind(overlay, "Namespace")} <= {own}


@every_overlay
def test_no_object_is_there_twice_and_all_are_labelled_ours(overlay: str) -> None:
    names = [(one["kind"], one["metadata"]["name"]) for one in built(overlay)]
    assert len(set(names)) == len(names)
    unlabelled = [
        name
        for name, one in zip(names, built(overlay), strict=True)
        if one["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") != "hep2flow"
    ]
    assert unlabelled == [("Namespace", name) for _, name in unlabelled], "Kubeflow labels its own namespaces so"


@every_overlay
def test_roles_are_bound_to_accounts_that_are_there(overlay: str) -> None:
    accounts = {(one["metadata"]["namespace"], one["metadata"]["name"]) for one in of_kind(overlay, "ServiceAccount")}
    roles = {one["metadata"]["name"] for one in of_kind(overlay, "Role")}
    bindings = of_kind(overlay, "RoleBinding")
    assert {one["roleRef"]["name"] for one in bindings} - roles <= {"pipeline-runner"}, "Kubeflow's own"
    for binding in bindings:
        for subject in binding["subjects"]:
            given = (subject["namespace"], subject["name"])
            assert given in accounts or given == (options(overlay).namespace, "default-editor"), binding


@every_overlay
def test_what_a_job_names_is_there(overlay: str) -> None:
    asked, names = options(overlay), {(one["kind"], one["metadata"]["name"]) for one in built(overlay)}
    assert ("ServiceAccount", asked.service_account) in names
    assert not asked.queue or ("LocalQueue", asked.queue) in names
    for priority in filter(None, (asked.priority, asked.sweep_priority)):
        assert ("WorkloadPriorityClass", priority) in names
    for queue in of_kind(overlay, "LocalQueue"):
        assert ("ClusterQueue", queue["spec"]["clusterQueue"]) in names
    for queue in of_kind(overlay, "ClusterQueue"):
        flavors = {one["name"] for group in queue["spec"]["resourceGroups"] for one in group["flavors"]}
        assert {("ResourceFlavor", name) for name in flavors} <= names
        covered = {name for group in queue["spec"]["resourceGroups"] for name in group["coveredResources"]}
        requested = {name for asked_for in requests_of(rayjob(overlay)) for name in asked_for}
        assert requested <= covered, "Kueue never admits what its queue does not cover"
        assert queue["spec"]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "kubeflow"}


@every_overlay
def test_network_policies_choose_the_pods_of_a_job_and_nobody_elses(overlay: str) -> None:
    policies = of_kind(overlay, "NetworkPolicy")
    assert {one["metadata"]["name"] for one in policies} == set(KINDS_OF_PODS)
    pods = [pod["metadata"]["labels"] for pod in [*pods_of(rayjob(overlay)), doctor()["spec"]["template"]]]
    for policy in policies:
        chosen = policy["spec"]["podSelector"]["matchLabels"]
        assert chosen == {"app.kubernetes.io/part-of": "hep2flow"}
        assert all(chosen.items() <= labels.items() for labels in pods)
    peers = [
        peer["podSelector"]["matchLabels"]
        for policy in policies
        for rule in [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]
        for peer in [*rule.get("from", []), *rule.get("to", [])]
        if "podSelector" in peer
    ]
    assert {"app.kubernetes.io/part-of": "hep2flow"} in peers
    for labels in peers:
        assert labels in OTHERS or any(labels.items() <= own.items() for own in pods), labels


@every_overlay
def test_ray_reaches_its_peers_the_names_and_the_store_and_nothing_else(overlay: str) -> None:
    rules = [rule for one in of_kind(overlay, "NetworkPolicy") for rule in one["spec"].get("egress", [])]
    assert all(rule.get("to") for rule in rules), "a rule without a peer allows everybody"
    ports = sorted(port["port"] for rule in rules for port in rule.get("ports", []))
    assert ports == ([53, 53, 443] if overlay == "aws" else [53, 53, 8333])
    without = [rule["to"] for rule in rules if "ports" not in rule]
    assert without == [[{"podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "hep2flow"}}}]]
    incoming = next(one for one in of_kind(overlay, "NetworkPolicy") if "ingress" in one["spec"])
    assert set(incoming["spec"]["policyTypes"]) == {"Ingress", "Egress"}


@every_overlay
def test_quotas_in_a_shared_namespace_refuse_no_pod_of_kubeflows(overlay: str) -> None:
    shared = not of_kind(overlay, "Namespace")
    (quota,) = of_kind(overlay, "ResourceQuota")
    counted = [name for name in quota["spec"]["hard"] if any(fnmatch(name, one) for one in OF_ALL_PODS)]
    limits = of_kind(overlay, "LimitRange")
    if shared:
        assert (counted, limits) == ([], [])
    else:
        # What the quota counts, a container has that does not say so itself.
        (limit,) = (one for entry in limits for one in entry["spec"]["limits"])
        assert {name.removeprefix("requests.") for name in counted} == set(limit["defaultRequest"])


@every_overlay
def test_a_job_fits_into_the_quota(overlay: str) -> None:
    (quota,) = of_kind(overlay, "ResourceQuota")
    allowed = quota["spec"]["hard"].get("requests.nvidia.com/gpu")
    gpus = [asked_for.get("nvidia.com/gpu", "0") for asked_for in requests_of(rayjob(overlay))]
    assert allowed is None or sum(map(int, gpus)) <= int(allowed)


def test_only_a_namespace_of_our_own_is_told_how_secure_its_pods_are() -> None:
    labelled = [overlay for overlay in OVERLAYS if of_kind(overlay, "Namespace")]
    assert labelled == ["profile"]
    (namespace,) = of_kind("profile", "Namespace")
    levels = {key.rpartition("/")[2]: value for key, value in namespace["metadata"]["labels"].items()}
    assert levels == {"enforce": "restricted", "audit": "restricted", "warn": "restricted"}


@every_overlay
def test_pods_keep_the_restricted_standard(overlay: str) -> None:
    for pod in [*pods_of(rayjob(overlay)), doctor()["spec"]["template"]]:
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"]
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert {next(iter(set(volume) - {"name"})) for volume in pod["spec"].get("volumes", [])} <= {"emptyDir"}
        for container in pod["spec"]["containers"]:
            assert not container["securityContext"]["allowPrivilegeEscalation"]
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"] == container["resources"]["limits"]


def test_the_role_the_readmes_table_and_the_doctors_list_are_the_same() -> None:
    (role,) = of_kind("kind", "Role")
    given = {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert all("*" not in [*key, *verbs] for key, verbs in given.items())
    (table,) = re.findall(r"<!-- role -->\n(.*?)<!-- end -->", readme(), re.DOTALL)
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert {
        (group if group != "core" else "", resource): set(verbs.split(", ")) for group, resource, verbs, _ in rows
    } == given
    assert {(group, resource): set(verbs) for group, resource, verbs in RULES} == given


def test_the_store_is_that_of_the_pipelines() -> None:
    compiled = (Path(images.__file__).parents[1] / "pipelines" / "reproduce.yaml").read_text(encoding="utf-8")
    parameters = next(yaml.safe_load_all(compiled))["root"]["inputDefinitions"]["parameters"]
    (store,) = of_kind("kind", "ConfigMap")
    names = {
        "AWS_ENDPOINT_URL": "store_endpoint",
        "AWS_REGION": "store_region",
        "HEP2FLOW_BUCKET": "store_bucket",
        "HEP2FLOW_PREFIX": "store_prefix",
    }
    assert store["data"] == {name: parameters[parameter]["defaultValue"] for name, parameter in names.items()}


@every_overlay
def test_no_secret_is_in_what_is_applied(overlay: str) -> None:
    assert of_kind(overlay, "Secret") == []
    found = [
        path for one in built(overlay) for path, _ in leaves(one) if re.search("secret|password|token", path[-1], re.I)
    ]
    assert {path[-1] for path in found} <= {"automountServiceAccountToken"}
    assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY", "".join(path.read_text() for path in sources()))


def test_the_doctor_enters_the_store_by_name_and_runs_our_image() -> None:
    (container,) = doctor()["spec"]["template"]["spec"]["containers"]
    assert container["image"] == images.RAY
    assert {one["name"] for one in container["env"] if "value" in one} == {"HOME"}
    accounts = {one["metadata"]["name"] for one in of_kind("kind", "ServiceAccount")}
    assert doctor()["spec"]["template"]["spec"]["serviceAccountName"] in accounts
    maps = {one["metadata"]["name"] for one in of_kind("kind", "ConfigMap")}
    assert {one["configMapRef"]["name"] for one in container["envFrom"]} <= maps


def test_the_readme_names_only_what_is_there() -> None:
    for path in set(re.findall(r"\bk8s/[\w./-]*\w", readme())):
        assert (K8S.parent / path).exists(), path
    for overlay in OVERLAYS:
        assert f"k8s/overlays/{overlay}" in readme()


def doctor() -> dict[str, Any]:
    """The Job that runs the doctor in the cluster."""
    job: dict[str, Any] = yaml.safe_load((K8S / "doctor.yaml").read_text(encoding="utf-8"))
    return job


def readme() -> str:
    """The page of ``k8s/``."""
    return (K8S / "README.md").read_text(encoding="utf-8")


def sources() -> list[Path]:
    """Every file of ``k8s/``."""
    return [path for path in K8S.rglob("*") if path.is_file()]
