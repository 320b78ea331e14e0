"""Deleting a run: what goes, what others keep, and what an interruption leaves."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import sys
import termios
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hep2flow.errors import StoreError, UserError
from hep2flow.store import layout
from hep2flow.store.delete import DELETION_PLAN, delete_run, plan_deletion
from hep2flow.store.publish import find_published
from hep2flow.store.runs import RunRecord, StageRecord, finish_run, now, start_run
from hep2flow.store.s3 import Store
from hep2flow.store.stage_cache import commit
from tests.stages.cells_in_store import another, listing
from tests.test_cli import hep2flow


def digest(name: str) -> str:
    return name.encode().hex().ljust(32, "0")[:32]


KINDS = {
    "data": lambda name: f"datasets/{name}/{digest(name)}",
    "split": lambda name: f"splits/{digest(name)}.parquet",
    "train": lambda name: f"trainings/{digest(name)}",
    "evaluate": lambda name: f"evaluations/{digest(name)}",
    "tune": lambda name: f"sweeps/{digest(name)}",
}


def make(store: Store, kind: str, name: str, **manifest: Any) -> str:
    """An output as a stage leaves it, with its cache entry; its key."""
    key = KINDS[kind](name)
    if kind == "split":
        store.put_bytes(key, b"PAR1")
        form = "object"
    else:
        store.put_bytes(f"{key}/data", name.encode())
        store.put_json(f"{key}/manifest.json", {"files": {}, **manifest})
        form = "folder"
    stage = {"data": "ingest"}.get(kind, kind)
    commit(store, stage, digest(name), {"output": {"uri": store.uri(key), "kind": form}, "summary": {}})
    return key


def begin(store: Store, run_id: str, status: str = "succeeded", **parameters: Any) -> None:
    start_run(store, RunRecord(run_id=run_id, parameters=parameters))
    finish_run(store, run_id, status)  # type: ignore[arg-type]


def refer(store: Store, run_id: str, stage: str, key: str, model: str | None = None, **result: Any) -> None:
    record = StageRecord(run_id=run_id, stage=stage, model=model, status="succeeded", key=Path(key).stem)
    record.result = {"uri": store.uri(key), **result}
    store.put_json(layout.stage_record(run_id, stage, model), record.model_dump(mode="json"))


def whole_run(store: Store, run_id: str, data: str, model: str) -> dict[str, str]:
    """A run with everything a run has; the key of each."""
    parent = make(store, "data", data, facts={"parent": None})
    masked = make(store, "data", f"{data}-masked", facts={"parent": store.uri(parent)})
    split = make(store, "split", data)
    training = make(store, "train", model, dataset=store.uri(masked), split=store.uri(split))
    store.put_bytes(f"{training}/resume/states.json", b"{}")
    evaluation = make(store, "evaluate", model, training=store.uri(training), dataset=store.uri(masked))
    begin(store, run_id, source="s3://elsewhere/cells")
    refer(store, run_id, "ingest", parent, summary={"given_split": ""})
    refer(store, run_id, "mask", masked)
    refer(store, run_id, "split", split)
    refer(store, run_id, "train", training, "atto")
    refer(store, run_id, "evaluate", evaluation, "atto")
    store.put_json(f"runs/{run_id}/report/manifest.json", {"evaluations": [store.uri(evaluation)], "files": {}})
    store.put_bytes(f"runs/{run_id}/report/index.html", b"<p>")
    return {"parent": parent, "masked": masked, "split": split, "training": training, "evaluation": evaluation}


def deleted(store: Store, run_id: str) -> set[str]:
    """Delete a run; the folders and objects that went with it."""
    deletion = plan_deletion(store, run_id)
    before = listing(store)
    delete_run(store, deletion)
    gone = before.keys() - listing(store).keys()
    assert sum(before[key] for key in gone if not key.startswith("cache/")) == sum(
        part.bytes for part in deletion.parts
    )
    parts = {part.key for part in deletion.parts}
    assert {
        key for key in gone if not key.startswith("cache/") and not any(key.startswith(part) for part in parts)
    } == set()
    return parts


def test_the_only_run_is_deleted_with_everything_of_its_own(store: Store) -> None:
    store.put_bytes("weights/hub/x.json", b"{}")
    commit(store, "network", digest("n"), {"output": None})
    before = listing(store)
    made = whole_run(store, "first", "cells", "one")
    assert deleted(store, "first") == {"runs/first", *made.values()}
    assert listing(store) == before


def test_what_another_run_refers_to_stays(store: Store) -> None:
    first = whole_run(store, "first", "cells", "one")
    second = whole_run(store, "second", "cells", "two")
    assert plan_deletion(store, "first").stays == sorted(first[name] for name in ("parent", "masked", "split"))
    assert deleted(store, "first") == {"runs/first", first["training"], first["evaluation"]}
    assert deleted(store, "second") == {"runs/second", *second.values()}


def test_a_network_that_another_run_starts_from_stays_with_all_it_came_from(store: Store) -> None:
    first = whole_run(store, "first", "cells", "one")
    begin(store, "second")
    key = layout.run_record("second")
    weights = {"model": {"weights": f"{store.uri(first['training'])}/best.safetensors"}}
    store.put_json(key, {**store.get_json(key), "recipes": {"atto": weights}})
    assert deleted(store, "first") == {"runs/first", first["evaluation"]}


def test_a_data_set_stays_while_one_that_was_masked_from_it_does(store: Store) -> None:
    made = whole_run(store, "first", "cells", "one")
    cropped = make(store, "data", "cropped", facts={"parent": store.uri(made["parent"])})
    assert plan_deletion(store, "first").stays == [made["parent"]]
    deleted(store, "first")
    assert {key.rsplit("/", 1)[0] for key in listing(store) if key.startswith("datasets")} == {made["parent"], cropped}


def test_a_sweep_that_no_run_refers_to_keeps_its_cells(store: Store) -> None:
    made = whole_run(store, "first", "cells", "one")
    make(store, "tune", "mine", dataset=store.uri(made["masked"]), split=store.uri(made["split"]))
    assert plan_deletion(store, "first").stays == sorted(made[name] for name in ("parent", "masked", "split"))


def test_a_sweep_of_the_run_is_deleted_with_the_split_that_only_it_references(store: Store) -> None:
    halves = make(store, "split", "halves")
    sweep = make(store, "tune", "sweep", split=store.uri(halves))
    begin(store, "first")
    refer(store, "first", "judge", f"{sweep}/judgements/{digest('j')}.json", "atto")
    assert deleted(store, "first") == {"runs/first", sweep, halves}


def test_the_state_of_a_failed_training_is_deleted_too(store: Store) -> None:
    key = f"trainings/{digest('t')}"
    store.put_bytes(f"{key}/resume/00000001-state", b"state")
    begin(store, "first", "failed")
    record = StageRecord(run_id="first", stage="train", model="atto", status="failed", key=digest("t"))
    store.put_json(layout.stage_record("first", "train", "atto"), record.model_dump(mode="json"))
    assert deleted(store, "first") == {"runs/first", key}


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[str, set[int]], dict[int, set[int]]]:
    """Runs, each with the data sets it refers to; data sets, each with those that its manifest names, of lower number."""
    count = draw(st.integers(1, 6))
    edges = {i: draw(st.sets(st.integers(0, i - 1), max_size=2)) if i else set() for i in range(count)}
    runs = {name: draw(st.sets(st.integers(0, count - 1), max_size=3)) for name in ("a", "b", "c")}
    return runs, edges


@given(graphs())
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_exactly_what_nothing_else_references_is_deleted(
    store: Store, graph: tuple[dict[str, set[int]], dict[int, set[int]]]
) -> None:
    runs, edges = graph

    def reach(start: set[int]) -> set[int]:
        return start.union(*(reach(edges[one]) for one in start)) if start else set()

    place = another(store)
    names = {i: make(place, "data", f"d{i}") for i in edges}
    for i, named in edges.items():
        place.put_json(f"{names[i]}/manifest.json", {"files": {}, "names": [place.uri(names[j]) for j in named]})
    for run_id, start in runs.items():
        begin(place, run_id, uses=[place.uri(names[i]) for i in start])
    own = reach(runs["a"])
    stays = reach(runs["b"] | runs["c"] | (edges.keys() - own))
    assert deleted(place, "a") == {"runs/a", *(names[i] for i in own - stays)}
    assert {key.rsplit("/", 1)[0] for key in listing(place) if key.startswith("datasets")} == {
        names[i] for i in edges.keys() - (own - stays)
    }


class Failing(Store):
    """A store that is away after some deletions."""

    remaining = 0

    def delete(self, keys: Any) -> None:
        if self.remaining == 0:
            raise StoreError("away")
        self.remaining -= 1
        super().delete(keys)


@pytest.mark.parametrize("after", [0, 1, 2, 4, 6, 9, 13])
def test_an_interrupted_deletion_leaves_nothing_complete_and_is_resumed(store: Store, after: int) -> None:
    before = listing(store)
    made = whole_run(store, "first", "cells", "one")
    failing = Failing(store.address)
    failing.remaining = after
    with pytest.raises(StoreError, match="away"):
        delete_run(failing, plan_deletion(store, "first"))
    assert f"runs/first/{DELETION_PLAN}" in listing(store)
    if after:
        assert not store.exists(layout.run_record("first"))
    for name, refers_to in (("evaluation", "training"), ("training", "masked"), ("masked", "parent")):
        if find_published(store, made[name]) is not None:
            assert find_published(store, made[refers_to]) is not None, f"{name} looks whole without {refers_to}"
    delete_run(store, plan_deletion(store, "first"))
    assert listing(store) == before
    with pytest.raises(UserError, match="no such run"):
        plan_deletion(store, "first")


def test_a_running_run_is_refused_and_a_lost_one_is_not(store: Store) -> None:
    start_run(store, RunRecord(run_id="first"))
    with pytest.raises(UserError, match="is running, its last sign of life"):
        plan_deletion(store, "first")
    key, record = layout.run_record("first"), store.get_json(layout.run_record("first"))
    long_ago = (now() - timedelta(minutes=4)).isoformat()
    record |= {"started": long_ago, "attempt_started": long_ago, "heartbeat": long_ago}
    store.put_json(key, record)
    stage = StageRecord(run_id="first", stage="train", model="atto")
    at = layout.stage_record("first", "train", "atto")
    store.put_json(at, stage.model_dump(mode="json"))
    with pytest.raises(UserError, match="is running"):
        plan_deletion(store, "first")
    # Its record may have been closed while a step is still at work.
    store.put_json(key, {**record, "status": "failed"})
    with pytest.raises(UserError, match="is running"):
        plan_deletion(store, "first")
    store.put_json(at, {**stage.model_dump(mode="json"), "heartbeat": long_ago})
    store.put_json(key, record)
    assert deleted(store, "first") == {"runs/first"}


def test_the_command_asks_nobody_without_a_terminal(store: Store) -> None:
    made = whole_run(store, "first", "cells", "one")
    before = listing(store)
    refused = hep2flow("runs", "delete", "first")
    assert (refused.code, refused.err) == (
        2,
        "hep2flow: runs delete first: nobody is here to ask, nothing was deleted; add --yes\n",
    )
    assert all(key in refused.out for key in made.values())
    assert listing(store) == before
    answer = hep2flow("runs", "delete", "first", "--yes")
    assert answer.code == 0, answer.err
    assert answer.out.endswith("run first is deleted\n")
    assert listing(store) == {}
    listed = hep2flow("runs", "list")
    assert (listed.code, listed.out, listed.err) == (0, "", "")
    again = hep2flow("runs", "delete", "first", "--yes")
    assert (again.code, again.out, len(again.err.splitlines())) == (2, "", 1)
    assert "there is no such run" in again.err


@pytest.mark.parametrize(
    ("typed", "code", "told"),
    [(b"n\n", 0, b"nothing was deleted"), (b"y\n", 0, b"is deleted"), (b"\x03", 130, b"interrupted")],
)
def test_the_command_asks_on_a_terminal(store: Store, tmp_path: Path, typed: bytes, code: int, told: bytes) -> None:
    whole_run(store, "first", "cells", "one")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "hep2flow.cli", "runs", "delete", "first"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # where Ctrl-C comes from
    ) as process:
        os.close(theirs)
        # Leaving the block waits for the process: one that never ends would keep this test's own time limit from ending it.
        limit = threading.Timer(60, process.kill)
        limit.start()
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(ours, 1024)
        try:
            while True:
                # Ctrl-C between the question and the reading of its answer is noticed with the next key: press again.
                os.write(ours, typed)
                while select.select([ours], [], [], 1)[0]:
                    shown += os.read(ours, 1024)
        except OSError:  # the other side is closed
            pass
        limit.cancel()
    os.close(ours)
    assert process.returncode == code, shown
    assert told in shown
    assert (listing(store) == {}) is (typed == b"y\n")
