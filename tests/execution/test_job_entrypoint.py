"""What a job on a cluster does: the command it runs, the word it leaves, and its end when nobody follows it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from hep2flow.errors import UserError
from hep2flow.execution.dispatch import run_on_engine
from hep2flow.execution.job_spec import JobOutcome, JobSpec, read_spec
from hep2flow.execution.kubernetes import client, job_entrypoint
from hep2flow.execution.kubernetes.job_entrypoint import run_job
from hep2flow.execution.kubernetes.lease import is_abandoned
from hep2flow.process import TerminatedError
from hep2flow.recipe import parse_recipe
from hep2flow.search.settings import SweepSettings
from hep2flow.stage_result import StageResult
from hep2flow.store import layout
from hep2flow.store.publish import find_published
from hep2flow.store.runs import StageRecord, now
from hep2flow.store.s3 import Store
from hep2flow.store.stage_recorder import running_stage
from tests.execution.double import BEGUN, SUCCEEDED, Double, serving
from tests.stages.test_train import prepared, tiny

SECONDS = 240


def asked(store: Store, folder: Path, *overrides: str) -> JobSpec:
    recipe = tiny(*overrides)
    dataset, split = prepared(store, folder, recipe)
    return JobSpec(run_id="monday", recipe=recipe, dataset=dataset, split=split)


def run(entrypoint: str) -> subprocess.CompletedProcess[str]:
    """A job's entry point, as Ray's job manager would run it."""
    command = [sys.executable, "-m", "hep2flow.cli", *shlex.split(entrypoint)[1:]]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


def test_the_step_trains_through_a_job_and_a_second_time_asks_kubernetes_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes is an HTTP double; the training is real, by the command that the RayJob names."""
    said, double = asked(store, tmp_path), Double()
    done: list[subprocess.CompletedProcess[str]] = []

    def work() -> None:
        (made,) = double.jobs.values()
        done.append(run(made["spec"]["entrypoint"]))

    double.script = [*BEGUN, work, *SUCCEEDED]
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(client, "READ_SECONDS", SECONDS)  # the double says nothing while the job works
    with serving(double, tmp_path) as config:
        monkeypatch.setenv("KUBECONFIG", str(config))
        with running_stage(store, "monday", "train", said.recipe.name) as record:
            result = run_on_engine("rayjob", {}, store, said, record)
        assert done[0].returncode == 0, done[0].stderr
        assert find_published(store, store.key(result.uri)) is not None
        assert (result.stage, result.uri) == ("train", store.uri(layout.output_prefix("train", str(record.key))))
        assert result.summary["updates"] == 6
        double.requests.clear()
        with running_stage(store, "monday", "train", said.recipe.name) as record:
            again = run_on_engine("rayjob", {}, store, said, record)
    assert again.cached
    assert again.uri == result.uri
    assert double.requests == []


def test_an_evaluation_that_wants_no_gpu_stays_in_the_step_and_a_job_gives_the_same(
    store: Store, tmp_path: Path
) -> None:
    """The job is its real command, on a local Ray; there is no Kubernetes anywhere."""
    said = asked(store, tmp_path)
    with running_stage(store, "monday", "train", said.recipe.name) as record:
        training = run_on_engine("local", {}, store, said, record)
    said = said.model_copy(update={"training": training.uri})
    done = run(f"hep2flow evaluate --spec {said.write(store)}")
    assert done.returncode == 0, done.stderr
    outcome = JobOutcome.read(store, said)
    assert outcome is not None
    assert outcome.result is not None
    elsewhere = store.get_json(f"{store.key(outcome.result.uri)}/metrics.json")
    store.delete_folder(layout.output_prefix("evaluate", outcome.result.key))
    store.delete([layout.cache_key("evaluate", outcome.result.key)])
    with running_stage(store, "monday", "evaluate", said.recipe.name) as record:
        here = run_on_engine("rayjob", {}, store, said, record)
    assert not here.cached
    metrics = store.get_json(f"{store.key(here.uri)}/metrics.json")
    for told in (elsewhere, metrics):
        del told["timing"]
    assert metrics == elsewhere


