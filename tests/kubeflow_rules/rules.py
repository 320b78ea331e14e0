"""What Kubeflow Pipelines 2.17 refuses of a compiled pipeline, or takes although it fails later: a function for each fault.

A rule takes a parsed pipeline and yields a line for each place where it is violated; ``RULES`` holds them all. The files
that are named are those of github.com/kubeflow/pipelines at 2.17.0; "SDK" is the package kfp 2.17.0, "Argo" is
github.com/argoproj/argo-workflows at 4.0.5, "seen" is what a live cluster did.
"""

from __future__ import annotations

import ast
import json
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

Tree = dict[str, Any]
Violations = Iterator[str]

LARGEST_INPUTS = 60_000  # bytes of a task's constants, as JSON
LARGEST_SPEC = 700_000  # bytes of the whole file
ARGO_NAME = 128  # characters of a template's or a task's name
LONGEST_PIPELINE = 57  # characters: Kubernetes cuts "<name>-" at 58 before it adds five; the result is a label's value
EXIT = "ALL_UPSTREAM_TASKS_COMPLETED"
# What keeps the cluster autoscaler and Karpenter from draining the node under a step.
UNMOVED = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}

NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
QUANTITY = re.compile(r"\d+(\.\d*)?([numkMGTPE]|[KMGTPE]i|[eE][-+]?\d+)?")
INPUT = re.compile(r"\{\{\$\.inputs\.parameters\['(.+?)'\]\}\}")
OF_THE_RUN = re.compile(r"\{\{\$\.(?!inputs\.|outputs\.|workspace_path\}\})[^}]*\}\}")
RESOLVED_BY_THE_DRIVER = {
    "{{$.pipeline_job_name}}",
    "{{$.pipeline_job_resource_name}}",
    "{{$.pipeline_job_uuid}}",
    "{{$.pipeline_task_name}}",
    "{{$.pipeline_task_uuid}}",
    "{{$.pipeline_job_create_time_utc}}",
    "{{$.pipeline_job_schedule_time_utc}}",
}
TAG_OF_ARGO = re.compile(
    r"\{\{(?!\$)(?!.*\}\})|\{\{\s*(=|(workflow|inputs|outputs|tasks|steps|item|retries)\b)", re.DOTALL
)
ASKED_IN_A_CONDITION = re.compile(r"inputs\.parameter_values\['([^']+)'\]")
UNDERSTOOD_IN_A_CONDITION = re.compile(
    r"inputs\.parameter_values\['[^']+'\]|'[^'\\]*'|int\(|\b(true|false)\b|-?\d+(\.\d+)?(e[-+]?\d+)?|[!=<>]=?|&&|\|\||[()\s]"
)


@dataclass(frozen=True)
class Task:
    """A task, and the component in whose DAG it stands."""

    name: str
    dag: str
    spec: Tree

    def __str__(self) -> str:
        return f"{self.dag}/{self.name}"

    @property
    def component(self) -> str:
        return str(self.spec.get("componentRef", {}).get("name", ""))

    @property
    def parameters(self) -> Tree:
        """Input -> where it comes from."""
        return self.given("parameters")

    @property
    def constants(self) -> Tree:
        """Input -> value, of the parameters that are given as constants."""
        sources = self.parameters.items()
        return {name: source["runtimeValue"]["constant"] for name, source in sources if "runtimeValue" in source}

    @property
    def condition(self) -> str:
        return str(self.spec.get("triggerPolicy", {}).get("condition", ""))

    @property
    def closes(self) -> bool:
        """Whether it is an exit task."""
        return bool(self.spec.get("triggerPolicy", {}).get("strategy") == EXIT)

    @property
    def item(self) -> str | None:
        """The input that takes a loop's item."""
        found = self.spec.get("parameterIterator", {}).get("itemInput")
        return None if found is None else str(found)

    def given(self, kind: str) -> Tree:
        """Its ``parameters`` or its ``artifacts``: input -> where it comes from."""
        found: Tree = self.spec.get("inputs", {}).get(kind, {})
        return found


