"""The tasks that every pipeline here consists of, each with its resources.

    ingest -> mask, split -> for each model {train -> evaluate} -> report

Argo advances a run every ten seconds (DEFAULT_REQUEUE_TIME), so a run lasts as long as its longest chain of pods: nothing
here is nested, and independent tasks run side by side.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

from kfp import dsl

from hep2flow.components.begin import begin
from hep2flow.components.evaluate import evaluate
from hep2flow.components.ingest import ingest
from hep2flow.components.mask import mask
from hep2flow.components.report import report
from hep2flow.components.split import split
from hep2flow.components.train import train
from hep2flow.components.tune import tune
from hep2flow.pipelines.placement import place


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
        return place(begin(**self._on_ray, **parameters), self.nodes, cpu="100m", memory="512Mi", hours=1)

    def prepare(self, source: Any, format: Any, after: dsl.PipelineTask | None = None) -> Cells:
        """Ingest, and mask beside split: a split fits a data set however it is masked."""
        ingested = ingest(**self._run, source=source, format=format)
        if after is not None:
            ingested.after(after)
        dataset = ingested.outputs["dataset"]
        masked = mask(**self._run, dataset=dataset)
        divided = split(**self._run, dataset=dataset, given_split=ingested.outputs["given_split"])
        place(ingested, self.nodes, cpu="1", memory="2Gi", hours=6)
        place(masked, self.nodes, cpu="2", memory="2Gi", hours=6)
        place(divided, self.nodes, cpu="500m", memory="1Gi", hours=1)
        return Cells(masked.outputs["Output"], divided.output)

    def tune(self, recipe: Any, cells: Cells, name: str = "tune") -> dsl.PipelineTask:
        """Sweep one recipe; outputs ``model``, ``sweep`` and ``judgement``."""
        task = _named(tune, name)(**self._on_ray, recipe=recipe, **cells._asdict())
        return place(task, self.nodes, cpu="500m", memory="2Gi", hours=168)

    def train_and_evaluate(self, models: Any, cells: Cells, sweep: Any = "", mark: str = "") -> Any:
        """Train a model and evaluate it; returns the evaluation's URI.

        ``models`` is its name in the run; several, with spaces between, come one after the other. ``sweep`` is the URI of
        the sweep that chose its recipe; empty for a recipe trained as it is. ``mark`` ends the tasks' names.
        """
        shared = {**self._on_ray, **cells._asdict(), "models": models, "sweep": sweep}
        trained = _named(train, f"train{mark}")(**shared)
        evaluated = _named(evaluate, f"evaluate{mark}")(**shared, trainings=trained.outputs["Output"])
        place(trained, self.nodes, cpu="500m", memory="2Gi", hours=168)
        place(evaluated, self.nodes, cpu="1", memory="4Gi", hours=24)
        return evaluated.outputs["Output"]

    def report(self, evaluations: Any, sweeps: Any = (), judgements: Any = ()) -> None:
        """Write the page of all models, which ends the run."""
        found = {"evaluations": evaluations, "sweeps": sweeps or [], "judgements": judgements or []}
        place(report(**self._run, **found), self.nodes, cpu="1", memory="2Gi", hours=1)


def _named(component: Any, name: str) -> Any:
    """The component under another name, which its task, pods and log then have in Kubeflow's page."""
    if name == component.name:
        return component
    spec = copy.copy(component.component_spec)
    spec.name = name
    return type(component)(component_spec=spec, python_func=component.python_func)
