"""Every compiled pipeline keeps Kubeflow's rules, and each rule finds the fault that it is named after."""

import re
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from kfp import compiler, dsl, kubernetes

from hep2flow.pipelines import unrolled as flat
from tests.kubeflow_rules.rules import RULES, UNMOVED, Compiled, Rule, read

ROOT = Path(__file__).parents[2]
NAMED: dict[str, Rule] = {rule.__name__: rule for rule in RULES}

# The SDK reads these functions' annotations, so this file is without `from __future__ import annotations`.
step = dsl.component(base_image="example.org/step:1", install_kfp_package=False)


@step
def begin(run_id: str) -> NamedTuple("Begun", [("uri", str), ("names", list), ("count", int), ("deep", bool)]):  # type: ignore[valid-type]
    raise NotImplementedError


@step
def train(uri: str, name: str, report: dsl.Output[dsl.HTML]) -> str:
    raise NotImplementedError


@step
def compare(trained: list, beside: list, said: str = "") -> str:
    raise NotImplementedError


@step
def finish(run_id: str, job: str, status: dsl.PipelineTaskFinalStatus) -> None:
    print({"COMPLETE": "succeeded", "SUCCEEDED": "succeeded"}.get(status.state, "failed"), run_id, job)


def placed(task: dsl.PipelineTask, secret: Any, selector: Any) -> dsl.PipelineTask:
    kubernetes.use_secret_as_env(task, secret, {"accesskey": "AWS_ACCESS_KEY_ID"}, optional=True)
    kubernetes.add_node_selector_json(task, selector)
    kubernetes.set_security_context(task, run_as_user=1000, run_as_non_root=True)
    for name, value in UNMOVED.items():
        kubernetes.add_pod_annotation(task, name, value)
    return task.set_caching_options(False).set_cpu_request("500m").set_memory_request("1Gi")


@dsl.pipeline(name="small")
def small(run_id: str = "", store: str = "store", selector: dict = {}) -> None:  # noqa: B006 - KFP only reads it
    """One of everything that a pipeline may hold."""
    closing = placed(finish(run_id=run_id, job=dsl.PIPELINE_JOB_ID_PLACEHOLDER), store, selector)
    with dsl.ExitHandler(closing, name="run"):
        begun = placed(begin(run_id=run_id), store, selector)
        alone = placed(train(uri=begun.outputs["uri"], name="one"), store, selector)
        with dsl.ParallelFor(begun.outputs["names"], name="model") as name:
            each = placed(train(uri=begun.outputs["uri"], name=name), store, selector)
        with dsl.If(begun.outputs["deep"] == True, name="deep"):  # noqa: E712 - a channel, not a bool
            placed(
                compare(
                    trained=dsl.Collected(each.outputs["Output"]),
                    beside=[begun.outputs["uri"], alone.outputs["Output"]],
                    said=f"{begun.outputs['count']} of {run_id}",
                ),
                store,
                selector,
            )


def text_of(pipeline: Any) -> str:
    """A pipeline as the SDK compiles it."""
    with TemporaryDirectory() as folder:
        compiler.Compiler().compile(pipeline, f"{folder}/pipeline.yaml")
        return Path(folder, "pipeline.yaml").read_text(encoding="utf-8")


def committed(name: str) -> Callable[[], str]:
    return lambda: (ROOT / "pipelines" / f"{name}.yaml").read_text(encoding="utf-8")


def unrolled(name: str, models: dict[str, str]) -> Callable[[], str]:
    return lambda: text_of(flat.unrolled(name, models))


PIPELINES: dict[str, Callable[[], str]] = {
    "reproduce": committed("reproduce"),
    "sweep": committed("sweep"),
    "unrolled reproduce": unrolled("reproduce", {"convnext-b": "", "coat-mini": ""}),
    "unrolled sweep": unrolled(
        "sweep", {"convnext-b-tuned": "convnext-b", "coat-mini-tuned": "coat-mini", "coat-mini": ""}
    ),
    "small": lambda: text_of(small),
}


@cache
def compiled(name: str) -> Compiled:
    return read(PIPELINES[name]())


@pytest.mark.parametrize("rule", RULES, ids=NAMED)
@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_keeps_the_rule(name: str, rule: Rule) -> None:
    assert list(rule(compiled(name))) == []


class Fault(NamedTuple):
    """A change of ``small``: ``value`` in the place of what is at ``path``, and a part of the line that tells of it."""

    rule: str
    path: str
    value: Any
    said: str


