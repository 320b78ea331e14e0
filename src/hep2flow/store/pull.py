"""Pull: a run's artifacts, from the store to a folder, named by model instead of by key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from hep2flow.errors import UserError
from hep2flow.store import layout
from hep2flow.store.errors import DamagedError, NotThereError
from hep2flow.store.runs import RunView, show_run
from hep2flow.store.s3 import MANIFEST, Store, file_sha256, inside

Part = Literal["report", "metrics", "checkpoints"]
Progress = Callable[[str, int, int], None]  # name of a file, bytes done, bytes in all


class Pulled(NamedTuple):
    """files: of the run in the folder; fetched: how many of them were not there before."""

    files: list[Path]
    fetched: int


class _Named(NamedTuple):
    """A file that a manifest names, by its key in the store and its name in the folder."""

    key: str
    name: str
    size: int
    sha256: str


def pull(store: Store, run_id: str, folder: Path, only: Part | None = None, progress: Progress | None = None) -> Pulled:
    """Copy a run into ``folder``. What is there already, byte for byte, is not fetched again.

    only: report (``report/``) | metrics (``evaluations/{model}/``, ``external/{model}-on-{data set}/``) |
          checkpoints (``trainings/{model}/``); None: all of them, and the run's own record
    Every file is held against its manifest before it gets its name; a download that breaks off is gone on with.
    Raises UserError where there is no such run, nothing of what was asked for, or a file that is not what its manifest
    says.
    """
    view = show_run(store, run_id)
    named: list[_Named] = []
    manifests: dict[str, str] = {}
    for part, prefix in _parts(view, only):
        key = f"{prefix}/{MANIFEST}"
        try:
            facts = store.get_json(key)["files"]
        except NotThereError as error:
            if part == "report":  # written last: a run may not have come to it
                continue
            raise _mendable(error, run_id) from error
        manifests[key] = f"{part}/{MANIFEST}"
        named += [_Named(f"{prefix}/{name}", f"{part}/{name}", **fact) for name, fact in facts.items()]
    if not named:
        raise UserError(f"run {run_id} ({view.status}): has no {only or 'results'} yet; `hep2flow runs show {run_id}`")
    fetched = 0
    done, total = 0, sum(file.size for file in named)
    for file in named:
        path = inside(folder, file.name)
        if not _there(path, file):
            try:
                store.continue_file(file.key, path, file.size, file.sha256, _adding(progress, file.name, done, total))
            except (DamagedError, NotThereError) as error:
                raise _mendable(error, run_id) from error
            fetched += 1
        done += file.size
        _adding(progress, file.name, done, total)(0)
    # Small, and named by no manifest: always fetched.
    if only is None:
        manifests[layout.run_record(run_id)] = "run.json"
    for key, name in manifests.items():
        store.get_file(key, folder / name)
    return Pulled(sorted(folder / name for name in (*(file.name for file in named), *manifests.values())), fetched)


def _parts(view: RunView, only: Part | None) -> Iterator[tuple[str, str]]:
    """Folders of a run and the prefixes they come from."""
    if only in {None, "report"}:
        yield "report", layout.report_prefix(view.run.run_id)
    for record in view.stages:
        if record.status == "succeeded" and record.key is not None and record.model is not None:
            if record.stage == "evaluate" and only in {None, "metrics"}:
                yield f"evaluations/{record.model}", layout.evaluation_prefix(record.key)
            if record.stage == "external" and only in {None, "metrics"}:
                yield f"external/{record.model}", layout.evaluation_prefix(record.key)
            if record.stage == "train" and only in {None, "checkpoints"}:
                yield f"trainings/{record.model}", layout.training_prefix(record.key)
            if record.stage == "tune" and only in {None, "metrics"}:
                yield f"sweeps/{record.model}", layout.sweep_prefix(record.key)


def _there(path: Path, file: _Named) -> bool:
    return path.is_file() and path.stat().st_size == file.size and file_sha256(path) == file.sha256


def _adding(progress: Progress | None, name: str, done: int, total: int) -> Callable[[int], None]:
    """Tells ``progress`` of bytes of one file, after ``done`` bytes of others."""
    return lambda arrived: None if progress is None else progress(name, done + arrived, total)


def _mendable(error: Exception, run_id: str) -> UserError:
    return UserError(
        f"{error}; delete that object in the store and give the command of run {run_id} again, which makes it anew"
    )
