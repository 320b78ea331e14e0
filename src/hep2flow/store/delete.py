"""Delete: a run, and what only it refers to.

What refers to what is read from the texts themselves: every URI of this store in a run's records and in a manifest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

from hep2flow.errors import UserError
from hep2flow.store import layout
from hep2flow.store.errors import NotThereError
from hep2flow.store.runs import LOST_AFTER, now, show_run
from hep2flow.store.s3 import MANIFEST, Store

# What runs share, by its key in the store.
SHARED = r"(?:trainings|evaluations|sweeps)/[0-9a-f]{32}|datasets/[^/\"\s]+/[0-9a-f]{32}|splits/[0-9a-f]{32}\.parquet"
# A stage that has not ended, or failed, names its output by its key alone.
OUTPUTS: dict[str, Callable[[str], str]] = {
    "train": layout.training_prefix,
    "tune": layout.sweep_prefix,
    "evaluate": layout.evaluation_prefix,
    "external": layout.evaluation_prefix,
}
BEGUN = "deleting.json"


@dataclass(frozen=True)
class Part:
    """key: in the store, of a folder or of one object; objects, bytes: how much lies there."""

    key: str
    objects: int
    bytes: int


@dataclass(frozen=True)
class Deletion:
    """What goes with a run.

    parts: the run itself, then what only it refers to, each before what it refers to itself
    cache: entries of the cache whose output goes
    stays: what the run refers to, and others too
    """

    run_id: str
    parts: list[Part]
    cache: list[str]
    stays: list[str]

    @property
    def bytes(self) -> int:
        """Of all parts."""
        return sum(part.bytes for part in self.parts)


def plan_deletion(store: Store, run_id: str) -> Deletion:
    """What :func:`delete_run` would delete; nothing is changed.

    Others that keep what they refer to are the other runs, and trainings, sweeps and data sets that no run refers to:
    a data set stays while one that was masked from it does.
    Raises UserError where there is no such run, and for one that is running.
    """
    folder = layout.run_prefix(run_id)
    if not any(True for _ in store.list(folder)):
        raise UserError(f"{store.uri(folder)}: there is no such run; `hep2flow runs list` names them")
    _refuse_running(store, run_id)

    @cache
    def named(thing: str) -> frozenset[str]:
        return frozenset(_named_in(store, [f"{thing}/{MANIFEST}"])) - {thing}

    def reached(things: Iterable[str]) -> set[str]:
        found: set[str] = set()
        waiting = list(things)
        while waiting:
            if (thing := waiting.pop()) not in found:
                found.add(thing)
                waiting += named(thing)
        return found

    own = reached(_referred(store, run_id))
    others = {thing for other in store.folders(layout.RUNS) if other != run_id for thing in _referred(store, other)}
    stays = reached(others | (set(_standing(store)) - own))
    # Whoever refers to a thing reaches more than the thing itself does.
    goes = sorted(own - stays, key=lambda thing: (-len(reached([thing])), thing))
    parts = [part for key in (folder, *goes) if (part := _measured(store, key)).objects]
    return Deletion(run_id, parts, _entries(store, set(goes)), sorted(own & stays))


def delete_run(store: Store, deletion: Deletion) -> None:
    """Delete what was planned, the record of the run and each manifest first: what is left of it looks like nothing whole.

    What is to go is written down before, in the run's folder, which goes last: after an interruption the same again
    deletes the rest.
    """
    folder, *shared = [part.key for part in deletion.parts]
    store.put_json(f"{folder}/{BEGUN}", [store.uri(key) for key in shared])
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
    latest = view.last_sign
    if "running" in view.stage_status.values() or (
        view.run.status in ("submitted", "running") and now() - latest <= LOST_AFTER
    ):
        raise UserError(
            f"run {run_id}: is running, its last sign of life is from {latest:%Y-%m-%d %H:%M:%S} UTC; "
            "end it first, or wait until `hep2flow runs show` calls it lost"
        )


def _referred(store: Store, run_id: str) -> set[str]:
    """What a run refers to itself: the URIs in its records, and the outputs of its keys."""
    stages = [item.key for item in store.list(layout.stages_prefix(run_id))]
    folder = layout.run_prefix(run_id)
    found = _named_in(store, [layout.run_record(run_id), f"{folder}/{BEGUN}", *stages])
    for key in stages:
        record = store.get_json(key)
        if record.get("key") and record.get("stage") in OUTPUTS:
            found.add(OUTPUTS[record["stage"]](record["key"]))
    return found


def _named_in(store: Store, keys: Iterable[str]) -> set[str]:
    """What the objects of these keys name, as far as they are there."""
    uri = re.compile(f"{re.escape(store.uri(''))}({SHARED})")
    found: set[str] = set()
    for key in keys:
        try:
            found.update(uri.findall(store.get_bytes(key).decode()))
        except NotThereError:
            continue
    return found


def _standing(store: Store) -> Iterable[str]:
    """Every training, sweep and data set in the store."""
    for kind in ("trainings", "sweeps"):
        yield from (f"{kind}/{key}" for key in store.folders(kind))
    for name in store.folders("datasets"):
        yield from (f"datasets/{name}/{digest}" for digest in store.folders(f"datasets/{name}"))


def _measured(store: Store, key: str) -> Part:
    if key.startswith("splits/"):
        return Part(key, 1, store.size(key)) if store.exists(key) else Part(key, 0, 0)
    sizes = [item.size for item in store.list(key)]
    return Part(key, len(sizes), sum(sizes))


def _entries(store: Store, goes: set[str]) -> list[str]:
    """Entries of the cache that name an output which goes."""
    uri = re.compile(f"{re.escape(store.uri(''))}({SHARED})")
    found = []
    for item in store.list("cache"):
        output = store.get_json(item.key)["output"]
        if output is not None and (match := uri.match(output["uri"])) and match[1] in goes:
            found.append(item.key)
    return found