GONE = object()
BODY = "spec/components/comp-exit-handler-1/dag/tasks"
DEEP = "spec/components/comp-condition-3/dag/tasks/compare"
LOOP = f"{BODY}/for-loop-2"
HANDLER = "spec/root/dag/tasks/exit-handler-1"
FINISH = "spec/root/dag/tasks/finish"
JOB = f"{FINISH}/inputs/parameters/job/runtimeValue/constant"
STEP = "spec/deploymentSpec/executors/exec-train"
POD = "platform/platforms/kubernetes/deploymentSpec/executors/exec-train"
CONDITION = f"{BODY}/condition-3/triggerPolicy/condition"
FAULTS = [
    Fault("unknown_fields", f"{BODY}/train/inputz", {}, "inputz"),
    Fault("unknown_fields", f"{POD}/securityContextz", {}, "exec-train"),
    Fault("unknown_fields", f"{STEP}/container/imagePullSecret", "x", "imagePullSecret"),
    Fault("another_schema", "spec/schemaVersion", "2.2.0", "2.2.0"),
    Fault("another_schema", "spec/root", {}, "root"),
    Fault("missing_components", f"{BODY}/train/componentRef/name", "comp-nobody", "comp-nobody"),
    Fault("missing_components", "spec/components/comp-train", {}, "neither"),
    Fault("missing_executors", STEP, {"resolver": {}}, "exec-train"),
    Fault("missing_executors", "spec/components/comp-train/executorLabel", "exec-nobody", "exec-nobody"),
    Fault("empty_dags", BODY, {}, "comp-exit-handler-1"),
    Fault("loops_that_are_refused", f"{LOOP}/artifactIterator", {}, "artifacts"),
    Fault("loops_that_are_refused", f"{LOOP}/parameterIterator/itemInput", "nothing", "no input nothing"),
    Fault("loops_that_are_refused", f"{LOOP}/parameterIterator/items/inputParameter", "nothing", "not given"),
    Fault("loops_that_are_refused", f"{BODY}/again", {"is": LOOP}, "both iterate"),
    Fault("invalid_names", "spec/pipelineInfo/name", "Small_One", "Small_One"),
    Fault("invalid_names", "spec/pipelineInfo/name", "a" * 58, "at most 57"),
    Fault("invalid_names", f"{BODY}/5-trains", {"is": f"{BODY}/train"}, "5-trains"),
    Fault("invalid_names", f"{BODY}/{'t' * 122}", {"is": f"{BODY}/train"}, "no name"),
    Fault("invalid_names", f"{BODY}/train-driver", {"is": f"{BODY}/train"}, "train-driver is a task too"),
    Fault("invalid_names", f"{BODY}/train/taskInfo/name", "", "display name"),
    Fault("invalid_names", "spec/deploymentSpec/executors/exec_train", {}, "exec_train"),
    Fault("large_specs", "size", 700_001, "700001"),
    Fault("tags_of_argo", f"{BODY}/train/inputs/parameters/name", {"runtimeValue": {"constant": "{{a"}}, "{{a"),
    Fault("tags_of_argo", f"{STEP}/container/env", [{"name": "A", "value": "{{workflow.name}}"}], "workflow"),
    Fault("unknown_sources", f"{BODY}/train/inputs/parameters/name", {"componentInputParameter": "x"}, "no input x"),
    Fault("unknown_sources", f"{BODY}/train/inputs/parameters/uri/taskOutputParameter/producerTask", "x", "no task x"),
    Fault(
        "unknown_sources", f"{BODY}/train/inputs/parameters/uri/taskOutputParameter/outputParameterKey", "x", "put x"
    ),
    Fault("unknown_sources", f"{BODY}/train/inputs/artifacts", {"a": {"componentInputArtifact": "x"}}, "no input x"),
    Fault("unknown_sources", f"{BODY}/train/dependentTasks", ["x"], "depends on x"),
    Fault("unknown_sources", "spec/components/comp-train-2/outputDefinitions", {}, "train-2 makes no output Output"),
    Fault("unknown_inputs", f"{BODY}/train/inputs/parameters/nmae", {"runtimeValue": {"constant": ""}}, "nmae"),
    Fault("missing_inputs", f"{BODY}/train/inputs/parameters/name", GONE, "name is not given"),
    Fault(
        "mismatched_types", "spec/components/comp-train/inputDefinitions/parameters/name/parameterType", "LIST", "LIST"
    ),
    Fault("mismatched_types", f"{DEEP}/inputs/parameters/trained", {"runtimeValue": {"constant": "x"}}, "given STRING"),
    Fault("components_in_each_others_place", "spec/components/comp-train-2/outputDefinitions", {}, "comp-train-2"),
    Fault(
        "components_in_each_others_place",
        "spec/components/comp-train-2/inputDefinitions/parameters/name/defaultValue",
        "x",
        "comp-train-2",
    ),
    Fault(
        "placeholders_that_stay",
        JOB,
        ["{{$.pipeline_job_uuid}}"],
        "job",
    ),
    Fault(
        "placeholders_that_stay",
        JOB,
        "a {{$.pipeline_job_uuid}}",
        "job",
    ),
    Fault("placeholders_that_stay", JOB, "{{$.pipeline_root}}", "root"),
    Fault(
        "values_that_break_the_input",
        f"{DEEP}/inputs/parameters/beside/runtimeValue/constant",
        ["{{$.inputs.parameters['pipelinechannel--begin-count']}}"],
        "NUMBER",
    ),
    Fault(
        "values_that_break_the_input",
        f"{DEEP}/inputs/parameters/said/runtimeValue/constant",
        "{{$.inputs.parameters['pipelinechannel--nobody']}}",
        "None",
    ),
    Fault(
        "values_that_break_the_input",
        f"{HANDLER}/inputs/parameters/pipelinechannel--run_id",
        {"runtimeValue": {"constant": "{{$.inputs.parameters['run_id']}}"}},
        "nested",
    ),
    Fault(
        "conditions_nobody_understands",
        CONDITION,
        "inputs.parameter_values['pipelinechannel--nobody'] == true",
        "asks for pipelinechannel--nobody",
    ),
    Fault(
        "conditions_nobody_understands",
        CONDITION,
        "double(int(inputs.parameter_values['pipelinechannel--begin-count'])) > 1.5",
        "double",
    ),
    Fault(
        "conditions_nobody_understands",
        CONDITION,
        "inputs.parameter_values['pipelinechannel--begin-uri'] == 'it's'",
        "it's",
    ),
    Fault(
        "collected_of_nothing",
        f"{LOOP}/inputs/parameters/pipelinechannel--begin-names",
        {"componentInputParameter": "pipelinechannel--run_id"},
        "the pipeline's input run_id",
    ),
    Fault(
        "collected_of_nothing",
        f"{LOOP}/inputs/parameters/pipelinechannel--begin-names",
        {"runtimeValue": {"constant": []}},
        "an empty constant",
    ),
    Fault("collected_of_nothing", f"{LOOP}/parameterIterator/items", {"raw": "[]"}, "no items"),
    Fault("without_image", f"{STEP}/container/image", GONE, "exec-train"),
    Fault("without_image", f"{STEP}/container/image", "argostub/createpvc", "argostub"),
    Fault("invalid_quantities", f"{STEP}/container/resources/resourceMemoryRequest", "1GB", "1GB"),
    Fault("invalid_quantities", f"{STEP}/container/resources/accelerator", {"resourceCount": "one"}, "one"),
    Fault("steps_without_a_place", POD, GONE, "asked nothing"),
    Fault("steps_without_a_place", f"{POD}-3", {}, "no container"),
    Fault("steps_as_root", f"{POD}/securityContext/runAsNonRoot", GONE, "exec-train"),
    Fault("steps_as_root", f"{POD}/securityContext/runAsUser", "0", "exec-train"),
    Fault("evictable_steps", f"{POD}/podMetadata", GONE, "safe-to-evict"),
    Fault("evictable_steps", f"{POD}/podMetadata/annotations/karpenter.sh~do-not-disrupt", "false", "karpenter"),
    Fault("pods_of_unknown_inputs", f"{POD}/nodeSelector/nodeSelectorJson/componentInputParameter", "x", "no input x"),
    Fault(
        "pods_of_unknown_inputs",
        f"{POD}/tolerations",
        [{"tolerationJson": {"componentInputParameter": "x"}}],
        "no input x",
    ),
    Fault(
        "pods_of_unknown_inputs", f"{POD}/secretAsEnv", [{"secretNameParameter": {"componentInputParameter": "x"}}], "x"
    ),
    Fault("secrets_of_fixed_names", f"{POD}/secretAsEnv", [{"secretName": "store"}], "no parameter"),
    Fault(
        "secrets_of_fixed_names",
        f"{POD}/secretAsEnv",
        [{"secretNameParameter": {"runtimeValue": {"constant": "store"}}}],
        "no parameter",
    ),
    Fault("secrets_of_fixed_names", "spec/root/inputDefinitions/parameters/store/defaultValue", "", "empty"),
    Fault("unknown_pull_policies", f"{POD}/imagePullPolicy", "Sometimes", "Sometimes"),
    Fault("large_inputs", f"{BODY}/train/inputs/parameters/name/runtimeValue/constant", "ü" * 30_001, "60"),
    Fault("artifacts_of_unknown_types", "spec/components/comp-train/outputDefinitions/artifacts/report", {}, "report"),
    Fault(
        "artifacts_of_unknown_types",
        "spec/components/comp-train/outputDefinitions/artifacts/report/artifactType/schemaTitle",
        "google.VertexModel",
        "google",
    ),
    Fault("importers_of_task_outputs", STEP, {"importer": {"artifactUri": {"runtimeParameter": "uri"}}}, "train"),
    Fault("importers", STEP, {"importer": {"artifactUri": {"constant": "s3://b/a"}}}, "exec-train"),
    Fault("cached_tasks", f"{BODY}/train/cachingOptions", {"enableCache": True}, "comp-exit-handler-1/train"),
    Fault("retried_tasks", f"{BODY}/train/retryPolicy", {"maxRetryCount": 2}, "comp-exit-handler-1/train"),
    Fault("exit_tasks_of_another_task", f"{FINISH}/dependentTasks", GONE, "''"),
    Fault("exit_tasks_of_another_task", f"{FINISH}/triggerPolicy", GONE, "no exit task"),
    Fault(
        "exit_tasks_of_another_task",
        f"{HANDLER}/parameterIterator",
        {"itemInput": "x"},
        "a loop",
    ),
    Fault(
        "exit_tasks_that_wait_for_succeeded",
        "spec/deploymentSpec/executors/exec-finish/container/command",
        ["import kfp\nprint('well' if status.state == 'SUCCEEDED' else 'badly')"],
        "root/finish",
    ),
]

