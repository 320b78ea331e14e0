"""Pull: a run's artifacts, from the store to a folder, named by model instead of by key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from hep2flow.errors import UserError
from hep2flow.store import layout
from hep2flow.store.runs import show_run
from hep2flow.store.s3 import Store

Part = Literal["report", "metrics", "checkpoints"]


def pull(
    store: Store, run_id: str, folder: Path, only: Part | None = None, progress: Callable[[str], None] | None = None
) -> list[Path]:
    """Copy a run into ``folder``; returns the files written.

    only: report (``report/``) | metrics (``evaluations/{model}/``) | checkpoints (``trainings/{model}/``);
          None: all three, and the run's own records
    Raises UserError where there is no such run, or nothing of what was asked for.
    """
    view = show_run(store, run_id)
    sources: dict[str, str] = {}
    if only in {None, "report"}:
        sources["report"] = layout.report_prefix(run_id)
    for record in view.stages:
        if record.status == "succeeded" and record.key is not None and record.model is not None:
            if record.stage == "evaluate" and only in {None, "metrics"}:
                sources[f"evaluations/{record.model}"] = layout.evaluation_prefix(record.key)
            if record.stage == "train" and only in {None, "checkpoints"}:
                sources[f"trainings/{record.model}"] = layout.training_prefix(record.key)
    written: list[Path] = []
    for name, prefix in sources.items():
        if progress is not None:
            progress(name)
        if store.published(prefix) is not None:
            written += store.get_folder(prefix, folder / name)
    if not written:
        raise UserError(f"run {run_id} ({view.status}): has no {only or 'results'} yet; `hep2flow runs show {run_id}`")
    if only is None:
        store.get_file(layout.run_record(run_id), folder / "run.json")
        written.append(folder / "run.json")
    return written
