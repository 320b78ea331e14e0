"""What every task asks of Kubernetes, read from the committed YAML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hep2flow.pipelines.tasks import NOT_EVICTED, SECRET_KEYS, USER

ROOT = Path(__file__).parents[2]


def documents(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    pipeline, platform = yaml.safe_load_all((ROOT / "pipelines" / f"{name}.yaml").read_text(encoding="utf-8"))
    return pipeline, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


pipelines = pytest.mark.parametrize("name", ["reproduce", "sweep"])


@pipelines
def test_every_step_enters_the_store_by_the_name_of_a_secret_and_nothing_else(name: str) -> None:
    pipeline, platform = documents(name)
    assert set(platform) == set(pipeline["deploymentSpec"]["executors"])
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
def test_every_step_asks_for_cpu_and_memory(name: str) -> None:
    pipeline, _ = documents(name)
    for executor in pipeline["deploymentSpec"]["executors"].values():
        assert {"resourceCpuRequest", "resourceMemoryRequest"} <= set(executor["container"]["resources"])


@pipelines
def test_steps_that_may_train_in_themselves_have_room_for_their_loader_workers_and_ask_for_little(name: str) -> None:
    """A container's own /dev/shm is 64 MiB: loader workers lose a batch there, and the training waits for it for ever."""
    pipeline, platform = documents(name)
    trains = {label for label in platform if re.match("exec-(train|tune|evaluate)", label)}
    assert trains
    for label, settings in platform.items():
        mounts = [(mount["mountPath"], mount["medium"]) for mount in settings.get("emptyDirMounts", [])]
        assert mounts == ([("/dev/shm", "Memory")] if label in trains else [])  # noqa: S108
    for label in trains:
        if "evaluate" not in label:
            asked = pipeline["deploymentSpec"]["executors"][label]["container"]["resources"]["resourceMemoryRequest"]
            assert asked == "256Mi", "what watches a job is not to keep its workers out"


@pipelines
def test_autoscalers_leave_the_node_of_a_step_alone(name: str) -> None:
    _, platform = documents(name)
    for settings in platform.values():
        assert settings["podMetadata"]["annotations"] == NOT_EVICTED


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