# Changes that Kubeflow takes: `said` is what is right about them.
RIGHT = [
    Fault("importers_of_task_outputs", STEP, {"importer": {"artifactUri": {"constant": "s3://b/a"}}}, "a constant"),
    Fault(
        "importers_of_task_outputs",
        "spec/deploymentSpec/executors/exec-begin",
        {"importer": {"artifactUri": {"runtimeParameter": "run_id"}}},
        "the pipeline's input",
    ),
    Fault("collected_of_nothing", f"{LOOP}/parameterIterator/items", {"raw": '["a"]'}, "a constant with items"),
    Fault(
        "conditions_nobody_understands",
        CONDITION,
        "int(inputs.parameter_values['pipelinechannel--begin-deep']) >= -2 && "
        "!(inputs.parameter_values['pipelinechannel--begin-deep'] != 'say \"it\"')",
        "what the compiler writes",
    ),
    Fault("invalid_quantities", f"{STEP}/container/resources/resourceCpuLimit", "1e3", "an exponent"),
    Fault("large_inputs", f"{BODY}/train/inputs/parameters/name/runtimeValue/constant", "a" * 59_000, "59 kB"),
    Fault("large_specs", "size", 700_000, "the limit"),
    Fault("tags_of_argo", f"{STEP}/container/args", ["{{$}}", "{{'a': 1}}"], "KFP's own, and braces that close"),
    Fault("placeholders_that_stay", JOB, "{{$.pipeline_task_uuid}}", "another of the driver's"),
]


