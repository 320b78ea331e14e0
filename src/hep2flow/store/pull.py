"""Pull a run's artifacts from the store to a folder, named by model instead of by key."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from hep2flow.errors import UserError
from hep2flow.store import layout
from hep2flow.store.errors import DamagedError, NotThereError
from hep2flow.store.local_files import file_sha256, safe_path
from hep2flow.store.runs import RunView, show_run
from hep2flow.store.s3 import Store

Part = Literal["report", "metrics", "checkpoints"]
Progress = Callable[[str, int, int], None]  # name of a file, bytes done, bytes in all


class Pulled(NamedTuple):
    """The run's files in the folder, and how many of them were downloaded."""

    files: list[Path]
    fetched: int


class _ManifestFile(NamedTuple):
    """A file that a manifest names, by its key in the store and its name in the folder."""

    key: str
    name: str
    size: int
    sha256: str


def pull(store: Store, run_id: str, folder: Path, only: Part | None = None, progress: Progress | None = None) -> Pulled:
    """Copy a run into ``folder``. Equal files in the folder are not downloaded again; an interrupted download resumes.

    ``only`` is report (``report/``) | metrics (``evaluations/{model}/``, ``external/{model}-on-{data set}/``,
    ``sweeps/{recipe}/``) | checkpoints (``trainings/{model}/``); None: all of them, and the run's own record.
    ``progress`` is called after each block.

    Raises:
        UserError: There is no such run, nothing of what was requested, or a file does not match its manifest.
    """
    view = show_run(store, run_id)
    files: list[_ManifestFile] = []
    manifests: dict[str, str] = {}
    for part, prefix in _parts(view, only):
        key = f"{prefix}/{layout.MANIFEST}"
        try:
            facts = store.get_json(key)["files"]
        except NotThereError as error:
            if part == "report":  # written last: the run may not have finished
                continue
            raise _with_remedy(error, run_id) from error
        manifests[key] = f"{part}/{layout.MANIFEST}"
        files += [_ManifestFile(f"{prefix}/{name}", f"{part}/{name}", **fact) for name, fact in facts.items()]
    if not files:
        raise UserError(f"run {run_id} ({view.status}): has no {only or 'results'} yet; `hep2flow runs show {run_id}`")
    fetched = _fetch(store, run_id, folder, files, progress)
    # Small, and named by no manifest: always downloaded.
    if only is None:
        manifests[layout.run_record(run_id)] = "run.json"
    for key, name in manifests.items():
        store.get_file(key, folder / name)
    return Pulled(sorted(folder / name for name in (*(file.name for file in files), *manifests.values())), fetched)


def _parts(view: RunView, only: Part | None) -> Iterator[tuple[str, str]]:
    """Folders of a run and the prefixes they come from."""
    if only in {None, "report"}:
        yield "report", layout.report_prefix(view.run.run_id)
    for record in view.stages:
        stage, part = record.stage, "checkpoints" if record.stage == "train" else "metrics"
        if stage not in layout.OUTPUT_FOLDERS or only not in {None, part}:
            continue
        if record.status == "succeeded" and record.key and record.model:
            folder = stage if stage == "external" else layout.OUTPUT_FOLDERS[stage]
            yield f"{folder}/{record.model}", layout.output_prefix(stage, record.key)


def _fetch(store: Store, run_id: str, folder: Path, files: list[_ManifestFile], progress: Progress | None) -> int:
    """Download the files that are missing or different; returns how many."""
    fetched = done = 0
    total = sum(file.size for file in files)
    for file in files:

        def report(written: int, name: str = file.name, before: int = done) -> None:
            if progress is not None:
                progress(name, before + written, total)

        path = safe_path(folder, file.name)
        if not (path.is_file() and path.stat().st_size == file.size and file_sha256(path) == file.sha256):
            try:
                store.resume_file(file.key, path, file.size, file.sha256, report)
            except (DamagedError, NotThereError) as error:
                raise _with_remedy(error, run_id) from error
            fetched += 1
        report(file.size)
        done += file.size
    return fetched


def _with_remedy(error: Exception, run_id: str) -> UserError:
    remedy = f"delete that object in the store and give the command of run {run_id} again, which makes it anew"
    return UserError(f"{error}; {remedy}")
