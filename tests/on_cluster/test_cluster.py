"""What only a cluster can show: manifests are taken, rights are enough and no more, jobs come to their end."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hep2flow.execution.job_spec import JobOutcome, JobSpec
from hep2flow.execution.kubernetes.doctor import RULES, STEP
from hep2flow.execution.kubernetes.rayjob_state import has_succeeded, is_over
from hep2flow.process import EXIT_TERMINATED
from hep2flow.recipe import load_recipe
from hep2flow.search.settings import SweepSettings
from hep2flow.search.trials import read_trials
from hep2flow.sources.synthetic import write_twin
from hep2flow.stages.ingest import ingest
from hep2flow.stages.masked_variant import masked_variant
from hep2flow.stages.split import split
from hep2flow.store import layout
from hep2flow.store.datasets import open_dataset
from hep2flow.store.publish import find_published
from hep2flow.store.runs import RunRecord, StageRecord, show_run, start_run
from hep2flow.store.s3 import Store
from tests.on_cluster.follower import Follower, pod
from tests.on_cluster.kubectl import kubectl, may
from tests.on_cluster.overlay import Overlay

KILLED = 137
ELSEWHERE = "kube-system"  # where no step has any business
# Neither our Role has it, nor the one that Kubeflow Pipelines gives to its steps.
MORE = (("ray.io", "rayjobs", "update"), ("ray.io", "rayjobs", "patch"), ("ray.io", "rayclusters", "create"))
# A follower's heartbeat is old after 3 minutes, its job looks three times, 30 s apart, and may save for 2 minutes; then it
# ends well, so that KubeRay begins nothing again.
LEASE_SECONDS = 600.0

SPECIMENS = 12
# Seconds of one processor, from scratch.
TINY = ("model.network=test_convnext", "model.layer_scale=null", "model.image_size=32", "eval.tta=none")
SHORT = ("train.max_updates=6",)
ENDLESS = ("train.epochs=1000000", "train.max_updates=null")

Asked = Callable[..., JobSpec]
Follow = Callable[[JobSpec], Follower]


@pytest.fixture
def asked(store: Store, tmp_path: Path) -> Asked:
    """Makes specifications: a tiny network on generated cells, for a run that has begun."""

    def specify(*overrides: str, seed: int = 0, sweep: SweepSettings | None = None) -> JobSpec:
        run, recipe = f"test-{secrets.token_hex(4)}", load_recipe("convnext-b", "laptop", [*TINY, *overrides])
        write_twin(tmp_path / run, seed=seed, specimens=SPECIMENS)
        dataset = masked_variant(store, ingest(store, str(tmp_path / run)).uri, recipe.data)
        division = split(store, dataset, recipe.data.split).uri
        start_run(store, RunRecord(run_id=run))
        return JobSpec(run_id=run, recipe=recipe, dataset=dataset, split=division, sweep=sweep)

    return specify


@pytest.fixture
def follow(overlay: Overlay, store: Store) -> Iterator[Follow]:
    """Starts followers; whatever becomes of them, neither they nor their jobs outlive the test."""
    seen_by_pods = overlay.store.model_copy(update={"prefix": store.address.prefix})
    started: list[Follower] = []

    def start(specification: JobSpec) -> Follower:
        started.append(Follower(pod(overlay, seen_by_pods, specification)))
        return started[-1]

    yield start
    for follower in started:
        try:
            print(follower.log())  # shown where the test failed
        finally:
            follower.clean_up()


def test_the_manifests_are_as_they_were_applied(overlay: Overlay) -> None:
    again = kubectl("apply", "-k", str(overlay.folder)).splitlines()
    assert again
    assert [line for line in again if not line.endswith(" unchanged")] == []


def test_a_step_may_do_what_it_does_and_rays_pods_may_do_nothing(overlay: Overlay) -> None:
    step, ray = (f"{overlay.namespace}:{name}" for name in (overlay.account, overlay.options.service_account))
    needed = {(group, resource, verb) for group, resource, verbs in RULES for verb in verbs}
    denied = {("", "secrets", "get"), ("", "pods", "create"), *MORE}

    def allowed(account: str, asked: set[tuple[str, str, str]], namespace: str) -> set[tuple[str, str, str]]:
        return {one for one in asked if may(account, one[2], *one[:2], namespace)}

    assert allowed(step, needed, overlay.namespace) == needed
    assert allowed(step, needed | denied, ELSEWHERE) == set()
    assert allowed(ray, needed | denied, overlay.namespace) == set()
    if overlay.account == STEP:  # a Kubeflow with users runs steps as an account that may more
        assert allowed(step, set(MORE), overlay.namespace) == set()


def test_a_training_succeeds_and_its_follower_returns_what_the_store_holds(
    store: Store, asked: Asked, follow: Follow
) -> None:
    said = asked(*SHORT)
    follower = follow(said)
    assert follower.ended() == 0
    record = record_of(store, said.run_id)
    outcome = JobOutcome.read(store, said)
    assert outcome is not None
    assert outcome.result is not None
    assert record.result == outcome.result.model_dump(mode="json")
    assert find_published(store, store.key(outcome.result.uri)) is not None
    assert outcome.result.summary["updates"] == 6
    (job,) = follower.jobs()
    assert has_succeeded(job)
    assert store.get_bytes(layout.log_key(said.run_id, job["metadata"]["name"]))
    follower.leaves_nothing_running()


def test_a_training_fails_and_its_follower_says_why(store: Store, asked: Asked, follow: Follow) -> None:
    said = asked(*SHORT, seed=1)  # cells of its own
    parts = open_dataset(store, said.dataset).manifest["parts"]
    damaged = next(part["file"] for part in parts if part["official_split"] == "train")
    key = f"{store.key(said.dataset)}/{damaged}"
    store.put_bytes(key, b"\0" * store.size(key))  # whoever has to read it is told, and a step has not
    follower = follow(said)
    assert follower.ended() == 2
    *before, last = follower.log().splitlines()
    assert [line for line in before if line.startswith("RayJob h2-")], "it came to a job"
    assert last.startswith("hep2flow: ")
    assert damaged in last
    record = record_of(store, said.run_id)
    assert (record.status, record.mendable) == ("failed", True)
    follower.jobs_are_over()
    follower.leaves_nothing_running()


def test_a_training_that_is_cancelled_is_deleted(store: Store, asked: Asked, follow: Follow) -> None:
    said = asked(*ENDLESS)
    follower = follow(said)
    follower.works()
    follower.send("TERM", record_of(store, said.run_id).pid)
    assert follower.ended() == EXIT_TERMINATED
    follower.jobs_are_gone()
    assert record_of(store, said.run_id).status == "interrupted"
    follower.leaves_nothing_running()


def test_a_training_whose_followers_pod_is_deleted_goes_on_and_the_next_one_adopts_it(
    store: Store, asked: Asked, follow: Follow
) -> None:
    said = asked(*ENDLESS, "train.seed=2")  # a training of its own
    first = follow(said)
    before = first.works()
    first.is_evicted()
    assert record_of(store, said.run_id).status == "running", "the job's lease lasts"
    second = follow(said)
    after = second.works()
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    second.send("TERM", record_of(store, said.run_id).pid)
    assert second.ended() == EXIT_TERMINATED
    second.jobs_are_gone()
    second.leaves_nothing_running()


def test_a_training_whose_follower_is_killed_ends_itself(store: Store, asked: Asked, follow: Follow) -> None:
    said = asked(*ENDLESS, "train.seed=1")  # a training of its own
    follower = follow(said)
    follower.works()
    follower.send("KILL", record_of(store, said.run_id).pid)
    assert follower.ended() == KILLED
    (job,) = follower.jobs()
    assert not is_over(job), "nobody was left to end it"
    follower.jobs_are_over(LEASE_SECONDS)
    follower.leaves_nothing_running()
    assert set(show_run(store, said.run_id).stage_status.values()) == {"lost"}
    prefix = layout.output_prefix("train", str(record_of(store, said.run_id).key))
    assert [item for item in store.list_objects(prefix) if "/resume/" in item.key], "its state was saved"


def test_a_sweep_of_four_trials_succeeds(store: Store, asked: Asked, follow: Follow) -> None:
    space = "search.space={optim.lr: {loguniform: [1.0e-4, 1.0e-1]}}"
    small = ("train.max_updates=null", "train.epochs=4", "train.validate_every=1", "search.length=1")
    said = asked(*small, space, sweep=SweepSettings(trials=4, judge=0))
    assert follow(said).ended() == 0
    record = record_of(store, said.run_id)
    trials = read_trials(store, str(record.key))
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert {trial.status for trial in trials} <= {"finished", "stopped"}
    assert record.result["summary"]["trials"] == 4
    assert find_published(store, store.key(record.result["uri"])) is not None


def record_of(store: Store, run_id: str) -> StageRecord:
    """The record of a run's only stage."""
    (record,) = show_run(store, run_id).stages
    return record