@dataclass(frozen=True)
class Compiled:
    """The documents of a compiled pipeline: ``spec`` is the pipeline, ``platform`` what Kubernetes is asked beside it."""

    spec: Tree
    platform: Tree
    size: int  # in bytes, of both

    @cached_property
    def components(self) -> dict[str, Tree]:
        return {"root": self.spec.get("root", {}), **self.spec.get("components", {})}

    @cached_property
    def executors(self) -> dict[str, Tree]:
        found: dict[str, Tree] = self.spec.get("deploymentSpec", {}).get("executors", {})
        return found

    @cached_property
    def containers(self) -> dict[str, Tree]:
        """Executor -> container, of those that have one."""
        return {label: executor["container"] for label, executor in self.executors.items() if "container" in executor}

    @cached_property
    def pods(self) -> dict[str, Tree]:
        """Executor -> what Kubernetes is asked for it."""
        kubernetes = self.platform.get("platforms", {}).get("kubernetes", {})
        found: dict[str, Tree] = kubernetes.get("deploymentSpec", {}).get("executors", {})
        return found

    @cached_property
    def dags(self) -> dict[str, dict[str, Task]]:
        """Component -> its tasks, of those that are DAGs."""
        return {
            name: {task: Task(task, name, spec) for task, spec in component["dag"].get("tasks", {}).items()}
            for name, component in self.components.items()
            if "dag" in component
        }

    @cached_property
    def tasks(self) -> list[Task]:
        return [task for tasks in self.dags.values() for task in tasks.values()]

    def of(self, task: Task) -> Tree:
        """The component that a task runs."""
        return self.components.get(task.component, {})

    def executor(self, task: Task) -> str | None:
        """The label of a task's executor; a DAG has none."""
        return self.of(task).get("executorLabel")

    def container(self, task: Task) -> Tree:
        return self.containers.get(self.executor(task) or "", {})

    def producer(self, dag: str, name: str) -> Task | None:
        return self.dags.get(dag, {}).get(name)


Rule = Callable[[Compiled], Violations]
RULES: list[Rule] = []


def rule(function: Rule) -> Rule:
    RULES.append(function)
    return function


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, as KFP's reader does; plain YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        if len(keys) != len(set(keys)):
            raise ValueError(f"{max(keys, key=keys.count)} is there twice{node.start_mark}")
        return super().construct_mapping(node, deep)


def read(text: str) -> Compiled:
    """A compiled pipeline, of one document or two.

    Raises:
        ValueError: of more documents or twofold keys, which KFP refuses (backend/src/apiserver/template/v2_template.go)
    """
    documents = [one for one in yaml.load_all(text, _Loader) if one is not None]
    platforms = [one for one in documents if "platforms" in one]
    specs = [one for one in documents if "platforms" not in one]
    if len(specs) != 1 or len(platforms) > 1:
        raise ValueError(f"{len(specs)} pipelines and {len(platforms)} platforms: KFP takes one, and at most one")
    return Compiled(specs[0], platforms[0] if platforms else {}, len(text.encode("utf-8")))


def inputs(component: Tree, kind: str = "parameters") -> dict[str, Tree]:
    """A component's ``parameters`` or ``artifacts``: input -> definition."""
    found: dict[str, Tree] = component.get("inputDefinitions", {}).get(kind, {})
    return found


def outputs(component: Tree, kind: str = "parameters") -> dict[str, Tree]:
    """A component's ``parameters`` or ``artifacts``: output -> definition."""
    found: dict[str, Tree] = component.get("outputDefinitions", {}).get(kind, {})
    return found


def selectors(output: Tree) -> list[tuple[str, str, str]]:
    """What an output of a DAG is taken from: task, kind, the task's output."""
    chosen = output.get("valueFromOneof", {}).get("parameterSelectors", [])
    parameters = [*chosen, *([output["valueFromParameter"]] if "valueFromParameter" in output else [])]
    return [
        *((one["producerSubtask"], "parameters", one["outputParameterKey"]) for one in parameters),
        *(
            (one["producerSubtask"], "artifacts", one["outputArtifactKey"])
            for one in output.get("artifactSelectors", [])
        ),
    ]


def taken_from(source: Tree) -> tuple[str, str, str] | None:
    """Where an input comes from, if it is another task's output: task, kind, output."""
    for kind, field, key in (
        ("parameters", "taskOutputParameter", "outputParameterKey"),
        ("artifacts", "taskOutputArtifact", "outputArtifactKey"),
    ):
        if field in source:
            return source[field]["producerTask"], kind, source[field][key]
    return None


def texts(value: Any, inside: bool = False) -> Iterator[tuple[str, bool]]:
    """Every text in a value, and whether it stands in a list or a mapping."""
    if isinstance(value, str):
        yield value, inside
    elif isinstance(value, list):
        for one in value:
            yield from texts(one, True)
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from texts(key, True)
            yield from texts(one, True)


# What the API server and its compiler refuse: a run cannot be created.


