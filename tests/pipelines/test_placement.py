"""What every task asks of Kubernetes, read from the committed YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hep2flow.pipelines.placement import SECRET_KEYS, USER

ROOT = Path(__file__).parents[2]


def documents(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    pipeline, platform = yaml.safe_load_all((ROOT / "pipelines" / f"{name}.yaml").read_text(encoding="utf-8"))
    return pipeline, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def containers(pipeline: dict[str, Any]) -> dict[str, Any]:
    """Executor -> container, of the tasks that have one; an importer has none."""
    executors = pipeline["deploymentSpec"]["executors"]
    return {name: executor["container"] for name, executor in executors.items() if "container" in executor}


def tasks(pipeline: dict[str, Any]) -> dict[str, Any]:
    """Task -> its specification, of every task that runs a container, however deep it lies."""
    found = {}
    for component in (pipeline["root"], *pipeline["components"].values()):
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            label = pipeline["components"][task["componentRef"]["name"]].get("executorLabel", "")
            if label in containers(pipeline):
                found[f"{label}/{name}"] = task
    return found


pipelines = pytest.mark.parametrize("name", ["reproduce", "sweep"])


@pipelines
def test_every_step_enters_the_store_by_the_name_of_a_secret_and_nothing_else(name: str) -> None:
    pipeline, platform = documents(name)
    assert set(platform) == set(containers(pipeline))
    for settings in platform.values():
        (secret,) = settings["secretAsEnv"]
        assert {entry["secretKey"]: entry["envVar"] for entry in secret["keyToEnv"]} == SECRET_KEYS
        assert secret["secretNameParameter"]["componentInputParameter"].endswith("store_secret")
        assert secret["optional"], "where the service account has the right itself there is no Secret"


@pipelines
def test_every_step_keeps_the_restricted_standard_and_ends_some_day(name: str) -> None:
    _, platform = documents(name)
    for settings in platform.values():
        assert settings["securityContext"] == {
            "runAsUser": str(USER),
            "runAsGroup": str(USER),
            "runAsNonRoot": True,
        }
        assert 0 < int(settings["activeDeadlineSeconds"]) <= 7 * 24 * 3600


@pipelines
def test_where_steps_run_is_said_by_parameters(name: str) -> None:
    _, platform = documents(name)
    for settings in platform.values():
        assert settings["nodeSelector"]["nodeSelectorJson"]["componentInputParameter"].endswith("node_selector")
        (toleration,) = settings["tolerations"]
        assert toleration["tolerationJson"]["componentInputParameter"].endswith("tolerations")


@pipelines
def test_every_step_asks_for_cpu_and_memory_and_is_tried_again(name: str) -> None:
    pipeline, _ = documents(name)
    for container in containers(pipeline).values():
        assert {"resourceCpuRequest", "resourceMemoryRequest"} <= set(container["resources"])
    for task in tasks(pipeline).values():
        assert task["retryPolicy"]["maxRetryCount"] == 2


@pipelines
def test_what_gives_the_same_again_may_be_answered_from_kubeflows_cache(name: str) -> None:
    pipeline, _ = documents(name)
    cached = {
        label.partition("/")[2]: task.get("cachingOptions", {}).get("enableCache", False)
        for label, task in tasks(pipeline).items()
    }
    assert {task for task, yes in cached.items() if not yes} == {"begin", "report", "finish"}


@pipelines
def test_a_parameter_that_kubernetes_reads_reaches_the_task_it_is_for(name: str) -> None:
    """Kubeflow looks it up among the inputs of the task's parent: what is not there fails, and on a cluster only."""
    pipeline, platform = documents(name)
    for component in (pipeline["root"], *pipeline["components"].values()):
        given = set(component.get("inputDefinitions", {}).get("parameters", {}))
        for task in component.get("dag", {}).get("tasks", {}).values():
            label = pipeline["components"][task["componentRef"]["name"]].get("executorLabel", "")
            if label in platform:
                settings = platform[label]
                wanted = {
                    settings["secretAsEnv"][0]["secretNameParameter"]["componentInputParameter"],
                    settings["nodeSelector"]["nodeSelectorJson"]["componentInputParameter"],
                    settings["tolerations"][0]["tolerationJson"]["componentInputParameter"],
                }
                assert wanted <= given, label
