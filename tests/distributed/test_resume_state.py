"""What an interrupted training resumes from: the latest complete state, whatever happened while it was uploaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from hep2flow.distributed import checkpoint_uploader
from hep2flow.store.s3 import Store
from hep2flow.training.checkpoint import CheckpointFiles

PREFIX = "trainings/k"


def upload(
    store: Store, folder: Path, updates: int, previous: checkpoint_uploader.SavedState | None, keep: int = 2
) -> checkpoint_uploader.SavedState:
    folder.mkdir(exist_ok=True)
    (folder / "state").write_text(f"state {updates}")
    changed = ["state"]
    if updates % 20 == 0:  # every second epoch is the best so far
        (folder / "best").write_text(f"best {updates}")
        changed.append("best")
    files = CheckpointFiles(folder, updates // 10, updates, changed, True, False, lambda: None)
    return checkpoint_uploader.upload_state(store, PREFIX, files, previous, keep)


def downloaded(store: Store, folder: Path) -> tuple[dict[str, str], list[str]]:
    folder.mkdir()
    logged: list[str] = []
    checkpoint_uploader.download_state(store, PREFIX, folder, logged.append)
    return {path.name: path.read_text() for path in folder.iterdir()}, logged


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_latest_state_comes_back_and_as_many_stay_as_were_requested(
    store: Store, tmp_path: Path, keep: int
) -> None:
    saved = None
    for updates in (10, 20, 30, 40, 50):
        saved = upload(store, tmp_path / "worker", updates, saved, keep)
    assert downloaded(store, tmp_path / "next") == ({"state": "state 50", "best": "best 40"}, [])
    states = [item.key for item in store.list_objects(PREFIX) if item.key.endswith("-state")]
    assert len(states) == keep
    checkpoint_uploader.delete_states(store, PREFIX)
    assert list(store.list_objects(PREFIX)) == []
    assert checkpoint_uploader.download_state(store, PREFIX, tmp_path, pytest.fail) is None


def test_a_damaged_state_is_logged_and_the_one_before_it_is_used(store: Store, tmp_path: Path) -> None:
    first = upload(store, tmp_path / "worker", 20, None)
    second = upload(store, tmp_path / "worker", 30, first)
    third = upload(store, tmp_path / "worker", 40, second)
    damaged = tmp_path / "damaged"
    damaged.write_text("state 41")
    store.put_file(damaged, third.files["state"], "0" * 64)  # not what its SHA-256 says
    files, logged = downloaded(store, tmp_path / "next")
    assert files == {"state": "state 30", "best": "best 20"}
    assert [text.split(" is ")[0] for text in logged] == ["the state after update 40"]
    # The next state builds on the one that was used, not on the damaged one.
    upload(store, tmp_path / "next", 41, second)
    assert downloaded(store, tmp_path / "last")[0] == {"state": "state 41", "best": "best 20"}
    assert third.files["state"] not in {item.key for item in store.list_objects(PREFIX)}


def test_files_that_were_not_yet_listed_are_not_seen(store: Store, tmp_path: Path) -> None:
    upload(store, tmp_path / "worker", 20, None)
    (tmp_path / "half").write_text("state 30")
    store.put_file(tmp_path / "half", f"{PREFIX}/resume/00000030-00003-state")  # killed before the list was written
    assert downloaded(store, tmp_path / "next")[0]["state"] == "state 20"
