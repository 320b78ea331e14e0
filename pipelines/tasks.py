"""The tasks that every pipeline here consists of, each with its resources and its place on Kubernetes.

    ingest -> mask, split -> for each model {train -> evaluate} -> report

Argo advances a run every ten seconds (DEFAULT_REQUEUE_TIME), so a run lasts as long as its longest chain of pods: nothing
here is nested, and independent tasks run side by side.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

from kfp import dsl, kubernetes

from hep2flow.components.begin import begin
from hep2flow.components.evaluate import evaluate
from hep2flow.components.ingest import ingest
from hep2flow.components.mask import mask
from hep2flow.components.report import report
from hep2flow.components.split import split
from hep2flow.components.train import train
from hep2flow.components.tune import tune

# Keys of the Secret -> boto3's variables. KFP takes the Secret's name from a parameter, but its keys only from here;
# `hep2flow submit` replaces them in the compiled pipeline.
SECRET_KEYS = {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"}
USER = 1000  # of the images
HOUR = 3600
FOLLOWING = "256Mi"  # of a step that watches a RayJob: 190 MiB; with 2 GiB three of them filled a small node
# A step that watches a training for hours costs little: autoscalers are to leave its node alone.
NOT_EVICTED = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}


class Cells(NamedTuple):
    """URIs of the masked data set and of its division."""

    dataset: Any
    split: Any


@dataclass(frozen=True)
class Tasks:
    """The tasks of one pipeline, with the parameters that they share.

    Attributes:
        store: ``endpoint``, ``region``, ``bucket`` and ``prefix``.
        nodes: ``store_secret``, ``node_selector`` and ``tolerations``.
    """

    run_id: Any
    store: dict[str, Any]
    nodes: dict[str, Any]
    engine: Any
    cluster: Any

    @property
    def _run(self) -> dict[str, Any]:
        return {"store": self.store, "run_id": self.run_id, "job_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER}

    @property
    def _on_ray(self) -> dict[str, Any]:
        secret = self.nodes["store_secret"]
        return {**self._run, "engine": self.engine, "cluster": self.cluster, "store_secret": secret}

    def begin(self, **parameters: Any) -> dsl.PipelineTask:
        """Write the record of a run started in Kubeflow's page; outputs what the pipeline loops over."""
        return self._place(begin(**self._on_ray, **parameters), cpu="100m", memory="512Mi", hours=1)

    def prepare(self, source: Any, format: Any, after: dsl.PipelineTask | None = None) -> Cells:
        """Ingest, and mask beside split: a split fits a data set however it is masked."""
        ingested = ingest(**self._run, source=source, format=format)
        if after is not None:
            ingested.after(after)
        dataset = ingested.outputs["dataset"]
        masked = mask(**self._run, dataset=dataset)
        divided = split(**self._run, dataset=dataset, given_split=ingested.outputs["given_split"])
        self._place(ingested, cpu="1", memory="2Gi", hours=6)
        self._place(masked, cpu="2", memory="2Gi", hours=6)
        self._place(divided, cpu="500m", memory="1Gi", hours=1)
        return Cells(masked.outputs["Output"], divided.output)

    def tune(self, recipe: Any, cells: Cells, name: str = "tune") -> dsl.PipelineTask:
        """Sweep one recipe; outputs ``model``, ``sweep`` and ``judgement``."""
        task = _named(tune, name)(**self._on_ray, recipe=recipe, **cells._asdict())
        return self._place(_share_memory(task), cpu="500m", memory=FOLLOWING, hours=168)

    def train_and_evaluate(self, models: Any, cells: Cells, sweep: Any = "", mark: str = "") -> Any:
        """Train a model and evaluate it; returns the evaluation's URI.

        ``models`` is its name in the run; several, with spaces between, come one after the other. ``sweep`` is the URI of
        the sweep that chose its recipe; empty for a recipe trained as it is. ``mark`` ends the tasks' names.
        """
        shared = {**self._on_ray, **cells._asdict(), "models": models, "sweep": sweep}
        trained = _named(train, f"train{mark}")(**shared)
        evaluated = _named(evaluate, f"evaluate{mark}")(**shared, trainings=trained.outputs["Output"])
        self._place(_share_memory(trained), cpu="500m", memory=FOLLOWING, hours=168)
        self._place(_share_memory(evaluated), cpu="1", memory="4Gi", hours=24)
        return evaluated.outputs["Output"]

    def report(self, evaluations: Any, sweeps: Any = (), judgements: Any = ()) -> None:
        """Write the page of all models, which ends the run."""
        found = {"evaluations": evaluations, "sweeps": sweeps or [], "judgements": judgements or []}
        self._place(report(**self._run, **found), cpu="1", memory="2Gi", hours=1)

    def _place(self, task: dsl.PipelineTask, cpu: str, memory: str, hours: int) -> dsl.PipelineTask:
        """Set where a task may run, and with what: credentials, nodes, resources, deadline, and protection from eviction.

        No retries are set: with KFP 2.17 they never repeat a step that failed, only a pod that was lost, which its defaults
        do at every level of the pipeline. KFP's cache is off: a step finds cached results in the store itself. CPU and
        memory are requests, without limits: a training in the step itself uses what the node has. The hours are a deadline;
        the RayJob that the step watches has its own, shorter one. KFP's local runner ignores all of it.
        """
        # Optional: where the service account has access to the store itself there is no Secret.
        kubernetes.use_secret_as_env(task, self.nodes["store_secret"], SECRET_KEYS, optional=True)
        kubernetes.add_node_selector_json(task, self.nodes["node_selector"])
        kubernetes.add_toleration_json(task, self.nodes["tolerations"])
        kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
        kubernetes.set_timeout(task, hours * HOUR)
        for key, value in NOT_EVICTED.items():
            kubernetes.add_pod_annotation(task, key, value)
        task.set_cpu_request(cpu)
        task.set_memory_request(memory)
        task.set_caching_options(False)
        return task


def _share_memory(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Give loader workers room for their batches: a container has 64 MiB of shared memory, two batches of 32 at 224 px."""
    return kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory")  # noqa: S108


def _named(component: Any, name: str) -> Any:
    """The component under another name, which its task, pods and log then have in Kubeflow's page."""
    if name == component.name:
        return component
    spec = copy.copy(component.component_spec)
    spec.name = name
    return type(component)(component_spec=spec, python_func=component.python_func)
