"""A training or a sweep as a RayJob: what any valid recipe and any valid options give is held against KubeRay's CRD."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hep2flow.errors import UserError
from hep2flow.execution.job_spec import JobSpec
from hep2flow.execution.kubernetes.cluster_options import (
    NO_SECRET,
    ClusterOptions,
    Toleration,
    parse_cluster_options,
    with_secret,
)
from hep2flow.execution.kubernetes.rayjob import DIGEST_ANNOTATION, RAY_VERSION, RayJob, worker_pods
from hep2flow.recipe import Recipe, Resources, load_recipe
from hep2flow.recipe.schema import Workers
from hep2flow.search.settings import SweepSettings
from hep2flow.store.address import StoreAddress
from tests.k8s import crds

ROOT = Path(__file__).parents[2]
STORE = StoreAddress(endpoint="http://seaweedfs.kubeflow:9000", bucket="mlpipeline", prefix="hep2flow")
URI = "s3://mlpipeline/hep2flow/runs/monday/specs/0123.json"
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")

names = st.sampled_from(["a", "0", "convnext-b", "x" * 40, "a--b-seed-2147483647", "20260131-174501-5f0c9a"])
shares = st.integers(0, 8) | st.sampled_from([0.1, 0.25, 0.3, 0.5, 0.75])
resources = st.builds(
    lambda low, more, cpus, gpus, memory: Resources(
        workers=Workers(min=low, max=low + more),
        cpus_per_worker=cpus,
        gpus_per_worker=gpus,
        memory_per_worker=memory,
    ),
    st.integers(1, 8),
    st.integers(0, 8),
    st.integers(1, 64),
    shares,
    st.integers(1, 512),
)
PAPER = load_recipe("convnext-b", "paper")
recipes = st.builds(
    lambda name, seed, asked: PAPER.model_copy(
        update={"name": name, "train": PAPER.train.model_copy(update={"seed": seed}), "resources": asked}
    ),
    names,
    st.integers(0, 2**31),
    resources,
)
sweeps = st.none() | st.builds(SweepSettings, trials=st.integers(1, 500), concurrency=st.integers(0, 50))
data = {"dataset": "s3://mlpipeline/hep2flow/datasets/x/1", "split": "s3://mlpipeline/hep2flow/splits/1.parquet"}
places = {name: st.just(uri) for name, uri in data.items()}
specifications = st.builds(JobSpec, run_id=names, recipe=recipes, sweep=sweeps, **places) | st.builds(
    JobSpec, run_id=names, recipe=recipes, training=st.just("s3://mlpipeline/hep2flow/trainings/1"), **places
)
tolerations = st.builds(
    Toleration,
    key=st.just("nvidia.com/gpu"),
    operator=st.sampled_from(["Exists", "Equal"]),
    value=st.sampled_from(["", "present"]),
    effect=st.sampled_from(["", "NoSchedule", "NoExecute"]),
)
options = st.builds(
    ClusterOptions,
    namespace=st.just("") | names,
    image=st.sampled_from(["hep2flow/ray:1", "registry.example:5000/hep2flow/ray@sha256:" + 64 * "0"]),
    pull_secret=st.just("") | names,
    secret=st.just("") | names,
    service_account=st.just("") | names,
    queue=st.just("") | names,
    priority=st.just("") | names,
    node_selector=st.dictionaries(st.just("cloud.example/gpu"), names, max_size=1),
    tolerations=st.lists(tolerations, max_size=2).map(tuple),
    spot=st.sampled_from(["", "cloud.example/spot"]),
    user=st.integers(1, 2**31 - 1),
    retries=st.integers(0, 5),
    waiting_seconds=st.integers(1, 10**6),
    deadline_seconds=st.integers(1, 10**6),
    ray_token=st.booleans(),
)
jobs = st.builds(
    RayJob,
    specifications,
    st.just(URI),
    st.just(STORE),
    options,
    attempt=st.integers(1, 100),
)


def pod_specs(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cluster = manifest["spec"]["rayClusterSpec"]
    for template in (
        manifest["spec"]["submitterPodTemplate"],
        cluster["headGroupSpec"]["template"],
        *(group["template"] for group in cluster["workerGroupSpecs"]),
    ):
        assert set(template["metadata"]["labels"]) >= {"app.kubernetes.io/part-of", "hep2flow/job"}
        assert template["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
        yield template["spec"]


def job(recipe: Recipe | None = None, sweep: SweepSettings | None = None, training: str = "", **choices: Any) -> RayJob:
    read = recipe or load_recipe("convnext-b", "paper")
    said = JobSpec(run_id="monday", recipe=read, dataset="s3://b/d", split="s3://b/s", sweep=sweep, training=training)
    return RayJob(said, URI, STORE, parse_cluster_options(choices))


@given(jobs)
def test_kuberay_takes_whatever_a_valid_recipe_and_valid_options_give(job: RayJob) -> None:
    assert crds.faults(job.to_manifest(), crds.folder()) == []


@given(jobs)
def test_the_submitter_starts_without_rays_command_line_and_every_ray_pod_is_ready_as_soon_as_ray_is(
    job: RayJob,
) -> None:
    manifest = job.to_manifest()
    submitter, *ray_pods = (spec["containers"][0] for spec in pod_specs(manifest))
    python, flag, module, entrypoint = submitter["command"]
    assert (python, flag, entrypoint) == ("python", "-m", manifest["spec"]["entrypoint"])
    assert importlib.util.find_spec(module)
    for container in ray_pods:
        assert container["readinessProbe"]["httpGet"] == {"path": "/api/healthz", "port": 52365}
        assert container["readinessProbe"]["initialDelaySeconds"] == 1


@given(jobs)
def test_a_job_of_a_queue_gives_its_nodes_back_with_its_quota(job: RayJob) -> None:
    assert job.to_manifest()["spec"]["ttlSecondsAfterFinished"] == (0 if job.options.queue else job.options.ttl_seconds)


@given(jobs)
def test_names_and_labels_are_within_the_limits(job: RayJob) -> None:
    metadata = job.to_manifest()["metadata"]
    assert re.fullmatch(r"[a-z]([a-z0-9-]{0,45}[a-z0-9])?", metadata["name"])
    assert metadata["annotations"][DIGEST_ANNOTATION] == job.spec.digest
    assert "ownerReferences" not in metadata, "a job outlives the pod of its step"
    for value in metadata["labels"].values():
        assert LABEL_VALUE.fullmatch(value), value


@given(jobs)
def test_every_pod_is_restricted_and_gets_what_it_asks_for_and_no_more(job: RayJob) -> None:
    for pod in pod_specs(job.to_manifest()):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {"cpu", "memory"} <= set(container["resources"]["limits"])
        security = container["securityContext"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True)


@given(jobs)
def test_credentials_are_named_and_never_written(job: RayJob) -> None:
    found = 0
    for pod in pod_specs(job.to_manifest()):
        for variable in pod["containers"][0]["env"]:
            if variable["name"] in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                assert set(variable) == {"name", "valueFrom"}
                assert variable["valueFrom"]["secretKeyRef"]["name"] == job.options.secret
                found += 1
    assert found == (4 if job.options.secret else 0)  # of the head and the workers; the submitter has no use for them


@given(jobs)
def test_the_workers_of_the_recipe_fit_into_the_pods_and_the_head_trains_nothing(job: RayJob) -> None:
    cluster = job.to_manifest()["spec"]["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    resources, sweep = job.spec.recipe.resources, job.spec.sweep
    at_once = 1 if sweep is None else min(sweep.trials, sweep.concurrency or job.options.trials_at_once)
    wanted = 1 if job.spec.stage == "evaluate" else at_once * resources.workers.max
    each = int(limits["cpu"]) // resources.cpus_per_worker
    if resources.gpus_per_worker:
        each = min(each, int(int(limits["nvidia.com/gpu"]) / resources.gpus_per_worker + 1e-9))
    assert each * group["replicas"] >= wanted
    assert each * (group["replicas"] - 1) < wanted  # and no pod is idle
    assert group["minReplicas"] <= group["replicas"] == group["maxReplicas"]
    assert group["minReplicas"] == group["replicas"] or not job.options.queue
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_same_attempt_has_the_same_name_and_another_one_has_not() -> None:
    first = job()
    assert first.name == job(image="other/image:2").name
    others = {
        RayJob(first.spec, URI, STORE, first.options, attempt=2).name,
        job(load_recipe("convnext-b", "paper", ["train.seed=1"])).name,
        job(load_recipe("coat-mini", "paper")).name,
        job(sweep=SweepSettings(trials=4)).name,
        job(training="s3://b/t").name,
    }
    assert len(others) == 5
    assert first.name not in others


def test_the_entry_point_is_a_command_of_ours_that_no_shell_reads_otherwise() -> None:
    assert job().to_manifest()["spec"]["entrypoint"] == f"hep2flow train --spec {URI}"
    assert job(sweep=SweepSettings(trials=4)).to_manifest()["spec"]["entrypoint"] == f"hep2flow tune --spec {URI}"
    assert job(training="s3://b/t").to_manifest()["spec"]["entrypoint"] == f"hep2flow evaluate --spec {URI}"
    said = job().spec
    for uri in ("s3://bucket/a b/spec.json", "s3://bucket/$(id)/spec.json", "s3://bucket/'/spec.json"):
        with pytest.raises(UserError, match="store_prefix"):
            RayJob(said, uri, STORE, ClusterOptions()).to_manifest()


def test_only_workers_with_gpus_go_to_gpu_nodes_and_spot_is_for_all_of_them() -> None:
    chosen = {"node_selector": {"gpu": "a100"}, "spot": "cloud.example/spot"}
    with_gpu = list(pod_specs(job(**chosen).to_manifest()))
    assert [("nodeSelector" in pod, "tolerations" in pod) for pod in with_gpu] == [(False, False)] * 2 + [(True, True)]
    without = job(load_recipe("convnext-b", "laptop"), **chosen)
    *_, worker = pod_specs(without.to_manifest())
    assert "nodeSelector" not in worker
    assert worker["tolerations"] == [{"key": "cloud.example/spot", "operator": "Exists"}]


def test_kueue_gets_its_labels_and_a_number_of_workers_that_does_not_change() -> None:
    recipe = load_recipe("convnext-b", "paper", ["resources.workers.min=1", "resources.workers.max=4"])
    queued = job(recipe, queue="laboratory", priority="low")
    labels = queued.to_manifest()["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "laboratory"
    assert labels["kueue.x-k8s.io/priority-class"] == "low"
    assert worker_pods(queued.spec, queued.options) == (4, 4)
    free = job(recipe, priority="low")
    assert worker_pods(free.spec, free.options) == (1, 4)
    assert all(pod["priorityClassName"] == "low" for pod in pod_specs(free.to_manifest()))


@pytest.mark.parametrize(
    ("given", "of_a_sweep"), [({}, "high"), ({"sweep_priority": "low"}, "low")], ids=["no priority of its own", "low"]
)
def test_a_sweep_has_a_priority_of_its_own_where_one_is_named(given: dict[str, str], of_a_sweep: str) -> None:
    """Trials of a night leave room for the training that somebody waits for."""
    chosen = {"queue": "laboratory", "priority": "high", **given}
    sweep = job(load_recipe("convnext-b", "paper"), SweepSettings(trials=4), **chosen)
    for one, priority in ((job(**chosen), "high"), (sweep, of_a_sweep)):
        assert one.to_manifest()["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == priority


def test_four_trials_that_share_a_gpu_share_a_pod() -> None:
    recipe = load_recipe("convnext-b", "paper", ["resources.gpus_per_worker=0.25"])
    shared = job(recipe, SweepSettings(trials=200, concurrency=16))
    assert worker_pods(shared.spec, shared.options) == (1, 4)


def test_the_image_has_the_ray_that_kuberay_is_told() -> None:
    assert f"ray=={RAY_VERSION}" in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert metadata.version("ray") == RAY_VERSION


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"quue": "x"}, r"cluster\.quue: .*\(its keys: namespace, image"),
        ({"image": "a b"}, r"cluster\.image: "),
        ({"user": 0}, r"cluster\.user: "),
        ({"tolerations": [{"operator": "Exists"}]}, r"cluster\.tolerations\.0\.key: "),
    ],
)
def test_options_that_no_cluster_has_are_refused_with_their_key(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        parse_cluster_options(wrong)


def test_an_evaluation_is_one_pod_however_many_workers_trained() -> None:
    recipe = load_recipe("convnext-b", "paper", ["resources.workers=4"])
    asked = job(recipe, training="s3://b/t")
    assert worker_pods(asked.spec, asked.options) == (1, 1)


def test_a_pipeline_names_its_secret_once() -> None:
    assert with_secret({"queue": "gpu"}, "mine") == {"queue": "gpu", "secret": "mine"}
    assert parse_cluster_options(with_secret({}, NO_SECRET)).secret == ""
    with pytest.raises(UserError, match="store_secret says it"):
        with_secret({"secret": "other"}, "mine")


def test_numbers_are_numbers_again_after_kubeflow_made_them_floats() -> None:
    assert parse_cluster_options({"waiting_seconds": 60.0}).waiting_seconds == 60
