"""The cache of stages: an entry, written last, says that a stage has run on these inputs, and where its output lies."""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import hep2flow
from hep2flow.cells import DIGEST_LENGTH
from hep2flow.errors import UserError
from hep2flow.stage_result import StageResult
from hep2flow.store import layout
from hep2flow.store.publish import find_published
from hep2flow.store.s3 import Store

OutputKind = Literal["folder", "object"]

# What a stage's result depends on: a change there, and only there, makes the stage run again.
MODEL = ("cells.py", "selected_on_test.py", "data", "network/model.py", "training/losses.py", "training/checkpoint.py")
TRAINING = ("network/freezing.py", "network/synchronised_batch_norm.py", "training")
EVALUATION = (*MODEL, "evaluation", "stages/write_evaluation.py", "reporting/figures.py")
SWEEP = ("distributed/sweep_spec.py", "distributed/train_worker.py", "distributed/trial.py", "stages/tune.py", "search")
SOURCES = {
    "ingest": ("cells.py", "sources", "stages/ingest.py"),
    "mask": ("cells.py", "stages/mask.py"),
    "split": ("stages/split.py",),
    "leakage": ("cells.py", "stages/leakage.py", "stages/split.py"),
    "halve": ("stages/split.py",),
    "train": (*MODEL, *TRAINING, "distributed/train_worker.py", "stages/train.py"),
    "tune": (*MODEL, *TRAINING, *SWEEP, "distributed/run_sweep.py"),
    "judge": (*MODEL, *TRAINING, "evaluation", *SWEEP, "distributed/run_judging.py", "stages/judge.py"),
    "network": ("network/model.py", "network/freezing.py"),
    "evaluate": (*EVALUATION, "stages/evaluate.py", "stages/evaluation_images.py"),
    "report": (
        *("evaluation", "cells.py", "selected_on_test.py", "recipe", "reporting", "search"),
        *(f"reporting/{name}" for name in ("page.css", "page.html.j2", "page.js", "table.html.j2")),
        *(f"stages/{name}.py" for name in ("artifacts", "leakage", "report", "split")),
    ),
    "external": (*EVALUATION, "stages/evaluate_external.py"),
}


@dataclass(frozen=True)
class CachedStage:
    """One stage on certain inputs, by its :func:`stage_key`, whose result the cache may hold."""

    store: Store
    stage: str
    key: str

    def lookup(self) -> StageResult | None:
        """Return the cached result; None where the stage has to run."""
        if (entry := lookup(self.store, self.stage, self.key)) is None:
            return None
        uri, summary = entry["output"]["uri"], entry["summary"]
        return StageResult(stage=self.stage, key=self.key, uri=uri, cached=True, summary=summary)

    def commit(self, uri: str, kind: OutputKind, summary: dict[str, Any]) -> StageResult:
        """Cache the result of a stage whose output, a published folder or an object, is complete; returns it."""
        commit(self.store, self.stage, self.key, {"output": {"uri": uri, "kind": kind}, "summary": summary})
        return StageResult(stage=self.stage, key=self.key, uri=uri, summary=summary)


def stage_key(stage: str, inputs: dict[str, Any], code: str | None = None) -> str:
    """Compute the key of a stage on these inputs: 32 hexadecimal digits.

    Args:
        stage: Name of the stage.
        inputs: Everything JSON can hold that the result depends on; the order of keys does not matter.
        code: Version of the code that the result depends on; :func:`code_version` of the stage where None.

    Raises:
        ValueError: An input is NaN or infinite.
    """
    facts = {"stage": stage, "inputs": inputs, "code": code_version(stage) if code is None else code}
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


@cache
def code_version(stage: str) -> str:
    """Compute the SHA-256 over the source files a stage depends on, names and bytes."""
    package = Path(hep2flow.__file__).parent
    total = hashlib.sha256()
    for source in SOURCES[stage]:
        path = package / source
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            if file.exists():
                total.update(f"{file.relative_to(package).as_posix()}\0{file.stat().st_size}\0".encode())
                total.update(file.read_bytes())
    return total.hexdigest()


def lookup(store: Store, stage: str, key: str) -> dict[str, Any] | None:
    """Return the entry of a stage's key; None where there is none, or its output is incomplete: the stage has to run.

    A stage that only computes facts has the output None.
    """
    entry = store.find_json(layout.cache_key(stage, key))
    if entry is None or entry["output"] is None:
        return entry
    try:
        output = store.key(entry["output"]["uri"])
    except UserError:  # the entry was copied here from another store, its output was not
        return None
    is_object = entry["output"]["kind"] == "object"
    complete = store.exists(output) if is_object else find_published(store, output) is not None
    return entry if complete else None


def commit(store: Store, stage: str, key: str, entry: dict[str, Any]) -> None:
    """Write a stage's entry; to be called last, once its output is complete.

    The entry has ``output`` = {"uri": s3://…, "kind": "folder" | "object"} or None, and whatever else the stage returns.
    """
    if (output := entry["output"]) is not None:
        if output["kind"] not in get_args(OutputKind):
            raise ValueError(f"an output is a folder or an object, not {output['kind']!r}")
        store.key(output["uri"])
    store.put_json(layout.cache_key(stage, key), entry)