@rule
def unknown_fields(compiled: Compiled) -> Violations:
    """The documents are read strictly: a field that the protocol does not have is refused.

    backend/src/apiserver/template/v2_template.go, NewV2SpecTemplate; an executor's settings are read when a run is created
    and when its pod is made: backend/src/v2/compiler/argocompiler/container.go, containerExecutorTask.
    """
    deployment = pipeline_spec_pb2.PipelineDeploymentConfig
    read_as: list[tuple[str, Tree, Any]] = [
        ("the pipeline", compiled.spec, pipeline_spec_pb2.PipelineSpec()),
        ("the deployment", compiled.spec.get("deploymentSpec", {}), deployment()),
        ("the platform", compiled.platform, pipeline_spec_pb2.PlatformSpec()),
    ]
    read_as += [
        (label, pod, kubernetes_executor_config_pb2.KubernetesExecutorConfig()) for label, pod in compiled.pods.items()
    ]
    for what, tree, message in read_as:
        try:
            json_format.ParseDict(tree, message)
        except json_format.ParseError as fault:
            yield f"{what}: {' '.join(str(fault).split())}"


@rule
def another_schema(compiled: Compiled) -> Violations:
    """Only schema 2.1.0 is read, and only with a root.

    backend/src/apiserver/template/v2_template.go, NewV2SpecTemplate
    """
    if (version := compiled.spec.get("schemaVersion")) != "2.1.0":
        yield f"schemaVersion: {version}"
    if "dag" not in compiled.spec.get("root", {}):
        yield "root: it has no tasks"


@rule
def missing_components(compiled: Compiled) -> Violations:
    """A task's component is there, and is a DAG or has an executor.

    backend/src/v2/compiler/visitor.go, dfs: "cannot find component ref name", "unknown component implementation"
    """
    for task in compiled.tasks:
        if task.component not in compiled.components:
            yield f"{task}: there is no component {task.component!r}"
        elif not {"dag", "executorLabel"} & set(compiled.of(task)):
            yield f"{task}: {task.component} has neither tasks nor an executor"


@rule
def missing_executors(compiled: Compiled) -> Violations:
    """A component's executor is there, and a container or an importer.

    backend/src/v2/compiler/visitor.go, dfs; backend/src/v2/compiler/argocompiler/dag.go, task: resolvers are not
    implemented, custom jobs are Google's alone
    """
    for name, component in compiled.components.items():
        label = component.get("executorLabel")
        if label is not None and not {"container", "importer"} & set(compiled.executors.get(label, {})):
            yield f"{name}: {label} is no container and no importer"


@rule
def empty_dags(compiled: Compiled) -> Violations:
    """A DAG has a task beside its exit tasks; an exit handler with an empty body compiles and uploads all the same.

    backend/src/v2/compiler/argocompiler/dag.go, DAG: "must contain one or more non-exit tasks"
    """
    for name, tasks in compiled.dags.items():
        if all(task.closes for task in tasks.values()):
            yield f"{name}: no task but exit tasks"


@rule
def loops_that_are_refused(compiled: Compiled) -> Violations:
    """No loop over artifacts, none without items, and no component that two loops run.

    backend/src/v2/compiler/argocompiler/dag.go: DAG ("artifact iterator not implemented yet"), iterationItemTask (its
    template is named after the component alone: "template already exists"); backend/src/v2/driver/dag.go, DAG
    """
    looped: dict[str, list[Task]] = defaultdict(list)
    for task in compiled.tasks:
        if "artifactIterator" in task.spec:
            yield f"{task}: it iterates over artifacts"
        if task.item is not None:
            looped[task.component].append(task)
            items = task.spec["parameterIterator"].get("items", {})
            if task.item not in inputs(compiled.of(task)):
                yield f"{task}: {task.component} has no input {task.item} for the item"
            if "raw" not in items and items.get("inputParameter") not in task.parameters:
                yield f"{task}: its items, {items.get('inputParameter')}, are not given to it"
    for name, tasks in looped.items():
        if len(tasks) > 1:
            yield f"{name}: {' and '.join(map(str, tasks))} both iterate over it"


