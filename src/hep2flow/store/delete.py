"""Delete a run, and what only it references.

References are read from the texts themselves: every URI of this store in a run's records and in a manifest.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import NamedTuple

from hep2flow.errors import UserError
from hep2flow.store import layout
from hep2flow.store.errors import NotThereError
from hep2flow.store.runs import LOST_AFTER, now, show_run
from hep2flow.store.s3 import Store

# What runs share, by its key in the store.
SHARED = r"(?:trainings|evaluations|sweeps)/[0-9a-f]{32}|datasets/[^/\"\s]+/[0-9a-f]{32}|splits/[0-9a-f]{32}\.parquet"
DELETION_PLAN = "deleting.json"


class Part(NamedTuple):
    """A folder or a single object, by its key in the store, with the number of objects and their bytes."""

    key: str
    objects: int
    bytes: int


class Deletion(NamedTuple):
    """What is deleted with a run."""

    run_id: str
    parts: list[Part]  # the run itself, then what only it references, each before what it references itself
    cache: list[str]  # entries of the cache whose output is deleted
    stays: list[str]  # what the run references, and others too


def plan_deletion(store: Store, run_id: str) -> Deletion:
    """Return what :func:`delete_run` would delete; nothing is changed.

    What others reference stays: the other runs, and trainings, sweeps and data sets that no run references. A data set
    stays while one that was masked from it does.

    Raises:
        UserError: There is no such run, or it is running.
    """
    folder = layout.run_prefix(run_id)
    if not any(True for _ in store.list_objects(folder)):
        raise UserError(f"{store.uri(folder)}: there is no such run; `hep2flow runs list` names them")
    _refuse_running(store, run_id)

    @cache
    def direct(key: str) -> frozenset[str]:
        return frozenset(_find_uris(store, [f"{key}/{layout.MANIFEST}"])) - {key}

    def reachable(keys: Iterable[str]) -> set[str]:
        found: set[str] = set()
        pending = list(keys)
        while pending:
            if (key := pending.pop()) not in found:
                found.add(key)
                pending += direct(key)
        return found

    own = reachable(_run_references(store, run_id))
    others = {key for other in store.folders(layout.RUNS) if other != run_id for key in _run_references(store, other)}
    folders = ["trainings", "sweeps", *(f"datasets/{name}" for name in store.folders("datasets"))]
    everything = {f"{prefix}/{key}" for prefix in folders for key in store.folders(prefix)}
    stays = reachable(others | (everything - own))
    # Whatever references a thing reaches more than the thing itself does.
    deleted = sorted(own - stays, key=lambda key: (-len(reachable([key])), key))
    parts = [part for key in (folder, *deleted) if (part := _measure(store, key)).objects]
    outputs = {item.key: store.get_json(item.key)["output"] for item in store.list_objects("cache")}
    entries = [key for key, output in outputs.items() if output and _shared_keys(store, output["uri"]) & {*deleted}]
    return Deletion(run_id, parts, entries, sorted(own & stays))


def delete_run(store: Store, deletion: Deletion) -> None:
    """Delete what was planned, the record of the run and each manifest first: no half-deleted folder looks complete.

    The plan is written before, in the run's folder, which is deleted last: after an interruption the same call deletes
    the rest.
    """
    folder, *shared = [part.key for part in deletion.parts]
    store.put_json(f"{folder}/{DELETION_PLAN}", [store.uri(key) for key in shared])
    store.delete([layout.run_record(deletion.run_id), *deletion.cache])
    for key in shared:
        if key.startswith("splits/"):
            store.delete([key])
        else:
            store.delete_folder(key)
    store.delete_folder(layout.report_prefix(deletion.run_id))
    store.delete_folder(folder)


def _refuse_running(store: Store, run_id: str) -> None:
    if not store.exists(layout.run_record(run_id)):  # its deletion was interrupted
        return
    view = show_run(store, run_id)
    watched = view.run.status in ("submitted", "running") and now() - view.last_sign <= LOST_AFTER
    if watched or "running" in view.stage_status.values():
        sign = f"its last sign of life is from {view.last_sign:%Y-%m-%d %H:%M:%S} UTC"
        remedy = "end it first, or wait until `hep2flow runs show` calls it lost"
        raise UserError(f"run {run_id}: is running, {sign}; {remedy}")


def _run_references(store: Store, run_id: str) -> set[str]:
    """What a run references itself: the URIs in its records, and the outputs of its keys."""
    stages = [item.key for item in store.list_objects(layout.stages_prefix(run_id))]
    plan = f"{layout.run_prefix(run_id)}/{DELETION_PLAN}"
    found = _find_uris(store, [layout.run_record(run_id), plan, *stages])
    for key in stages:
        record = store.get_json(key)
        # A stage that has not ended, or failed, names its output by its key alone.
        if record.get("key") and record.get("stage") in layout.OUTPUT_FOLDERS:
            found.add(layout.output_prefix(record["stage"], record["key"]))
    return found


def _find_uris(store: Store, keys: Iterable[str]) -> set[str]:
    """Keys of what the existing ones of these objects reference."""
    found: set[str] = set()
    for key in keys:
        with suppress(NotThereError):
            found |= _shared_keys(store, store.get_bytes(key).decode())
    return found


def _shared_keys(store: Store, text: str) -> set[str]:
    return set(re.findall(f"{re.escape(store.uri(''))}({SHARED})", text))


def _measure(store: Store, key: str) -> Part:
    if key.startswith("splits/"):
        return Part(key, 1, store.size(key)) if store.exists(key) else Part(key, 0, 0)
    sizes = [item.size for item in store.list_objects(key)]
    return Part(key, len(sizes), sum(sizes))
