"""What an interrupted training goes on from: the latest whole state, whatever happened while it was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from hep2flow.distributed import checkpoint_uploader
from hep2flow.store.s3 import Store

PREFIX = "trainings/k"


def put(
    store: Store, folder: Path, updates: int, before: checkpoint_uploader.Saved | None, keep: int = 2
) -> checkpoint_uploader.Saved:
    folder.mkdir(exist_ok=True)
    (folder / "state").write_text(f"state {updates}")
    fresh = ["state"]
    if updates % 20 == 0:  # every second epoch is the best so far
        (folder / "best").write_text(f"best {updates}")
        fresh.append("best")
    return checkpoint_uploader.save(store, PREFIX, folder, (updates // 10, updates), fresh, before, keep)


def found(store: Store, folder: Path) -> tuple[dict[str, str], list[str]]:
    folder.mkdir()
    told: list[str] = []
    checkpoint_uploader.load(store, PREFIX, folder, told.append)
    return {path.name: path.read_text() for path in folder.iterdir()}, told


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_latest_state_comes_back_and_as_many_stay_as_were_asked_for(
    store: Store, tmp_path: Path, keep: int
) -> None:
    saved = None
    for updates in (10, 20, 30, 40, 50):
        saved = put(store, tmp_path / "worker", updates, saved, keep)
    assert found(store, tmp_path / "next") == ({"state": "state 50", "best": "best 40"}, [])
    states = [item.key for item in store.list(PREFIX) if item.key.endswith("-state")]
    assert len(states) == keep
    checkpoint_uploader.drop(store, PREFIX)
    assert list(store.list(PREFIX)) == []
    assert checkpoint_uploader.load(store, PREFIX, tmp_path, pytest.fail) is None


def test_a_damaged_state_is_told_and_the_one_before_it_is_taken(store: Store, tmp_path: Path) -> None:
    first = put(store, tmp_path / "worker", 20, None)
    second = put(store, tmp_path / "worker", 30, first)
    third = put(store, tmp_path / "worker", 40, second)
    changed = tmp_path / "changed"
    changed.write_text("state 41")
    store._put_file(changed, third.files["state"], "0" * 64)  # not what its SHA-256 says
    files, told = found(store, tmp_path / "next")
    assert files == {"state": "state 30", "best": "best 20"}
    assert [text.split(" is ")[0] for text in told] == ["the state after update 40"]
    # What is saved next rests on what was taken, not on what is damaged.
    put(store, tmp_path / "next", 41, second)
    assert found(store, tmp_path / "last")[0] == {"state": "state 41", "best": "best 20"}
    assert third.files["state"] not in {item.key for item in store.list(PREFIX)}


def test_files_that_were_not_yet_listed_are_not_seen(store: Store, tmp_path: Path) -> None:
    put(store, tmp_path / "worker", 20, None)
    (tmp_path / "half").write_text("state 30")
    store.put_file(tmp_path / "half", f"{PREFIX}/resume/00000030-00003-state")  # killed before the list was written
    assert found(store, tmp_path / "next")[0]["state"] == "state 20"