@rule
def invalid_names(compiled: Compiled) -> Violations:
    """Names are what Argo takes; each task ``x`` becomes a task ``x-driver`` beside it.

    backend/src/apiserver/template/v2_template.go; backend/src/v2/compiler/argocompiler/argo.go (GenerateName) and dag.go
    (names of templates); Argo, workflow/validate/validate.go: 128 characters, no digit in front where tasks depend on
    each other; backend/src/v2/driver/driver.go, validateNonRoot: a task has a display name
    """
    pipeline = str(compiled.spec.get("pipelineInfo", {}).get("name", ""))
    if not NAME.fullmatch(pipeline) or len(pipeline) > LONGEST_PIPELINE:
        yield f"pipelineInfo: {pipeline!r} is no name of at most {LONGEST_PIPELINE} characters"
    for name in {*compiled.components, *compiled.executors}:
        if not NAME.fullmatch(name) or len(name) > ARGO_NAME:
            yield f"{name}: no name"
    for task in compiled.tasks:
        template = f"exit-hook-{task.dag}-{task.name}" if task.closes else f"{task.component}-{task.name}-iterator"
        named = template if task.closes or task.item is not None else f"{task.name}-driver"
        if not NAME.fullmatch(task.name) or len(named) > ARGO_NAME:
            yield f"{task}: no name"
        if compiled.producer(task.dag, f"{task.name}-driver"):
            yield f"{task}: {task.name}-driver is a task too"
        if not task.spec.get("taskInfo", {}).get("name"):
            yield f"{task}: it has no display name"


@rule
def large_specs(compiled: Compiled) -> Violations:
    """Beyond about 0.7 MB the Workflow does not fit into the cluster's store (seen)."""
    if compiled.size > LARGEST_SPEC:
        yield f"the whole: {compiled.size} bytes, of at most {LARGEST_SPEC}"


@rule
def tags_of_argo(compiled: Compiled) -> Violations:
    """Whatever is in a component, an executor or a task lies in Argo's templates, which have their own ``{{tags}}``.

    backend/src/v2/compiler/argocompiler/argo.go, saveProtoToArguments; Argo, util/template: an expression is evaluated, a
    known word must be resolved, and braces that nothing closes are an error
    """
    for name, tree in (*compiled.components.items(), *compiled.executors.items()):
        for text, _ in texts(tree):
            if found := TAG_OF_ARGO.search(text):
                yield f"{name}: {text[found.start() :][:40]!r}"


# What cannot be resolved: a task's driver fails.


def _unresolved(compiled: Compiled, dag: str, source: Tree) -> Violations:
    """Why a source of an input leads nowhere in a DAG."""
    for field, kind in (("componentInputParameter", "parameters"), ("componentInputArtifact", "artifacts")):
        if field in source and source[field] not in inputs(compiled.components.get(dag, {}), kind):
            yield f"{dag} has no input {source[field]}"
    if taken := taken_from(source):
        name, kind, key = taken
        producer = compiled.producer(dag, name)
        if producer is None:
            yield f"{dag} has no task {name}"
        elif key not in outputs(compiled.of(producer), kind):
            yield f"{name} has no output {key}"


@rule
def unknown_sources(compiled: Compiled) -> Violations:
    """What an input, a dependency or an output is taken from is there.

    backend/src/v2/driver/resolve.go, resolveInputParameter and resolveInputArtifact: "parent DAG does not have input
    parameter", "producer task … not in tasks"; backend/src/v2/compiler/argocompiler/dag.go, addImplicitDependencies
    """
    for task in compiled.tasks:
        for source in (*task.given("parameters").values(), *task.given("artifacts").values()):
            yield from (f"{task}: {fault}" for fault in _unresolved(compiled, task.dag, source))
        for other in task.spec.get("dependentTasks", []):
            if compiled.producer(task.dag, other) is None:
                yield f"{task}: it depends on {other}, which is not there"
    for name in compiled.dags:
        given = compiled.components[name]["dag"].get("outputs", {})
        for output in (*given.get("parameters", {}).values(), *given.get("artifacts", {}).values()):
            for producer, kind, key in selectors(output):
                made = compiled.producer(name, producer)
                if made is None or key not in outputs(compiled.of(made), kind):
                    yield f"{name}: {producer} makes no output {key}"


@rule
def unknown_inputs(compiled: Compiled) -> Violations:
    """A task is given what its component takes, and what texts among its constants name.

    backend/src/v2/driver/resolve.go, resolveInputs, takes whatever it is given (so that nothing tells of a wrong name);
    SDK, compiler/pipeline_spec_builder.py, build_task_spec_for_task, adds ``pipelinechannel--`` inputs for such texts.
    """
    for task in compiled.tasks:
        named = set(INPUT.findall(json.dumps([task.constants, compiled.container(task)])))
        for kind in ("parameters", "artifacts"):
            for name in set(task.given(kind)) - set(inputs(compiled.of(task), kind)) - named:
                yield f"{task}: {task.component} has no input {name}"