def changed(fault: Fault) -> Compiled:
    """``small`` with a change in it; a slash within a key is written ~, and ``{"is": path}`` is what stands elsewhere."""
    sound = compiled("small")
    trees: dict[str, Any] = {"spec": deepcopy(sound.spec), "platform": deepcopy(sound.platform), "size": sound.size}

    def at(path: str) -> tuple[Any, str]:
        *way, last = (key.replace("~", "/") for key in path.split("/"))
        tree: Any = trees
        for key in way:
            tree = tree.setdefault(key, {})
        return tree, last

    tree, last = at(fault.path)
    if fault.value is GONE:
        del tree[last]
    elif isinstance(fault.value, dict) and "is" in fault.value:
        other, name = at(fault.value["is"])
        tree[last] = deepcopy(other[name])
    else:
        tree[last] = fault.value
    return Compiled(**trees)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.rule}: {fault.said}")
def test_a_rule_finds_its_fault(fault: Fault) -> None:
    found = list(NAMED[fault.rule](changed(fault)))
    assert any(fault.said in line for line in found), found
    assert all(re.fullmatch(r"\S.*: .+|root: .+", line) for line in found), "a line that names the place"


@pytest.mark.parametrize("change", RIGHT, ids=lambda change: f"{change.rule}: {change.said}")
def test_a_rule_lets_pass_what_kubeflow_takes(change: Fault) -> None:
    assert list(NAMED[change.rule](changed(change))) == []


def test_each_rule_is_shown_to_find_a_fault_and_names_its_source() -> None:
    assert {fault.rule for fault in FAULTS} == set(NAMED)
    for name, rule in NAMED.items():
        assert re.search(r"backend/src/|SDK|\(seen\)", rule.__doc__ or ""), name


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\na: 2\n",
        "root: {}\n---\nroot: {}\n",
        "platforms: {}\n---\nplatforms: {}\n---\nroot: {}\n",
        "platforms: {}\n",
    ],
)
def test_what_is_not_one_pipeline_and_its_platform_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"twice|KFP takes one"):
        read(text)
