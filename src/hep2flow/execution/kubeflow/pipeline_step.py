"""What every pipeline step does around its stage: opens the store, writes the stage's record, sets the exit code."""

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hep2flow.errors import UserError
from hep2flow.process import raise_on_sigterm, skip_last_collection
from hep2flow.stage_result import StageResult
from hep2flow.stages.begin import run_id_of
from hep2flow.store.address import StoreAddress
from hep2flow.store.open_store import open_store
from hep2flow.store.outage import log_to_stderr
from hep2flow.store.runs import RunRecord, StageRecord, claim_run, read_run
from hep2flow.store.s3 import Store
from hep2flow.store.stage_recorder import running_stage

EXIT_USER = 2


@dataclass(frozen=True)
class Step:
    """A stage's work for one attempt of a run."""

    store: Store
    run: RunRecord  # at the start of the attempt
    record: StageRecord  # which the stage's block completes


def open_pipeline_store(address: dict[str, Any]) -> Store:
    """Open the pipeline's store: its address is a parameter, its credentials are in the environment.

    Waits for the store: where network policies are enforced, a pod's first connections are refused for up to a minute.
    """
    return open_store(StoreAddress(**{**address, "endpoint": address.get("endpoint") or None}), log_to_stderr)


@contextmanager
def step(
    store: dict[str, Any], run_id: str, job_id: str, stage: str, model: str | None = None, first: bool = False
) -> Iterator[Step]:
    """Run a stage as a step of a run; its errors end the process, with the message last in the log.

    ``run_id`` is empty for the run that follows from the pipeline's job, whose id names the attempt; ``model`` is None for
    a stage that serves all models; ``first`` says whether this is the attempt's first step.
    """
    with exit_on_error():
        opened, run_id = open_pipeline_store(store), run_id_of(run_id, job_id)
        run = claim_run(opened, run_id, job_id) if first else read_run(opened, run_id)
        with running_stage(opened, run_id, stage, model, job_id) as record:
            yield Step(opened, run, record)


def describe_artifact(artifact: Any, *results: StageResult) -> None:
    """Write a stage's URI, key and main figures to an artifact's metadata and file; of several results the URIs alone."""
    metadata = {result.key: result.uri for result in results}
    if len(results) == 1:
        metadata = {"uri": results[0].uri, "key": results[0].key, **_figures(results[0].summary)}
    artifact.metadata.update(metadata)
    Path(artifact.path).parent.mkdir(parents=True, exist_ok=True)
    Path(artifact.path).write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")


def _figures(summary: dict[str, Any]) -> dict[str, Any]:
    """Scalars of a summary; without NaN and infinity, for which Kubeflow refuses the artifact."""
    plain = {name: value for name, value in summary.items() if isinstance(value, (str, int, float)) and value != ""}
    return {name: value for name, value in plain.items() if not isinstance(value, float) or math.isfinite(value)}


@contextmanager
def exit_on_error() -> Iterator[None]:
    """End the process with 2 and a message for a UserError, with 143 for SIGTERM, without a traceback."""
    skip_last_collection()
    try:
        with raise_on_sigterm():
            yield
    except UserError as error:
        print(f"hep2flow: {error}", file=sys.stderr)
        sys.exit(EXIT_USER)