@rule
def missing_inputs(compiled: Compiled) -> Violations:
    """Every input that is not optional and has no default is given.

    backend/src/v2/driver/resolve.go, resolveInputs: "neither value nor default value provided for non-optional parameter"
    """
    for task in compiled.tasks:
        for kind in ("parameters", "artifacts"):
            for name, definition in inputs(compiled.of(task), kind).items():
                optional = definition.get("isOptional") or "defaultValue" in definition or name == task.item
                if not optional and name not in task.given(kind):
                    yield f"{task}: {name} is not given"


def _type(compiled: Compiled, dag: str, source: Tree) -> str | None:
    """The type of what a source gives; None where that cannot be said."""
    if "runtimeValue" in source:
        constant = source["runtimeValue"]["constant"]
        types = {bool: "BOOLEAN", int: "NUMBER", float: "NUMBER", str: "STRING", list: "LIST", dict: "STRUCT"}
        return types.get(type(constant))
    found: Tree = {}
    if "componentInputParameter" in source:
        found = inputs(compiled.components.get(dag, {})).get(source["componentInputParameter"], {})
    elif taken := taken_from(source):
        producer = compiled.producer(dag, taken[0])
        found = outputs(compiled.of(producer)).get(taken[2], {}) if producer else {}
    type_ = found.get("parameterType")
    return "NUMBER" if str(type_).startswith("NUMBER_") else type_


@rule
def mismatched_types(compiled: Compiled) -> Violations:
    """A value is of its input's type; only a text takes any.

    backend/src/v2/driver/resolve.go, resolveInputs, handleParamTypeValidationAndConversion: "type mismatch"
    """
    for task in compiled.tasks:
        for name, source in task.parameters.items():
            wanted = str(inputs(compiled.of(task)).get(name, {}).get("parameterType", "STRING"))
            given = _type(compiled, task.dag, source)
            if wanted != "STRING" and given and "parameterExpressionSelector" not in source:
                wanted = "NUMBER" if wanted.startswith("NUMBER_") else wanted
                if given != wanted:
                    yield f"{task}: {name} is {wanted}, and is given {given}"


@rule
def components_in_each_others_place(compiled: Compiled) -> Violations:
    """Components whose containers are equal agree: KFP stores a component by its container, and gives all of them the first.

    backend/src/v2/compiler/argocompiler/argo.go, saveComponentSpec and hashComponentContainer. The SDK leaves optional
    inputs away that a task is not given, which does no harm.
    """
    first: dict[str, str] = {}
    for name, component in compiled.components.items():
        if (container := compiled.containers.get(component.get("executorLabel", ""))) is None:
            continue
        other = compiled.components[first.setdefault(json.dumps(container, sort_keys=True), name)]
        agree = component.get("outputDefinitions") == other.get("outputDefinitions")
        for kind in ("parameters", "artifacts"):
            mine, theirs = inputs(component, kind), inputs(other, kind)
            agree = agree and all(mine[both] == theirs[both] for both in set(mine) & set(theirs))
        if not agree:
            yield f"{name}: its container is that of another component, its inputs or outputs are not"


@rule
def placeholders_that_stay(compiled: Compiled) -> Violations:
    """``{{$.pipeline_job_uuid}}`` and its like are resolved where they are the whole constant, and nowhere else.

    backend/src/v2/driver/resolve.go, resolveInputParameter
    """
    for task in compiled.tasks:
        for name, constant in task.constants.items():
            for text, inside in texts(constant):
                for found in OF_THE_RUN.findall(text):
                    if inside or text != found or found not in RESOLVED_BY_THE_DRIVER:
                        yield f"{task}: {name} keeps {found}"


@rule
def values_that_break_the_input(compiled: Compiled) -> Violations:
    """A value inside a constant is put into the JSON of the whole input as it is, without any quoting.

    Only a text is sure to leave it JSON where the constant is a list or a mapping (and only without quotes, backslashes
    and new lines), within a text also numbers and booleans; it is done by the step, so not for a nested pipeline.
    backend/src/v2/component/launcher_v2.go, compileCmdAndArgs and getPlaceholders; SDK, local/placeholder_utils.py
    """
    for task in compiled.tasks:
        for name, constant in task.constants.items():
            for text, inside in texts(constant):
                for channel in INPUT.findall(text):
                    type_ = _type(compiled, task.dag, task.parameters.get(channel, {}))
                    if "dag" in compiled.of(task):
                        yield f"{task}: {name} of a nested pipeline names {channel}"
                    elif type_ not in (("STRING",) if inside else ("STRING", "NUMBER", "BOOLEAN")):
                        yield f"{task}: {name} names {channel}, which is {type_}"


