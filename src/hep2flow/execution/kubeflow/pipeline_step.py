"""What every pipeline step does around its stage: open the store, keep the stage's record, end with the right exit code."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hep2flow.errors import UserError
from hep2flow.process import ended_by_sigterm, skip_last_collection
from hep2flow.stage_result import StageResult
from hep2flow.stages.begin import run_id_of
from hep2flow.store.outage import to_standard_error
from hep2flow.store.runs import RunRecord, StageRecord, read_run, running_stage, take_over
from hep2flow.store.s3 import Store, StoreAddress, open_store

EXIT_USER = 2


@dataclass(frozen=True)
class Step:
    """A stage's work for one attempt of a run.

    Attributes:
        store: Where everything lies.
        run: The run's record, as the attempt began.
        record: The stage's, which its block fills.
    """

    store: Store
    run: RunRecord
    record: StageRecord


def store_of(address: dict[str, Any]) -> Store:
    """The store a pipeline passes on: address in the parameters, credentials in the environment.

    It is waited for: where network policies are enforced, a pod's first connections are refused for up to a minute.
    """
    return open_store(StoreAddress(**{**address, "endpoint": address.get("endpoint") or None}), to_standard_error)


@contextmanager
def step(
    store: dict[str, Any], run_id: str, job_id: str, stage: str, model: str | None = None, first: bool = False
) -> Iterator[Step]:
    """Run a stage as a step of a run; its errors end the process, with the message last in the log.

    Args:
        store: Address of the store.
        run_id: The run; empty for the one that follows from the pipeline's job.
        job_id: Of the pipeline, which names the attempt.
        stage: Name of the stage.
        model: Which the stage serves; None for one that serves all.
        first: Whether the attempt begins with this step.
    """
    with mendable():
        opened, run_id = store_of(store), run_id_of(run_id, job_id)
        run = take_over(opened, run_id, job_id) if first else read_run(opened, run_id)
        with running_stage(opened, run_id, stage, model, job_id) as record:
            yield Step(opened, run, record)


def describe(artifact: Any, *results: StageResult) -> None:
    """Show in Kubeflow's lineage what a stage made: URI, key and main figures; of several things the URIs alone.

    The artifact's own file says the same; the data stays where it is.
    """
    if len(results) == 1:
        (result,) = results
        shown = {"uri": result.uri, "key": result.key, **_figures(result.summary)}
    else:
        shown = {result.key: result.uri for result in results}
    artifact.metadata.update(shown)
    Path(artifact.path).parent.mkdir(parents=True, exist_ok=True)
    Path(artifact.path).write_text(json.dumps(shown, indent=2) + "\n", encoding="utf-8")


def _figures(summary: dict[str, Any]) -> dict[str, Any]:
    """What a line of a page takes, without lists and tables; Kubeflow refuses an artifact for one figure that is none."""
    plain = {name: value for name, value in summary.items() if isinstance(value, (str, int, float)) and value != ""}
    return {name: value for name, value in plain.items() if not isinstance(value, float) or math.isfinite(value)}


@contextmanager
def mendable() -> Iterator[None]:
    """A UserError ends the process with exit code 2 and its message, SIGTERM with 143, without a traceback."""
    skip_last_collection()
    try:
        with ended_by_sigterm():
            yield
    except UserError as error:
        print(f"hep2flow: {error}", file=sys.stderr)
        sys.exit(EXIT_USER)
