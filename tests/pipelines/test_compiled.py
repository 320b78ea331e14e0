"""The committed YAML is what the code compiles to, and holds nothing it must not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hep2flow.errors import UserError
from hep2flow.execution.kubeflow.compile import compile_pipeline, load_pipeline
from hep2flow.pipelines.side_by_side import side_by_side
from hep2flow.pipelines.unrolled import unrolled
from tests.test_cli import hep2flow

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["reproduce", "sweep"])
def test_the_committed_yaml_has_not_drifted(name: str, tmp_path: Path) -> None:
    compile_pipeline(load_pipeline(name), tmp_path / "fresh.yaml")
    committed = (ROOT / "pipelines" / f"{name}.yaml").read_text(encoding="utf-8")
    assert (tmp_path / "fresh.yaml").read_text(encoding="utf-8") == committed, (
        f"run `hep2flow compile {name} -o pipelines/{name}.yaml` and commit it"
    )


def test_a_laboratorys_registry_is_compiled_into_every_step_and_into_the_jobs_default(tmp_path: Path) -> None:
    answer = hep2flow(
        "compile", "reproduce", "-o", tmp_path / "ours.yaml", "--image", "registry.lab:5000/cells/hep2flow:3"
    )
    assert answer.code == 0, answer.err
    spec, _ = yaml.safe_load_all((tmp_path / "ours.yaml").read_text(encoding="utf-8"))
    images = {executor["container"]["image"] for executor in spec["deploymentSpec"]["executors"].values()}
    ray = "registry.lab:5000/cells/hep2flow/ray:3"
    assert images == {"registry.lab:5000/cells/hep2flow/step:3", ray}
    assert spec["root"]["inputDefinitions"]["parameters"]["cluster"]["defaultValue"] == {"image": ray}
    assert hep2flow("compile", "reproduce", "-o", tmp_path / "bad.yaml", "--image", "a/b@sha256:0").code == 2
    assert not (tmp_path / "bad.yaml").exists()


@pytest.mark.parametrize("name", ["reproduce", "sweep"])
def test_the_compiled_pipeline_holds_no_secret_and_no_local_path(name: str) -> None:
    text = (ROOT / "pipelines" / f"{name}.yaml").read_text(encoding="utf-8")
    for forbidden in (str(ROOT), str(Path.home()) + "/", "/home/", "127.0.0.1", "secret_key"):
        assert forbidden not in text
    credentials = [line.strip() for line in text.splitlines() if "AWS_" in line]
    assert set(credentials) == {"- envVar: AWS_ACCESS_KEY_ID", "- envVar: AWS_SECRET_ACCESS_KEY"}, "names, no value"


@pytest.mark.parametrize("name", ["reproduce", "sweep"])
def test_every_stage_is_a_task_and_nothing_is_nested_but_the_loop(name: str) -> None:
    document = next(yaml.safe_load_all((ROOT / "pipelines" / f"{name}.yaml").read_text(encoding="utf-8")))
    executors = {label.removeprefix("exec-") for label in document["deploymentSpec"]["executors"]}
    stages = {"begin", "ingest", "mask", "split", "train", "evaluate", "report"}
    assert executors == (stages if name == "reproduce" else stages | {"tune"})
    assert [label for label, one in document["components"].items() if "dag" in one] == ["comp-for-loop-1"]


def tasks_of(models: dict[str, str], tmp_path: Path) -> dict[str, Any]:
    name = "sweep" if any(models.values()) else "reproduce"
    compile_pipeline(unrolled(name, models), tmp_path / "unrolled.yaml")
    document = next(yaml.safe_load_all((tmp_path / "unrolled.yaml").read_text(encoding="utf-8")))
    assert not [label for label, one in document["components"].items() if "dag" in one], "a level is ten seconds"
    found: dict[str, Any] = document["root"]["dag"]["tasks"]
    return found


def longest(tasks: dict[str, Any], name: str) -> int:
    """Tasks one after another up to this one."""
    return 1 + max((longest(tasks, before) for before in tasks[name].get("dependentTasks", [])), default=0)


def test_each_model_has_tasks_of_its_own_name_side_by_side_with_the_others(tmp_path: Path) -> None:
    tasks = tasks_of({"convnext-b": "", "coat-mini": ""}, tmp_path)
    models = {f"{stage}-{model}" for stage in ("train", "evaluate") for model in ("convnext-b", "coat-mini")}
    assert set(tasks) == {"ingest", "mask", "split", "report"} | models
    assert longest(tasks, "report") == 5, "ingest, mask beside split, train, evaluate, report"


def test_sweeps_come_one_after_another_and_each_model_as_soon_as_its_own_is_over(tmp_path: Path) -> None:
    tasks = tasks_of({"a-tuned": "a", "b-tuned-seed-1": "b", "b-tuned-seed-2": "b", "a": ""}, tmp_path)
    assert tasks["tune-b"]["dependentTasks"] == ["mask", "split", "tune-a"]
    assert "tune-b" not in tasks["train-a-tuned"]["dependentTasks"]
    assert {"tune-a", "tune-b"}.isdisjoint(tasks["train-a"]["dependentTasks"])
    assert {task for task in tasks if task.startswith("train-")} == {
        "train-a-tuned", "train-b-tuned-seed-1", "train-b-tuned-seed-2", "train-a"
    }  # fmt: skip


def test_two_models_that_are_one_name_to_kubeflow_are_refused() -> None:
    with pytest.raises(UserError, match="x and x-driver are one name"):
        unrolled("reproduce", {"x": "", "x-driver": ""})


def test_on_one_machine_models_are_iterations_of_a_loop_which_alone_run_side_by_side(tmp_path: Path) -> None:
    compile_pipeline(side_by_side(["convnext-b", "coat-mini"]), tmp_path / "local.yaml")
    document = next(yaml.safe_load_all((tmp_path / "local.yaml").read_text(encoding="utf-8")))
    (loop,) = (
        task["parameterIterator"]["items"]["raw"]
        for component in document["components"].values()
        for task in component.get("dag", {}).get("tasks", {}).values()
        if "parameterIterator" in task
    )
    assert json.loads(loop) == ["convnext-b", "coat-mini"]