@rule
def conditions_nobody_understands(compiled: Compiled) -> Violations:
    """A condition compares inputs of its task with numbers, booleans, and texts without quotes or backslashes.

    backend/src/v2/expression/expression.go, Condition, fails where an input is not there or a text ends early. SDK,
    local/orchestrator/enhanced_dag_orchestrator.py, ConditionEvaluator, knows no ``double()``, which the compiler writes
    where an integer meets a float: it warns, takes it for false, and skips If and Else alike.
    """
    for task in compiled.tasks:
        for name in set(ASKED_IN_A_CONDITION.findall(task.condition)) - set(task.parameters):
            yield f"{task}: its condition asks for {name}, which is not given to it"
        if UNDERSTOOD_IN_A_CONDITION.sub("", task.condition):
            yield f"{task}: {task.condition}"


def _loops_behind(compiled: Compiled, producer: Task, kind: str, key: str) -> Iterator[Task]:
    """The loops whose iterations an output is collected from."""
    if producer.item is not None:
        yield producer
    output = compiled.of(producer).get("dag", {}).get("outputs", {}).get(kind, {}).get(key, {})
    for name, of_kind, taken in selectors(output):
        if inner := compiled.producer(producer.component, name):
            yield from _loops_behind(compiled, inner, of_kind, taken)


def _may_be_empty(compiled: Compiled, dag: str, source: Tree) -> str | None:
    """Why a list may have no items; None where it is a constant that has some, or a task's output."""
    if "runtimeValue" in source:
        return None if source["runtimeValue"]["constant"] not in ([], "[]", "") else "an empty constant"
    if (name := source.get("componentInputParameter")) is None:
        return None
    if dag == "root":
        return f"the pipeline's input {name}"
    for caller in (task for task in compiled.tasks if task.component == dag):
        if name in caller.parameters:
            reason = _may_be_empty(compiled, caller.dag, caller.parameters[name])
        elif name == caller.item:
            reason = "another loop's item"
        else:
            default = inputs(compiled.components[dag]).get(name, {}).get("defaultValue")
            reason = None if default else f"an empty default of {name}"
        if reason:
            return reason
    return None


@rule
def collected_of_nothing(compiled: Compiled) -> Violations:
    """Who collects from a loop can be sure of items: a constant's, or a task's, which can refuse to give none.

    A loop of no iterations fails who collects from it (seen). backend/src/v2/driver/resolve.go, resolveUpstreamParameters
    and CollectInputs; SDK, compiler/pipeline_spec_builder.py, writes dsl.Collected as an output of the loop
    """
    for task in compiled.tasks:
        for source in (*task.given("parameters").values(), *task.given("artifacts").values()):
            taken = taken_from(source)
            producer = compiled.producer(task.dag, taken[0]) if taken else None
            if taken and producer:
                for loop in _loops_behind(compiled, producer, *taken[1:]):
                    items = loop.spec["parameterIterator"].get("items", {})
                    reason = _may_be_empty(compiled, loop.dag, loop.parameters.get(items.get("inputParameter"), {}))
                    if "raw" in items:
                        reason = None if json.loads(items["raw"]) else "no items"
                    if reason:
                        yield f"{task}: it collects from {loop}, whose items are {reason}"


# What steps and their pods need.


@rule
def without_image(compiled: Compiled) -> Violations:
    """A container has an image, and none of the two names that KFP takes for its own.

    backend/src/v2/driver/k8s.go, dummyImages; without one the pod keeps "should-be-overridden-during-runtime":
    backend/src/v2/compiler/argocompiler/container.go, addContainerExecutorTemplate
    """
    for label, container in compiled.containers.items():
        if container.get("image", "") in ("", "argostub/createpvc", "argostub/deletepvc"):
            yield f"{label}: image {container.get('image')!r}"


@rule
def invalid_quantities(compiled: Compiled) -> Violations:
    """What a container asks for is a quantity of Kubernetes, or an input's.

    backend/src/v2/driver/driver.go, getPodResource, in the task's driver: 27 and more tries before the run fails (seen)
    """
    for label, container in compiled.containers.items():
        resources = container.get("resources", {})
        asked = {name: value for name, value in resources.items() if name.startswith("resource")}
        asked["accelerator"] = resources.get("accelerator", {}).get("resourceCount", "0")
        for name, value in asked.items():
            if not QUANTITY.fullmatch(str(value)) and not INPUT.fullmatch(str(value)):
                yield f"{label}: {name} is {value!r}"