def test_a_job_whose_error_is_the_users_to_mend_ends_well_so_that_nobody_tries_it_again(
    store: Store, tmp_path: Path
) -> None:
    said = asked(store, tmp_path, "resources.gpus_per_worker=64")
    told = run(f"hep2flow train --spec {said.write(store)}")
    assert told.returncode == 0
    assert "Traceback" not in told.stderr
    assert "the recipe asks for 64 GPUs" in told.stderr
    outcome = JobOutcome.read(store, said)
    assert outcome is not None
    assert outcome.mendable
    assert "resources.gpus_per_worker" in outcome.error
    assert outcome.result is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "--spec", "{uri}", "--recipe", "convnext-b"], "--spec says everything; leave out --recipe"),
        (["tune", "--spec", "{uri}", "--set", "optim.lr=1"], "--spec says everything; leave out --set"),
        (["train", "--dataset", "s3://x/y"], "--recipe, --split missing"),
        (["tune", "--recipe", "a", "--dataset", "b", "--split", "c"], "--trials missing"),
        (["train", "--spec", "s3://elsewhere/spec.json"], "lies outside this store"),
    ],
)
def test_what_does_not_go_with_a_specification_is_refused(store: Store, arguments: list[str], told: str) -> None:
    command = [sys.executable, "-m", "hep2flow.cli", *(text.format(uri=store.uri("x.json")) for text in arguments)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert answer.returncode == 2
    assert told in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


def test_a_specification_comes_back_as_it_was_written(store: Store) -> None:
    """The order of a search space too: what a key depends on stands before it."""
    space = {
        "optim.weight_decay": {"choice": [0, 0.1]},
        "optim.lr": {"loguniform": [1e-6, 1e-3], "when": {"optim.weight_decay": [0]}},
    }
    recipe = parse_recipe({**tiny().model_dump(mode="json"), "search": {"space": space}}, "test")
    said = JobSpec(run_id="monday", recipe=recipe, dataset="s3://b/d", split="s3://b/s", sweep=SweepSettings(trials=2))
    read = read_spec(store, said.write(store))
    assert read == said
    assert list(read.recipe.search.space) == list(space)
    assert read.digest == said.digest


@pytest.mark.parametrize(
    ("change", "told"),
    [({"recipe": None}, "recipe is damaged"), ({"split": "s3://b/other"}, "another version of hep2flow than this one")],
)
def test_a_specification_that_is_not_what_was_written_is_told(
    store: Store, change: dict[str, str | None], told: str
) -> None:
    said = JobSpec(run_id="monday", recipe=tiny(), dataset="s3://b/d", split="s3://b/s")
    key = layout.spec_key(said.run_id, said.digest)
    store.put_json(key, {**said.model_dump(mode="json"), **change})
    with pytest.raises(UserError, match=told):
        read_spec(store, store.uri(key))


def test_an_engine_that_is_none_is_refused(store: Store, tmp_path: Path) -> None:
    said = JobSpec(run_id="monday", recipe=tiny(), dataset="s3://b/d", split="s3://b/s")
    with pytest.raises(UserError, match=r"engine: local .* or rayjob, not 'moon'"):
        run_on_engine("moon", {}, store, said, StageRecord(run_id="monday", stage="train"))


def test_a_job_whose_step_has_ended_does_not_even_begin(store: Store) -> None:
    said = JobSpec(run_id="monday", recipe=tiny(), dataset="s3://b/d", split="s3://b/s")
    with running_stage(store, "monday", "train", said.recipe.name):
        pass
    told = run(f"hep2flow train --spec {said.write(store)}")
    assert told.returncode == 0, "a failure would be begun again, and ask for the GPUs once more"
    assert "has ended or gives no sign of life" in told.stderr
    assert JobOutcome.read(store, said) == JobOutcome(abandoned=True)


@pytest.mark.parametrize(
    ("engine", "cluster", "told"),
    [
        ("ray", {}, "cluster.address: goes with engine ray"),
        ("rayjob", {"address": "ray.example:10001"}, "cluster.address: goes with engine ray"),
        ("ray", {"address": "somewhere"}, "cluster.address: "),
        ("ray", {"address": "127.0.0.1:1"}, "Ray at 127.0.0.1:1 cannot be reached"),
    ],
)
def test_a_ray_cluster_is_named_and_has_to_be_there(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, cluster: dict[str, str], told: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")  # so that it is as before afterwards
    with pytest.raises(UserError, match=told):
        run_on_engine(engine, cluster, store, asked(store, tmp_path), StageRecord(run_id="monday", stage="train"))


def test_a_job_is_abandoned_when_its_step_is_silent_or_has_ended(store: Store) -> None:
    said = JobSpec(run_id="monday", recipe=tiny(), dataset="s3://b/d", split="s3://b/s")
    key = layout.stage_record("monday", "train", said.recipe.name)
    assert not is_abandoned(store, said)  # started by hand: nobody keeps a record
    record = StageRecord(run_id="monday", stage="train", model=said.recipe.name)
    store.put_json(key, record.model_dump(mode="json"))
    assert not is_abandoned(store, said)
    silent = record.model_copy(update={"heartbeat": now() - timedelta(minutes=4)})
    store.put_json(key, silent.model_dump(mode="json"))
    assert is_abandoned(store, said)
    ended = record.model_copy(update={"status": "interrupted"})
    store.put_json(key, ended.model_dump(mode="json"))
    assert is_abandoned(store, said)


LEASED = """
import sys
from hep2flow.execution.kubernetes import lease
lease.CHECK_SECONDS = 0.1
from hep2flow.cli import main
sys.argv = ["hep2flow", *sys.argv[1:]]
main()
"""


def test_a_training_whose_step_was_killed_saves_and_ends_itself(store: Store, tmp_path: Path) -> None:
    said = asked(store, tmp_path, "train.epochs=500", "train.max_updates=null", "model.image_size=32")
    key = layout.stage_record("monday", "train", said.recipe.name)
    record = StageRecord(run_id="monday", stage="train", model=said.recipe.name)
    store.put_json(key, record.model_dump(mode="json"))
    process = subprocess.Popen(
        [sys.executable, "-c", LEASED, "train", "--spec", said.write(store)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HEP2FLOW_LOG": "json"},
    )
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith("{") and json.loads(line).get("epoch", 0) >= 1:
            break
    else:
        pytest.fail("".join(seen))
    silent = record.model_copy(update={"heartbeat": now() - timedelta(minutes=4)})
    store.put_json(key, silent.model_dump(mode="json"))
    _, told = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, told
    assert "gives no sign of life" in told
    assert "the state is saved" in told
    assert [item for item in store.list_objects("trainings") if "/resume/" in item.key]
    assert JobOutcome.read(store, said) == JobOutcome(abandoned=True)


def test_a_specification_of_another_version_is_told_to_whoever_follows(store: Store) -> None:
    said = JobSpec(run_id="monday", recipe=tiny(), dataset="s3://b/d", split="s3://b/s")
    uri = said.write(store)
    store.put_json(store.key(uri), {**said.model_dump(mode="json"), "split": "s3://b/other"})
    assert run_job(store, uri) is None
    outcome = JobOutcome.read(store, said)
    assert outcome is not None
    assert outcome.mendable
    assert "another version of hep2flow" in outcome.error


def test_a_job_that_fails_by_our_defect_leaves_word_and_fails_so_that_kuberay_begins_it_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = JobSpec(run_id="monday", recipe=tiny(), dataset="s3://b/d", split="s3://b/s")

    def break_down(*_: object) -> StageResult:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(job_entrypoint, "run_spec", break_down)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        run_job(store, said.write(store))
    outcome = JobOutcome.read(store, said)
    assert outcome is not None
    assert not outcome.mendable
    assert outcome.error == "RuntimeError: CUDA error: an illegal memory access was encountered"


def test_a_job_that_is_terminated_says_nothing_of_its_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pod was taken away: it begins again where it was, and what an earlier one said is not true of it."""
    said = JobSpec(run_id="monday", recipe=tiny(), dataset="s3://b/d", split="s3://b/s")

    def terminated(*_: object) -> StageResult:
        raise TerminatedError

    uri = said.write(store)
    JobOutcome(error="worse", mendable=True).write(store, uri)
    monkeypatch.setattr(job_entrypoint, "run_spec", terminated)
    with pytest.raises(TerminatedError):
        run_job(store, uri)
    assert JobOutcome.read(store, said) is None