@rule
def steps_without_a_place(compiled: Compiled) -> Violations:
    """Every container has settings in the platform's document, and no settings are for nothing.

    backend/src/v2/compiler/visitor.go, dfs, silently passes over a label that it does not find.
    """
    for label in compiled.containers.keys() - compiled.pods.keys():
        yield f"{label}: Kubernetes is asked nothing for it"
    for label in compiled.pods.keys() - compiled.containers.keys():
        yield f"{label}: Kubernetes is asked something for it, and it is no container"


@rule
def steps_as_root(compiled: Compiled) -> Violations:
    """A step's container says that it is not root: the pod security standard `restricted` refuses it without.

    backend/src/v2/compiler/argocompiler/security_context.go, applySecurityContextToExecutorTemplate: KFP sets the rest of
    what the standard wants, but not this, since an image may want root
    """
    for label, pod in compiled.pods.items():
        asked = pod.get("securityContext", {})
        if asked.get("runAsNonRoot") is not True or str(asked.get("runAsUser", "")) == "0":
            yield f"{label}: it may run as root"


@rule
def evictable_steps(compiled: Compiled) -> Violations:
    """Autoscalers are told to leave a step's node alone: a step that is moved has failed, and nothing tries it again.

    backend/src/v2/compiler/argocompiler/container.go, extendPodMetadata, puts the annotations on the step's pod.
    """
    for label, pod in compiled.pods.items():
        annotations = pod.get("podMetadata", {}).get("annotations", {})
        for name in (name for name, value in UNMOVED.items() if annotations.get(name) != value):
            yield f"{label}: its pod lacks {name}"


@rule
def pods_of_unknown_inputs(compiled: Compiled) -> Violations:
    """What a pod's settings are taken from is an input of the DAG in which the task stands, or an output in it.

    backend/src/v2/driver/k8s.go, extendPodSpecPatch: "failed to resolve node selector", "… toleration", "… secret name"
    """
    for task in compiled.tasks:
        pod = compiled.pods.get(compiled.executor(task) or "", {})
        secrets = pod.get("secretAsEnv", []) + pod.get("secretAsVolume", [])
        for source in (
            pod.get("nodeSelector", {}).get("nodeSelectorJson", {}),
            *(toleration.get("tolerationJson", {}) for toleration in pod.get("tolerations", [])),
            *(secret.get("secretNameParameter", {}) for secret in secrets),
        ):
            yield from (f"{task}: {fault}" for fault in _unresolved(compiled, task.dag, source))


@rule
def secrets_of_fixed_names(compiled: Compiled) -> Violations:
    """A Secret's name is a parameter, and a text: the installation knows it, not the pipeline.

    backend/src/v2/driver/resolve.go, resolveInputParameterStr: "Expected a string", and not an empty one, even where the
    Secret is optional
    """
    for task in compiled.tasks:
        pod = compiled.pods.get(compiled.executor(task) or "", {})
        for secret in pod.get("secretAsEnv", []) + pod.get("secretAsVolume", []):
            source = secret.get("secretNameParameter", {})
            if "runtimeValue" in source or _type(compiled, task.dag, source) not in ("STRING", None) or not source:
                yield f"{task}: the name of its Secret is no parameter"
            default = inputs(compiled.components.get(task.dag, {})).get(source.get("componentInputParameter"), {})
            if default.get("defaultValue") == "":
                yield f"{task}: the name of its Secret is empty where nobody gives one"


@rule
def unknown_pull_policies(compiled: Compiled) -> Violations:
    """backend/src/v2/driver/k8s.go, extendPodSpecPatch: "ImagePullPolicy should be one of …" """
    for label, pod in compiled.pods.items():
        if pod.get("imagePullPolicy", "") not in ("", "Always", "Never", "IfNotPresent"):
            yield f"{label}: {pod['imagePullPolicy']}"


@rule
def large_inputs(compiled: Compiled) -> Violations:
    """A step's inputs as JSON are at most about 60 kB: the pod's template has 128 KiB, and holds them quoted twice.

    Beyond that Argo wants a ConfigMap that KFP's role may not create (seen). backend/src/v2/driver/driver.go,
    initPodSpecPatch; Argo, workflow/common/common.go, MaxEnvVarLen
    """
    for task in compiled.tasks:
        size = len(json.dumps(task.constants, ensure_ascii=False, separators=(",", ":")).encode("utf-8"))
        if size > LARGEST_INPUTS:
            yield f"{task}: {size} bytes of constants, of at most {LARGEST_INPUTS}"


@rule
def artifacts_of_unknown_types(compiled: Compiled) -> Violations:
    """Artifacts are of KFP's own types, those that its pages show.

    backend/src/v2/metadata/client.go, SchemaToArtifactType: without a title the step's launcher ends at once
    """
    for name, component in compiled.components.items():
        for key, output in {**inputs(component, "artifacts"), **outputs(component, "artifacts")}.items():
            title = output.get("artifactType", {}).get("schemaTitle", "")
            if not title.startswith("system."):
                yield f"{name}: {key} is of type {title!r}"


# What KFP does, and does wrong.


@rule
def importers_of_task_outputs(compiled: Compiled) -> Violations:
    """An importer's URI is a constant, or an input of the pipeline around it: it cannot read another task's output.

    backend/src/v2/component/importer_launcher.go, ImportSpecToMLMDArtifact: "parent DAG does not have input parameter"
    """
    for task in compiled.tasks:
        importer = compiled.executors.get(compiled.executor(task) or "", {}).get("importer")
        if importer is not None and "constant" not in importer.get("artifactUri", {}):
            source = task.parameters.get(importer.get("artifactUri", {}).get("runtimeParameter"), {})
            if source.get("componentInputParameter") not in inputs(compiled.components[task.dag]):
                yield f"{task}: its URI is neither constant nor the pipeline's"


@rule
def importers(compiled: Compiled) -> Violations:
    """Ours have none: data go as URIs, and an importer starts beside its producer, without waiting for it (seen).

    backend/src/v2/compiler/argocompiler/importer.go, importerTask
    """
    for label, executor in compiled.executors.items():
        if "importer" in executor:
            yield f"{label}: an importer"


@rule
def cached_tasks(compiled: Compiled) -> Violations:
    """No answer from KFP's cache: its key does not see the code of an imported package, and an exit task would not run.

    backend/src/v2/driver/cache.go, getFingerPrint; backend/src/v2/driver/container.go, Container
    """
    for task in compiled.tasks:
        if task.spec.get("cachingOptions", {}).get("enableCache"):
            yield f"{task}: it may be answered from the cache"


@rule
def retried_tasks(compiled: Compiled) -> Violations:
    """No task is tried again by KFP: not where a step fails, but at every level where a pod vanishes, 3^levels times (seen).

    Its tasks inherit a DAG's policy: backend/src/v2/compiler/visitor.go, dfs; no ``retryPolicy`` of Argo's is ever set:
    backend/src/v2/compiler/argocompiler/container.go, getTaskRetryStrategyFromInput
    """
    for task in compiled.tasks:
        if "retryPolicy" in task.spec:
            yield f"{task}: it is tried again"


@rule
def exit_tasks_of_another_task(compiled: Compiled) -> Violations:
    """An exit task is told the state of the first task that it depends on, which is no loop: a loop has no exit hook.

    backend/src/v2/driver/resolve.go, resolveInputParameter (DependentTasks[0], whatever producerTask says);
    backend/src/v2/compiler/argocompiler/dag.go, iteratorTask
    """
    for task in compiled.tasks:
        first = next(iter(task.spec.get("dependentTasks", [])), "")
        for source in task.parameters.values():
            if "taskFinalStatus" in source and source["taskFinalStatus"].get("producerTask") != first:
                yield f"{task}: it depends on {first!r} first, and asks for the state of another"
            if "taskFinalStatus" in source and not task.closes:
                yield f"{task}: it asks for a final state, and is no exit task"
        watched = compiled.producer(task.dag, first)
        if task.closes and watched and watched.item is not None:
            yield f"{task}: it closes a loop"


@rule
def exit_tasks_that_wait_for_succeeded(compiled: Compiled) -> Violations:
    """The state of a run is COMPLETE where all went well, in ML Metadata's words; only the local runner says SUCCEEDED.

    backend/src/v2/driver/resolve.go, resolveInputParameter: GetLastKnownState; SDK, local/orchestrator/orchestrator_utils.py
    """
    for task in compiled.tasks:
        if any("taskFinalStatus" in source for source in task.parameters.values()):
            container = compiled.container(task)
            words = _words(container.get("command", []) + container.get("args", []))
            if "SUCCEEDED" in words and "COMPLETE" not in words:
                yield f"{task}: it knows SUCCEEDED, and not COMPLETE"


def _words(command: list[str]) -> set[str]:
    """The constants of the Python that is embedded in a command."""
    found: set[str] = set()
    for part in command:
        if "import kfp" in part:
            nodes = ast.walk(ast.parse(part))
            found |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return found
