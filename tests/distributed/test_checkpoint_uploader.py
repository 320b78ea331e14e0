"""Checkpoints that are uploaded while their training continues."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hep2flow.distributed import checkpoint_uploader
from hep2flow.distributed.checkpoint_uploader import CheckpointUploader
from hep2flow.errors import StoreError
from hep2flow.store.address import StoreAddress
from hep2flow.store.s3 import Store
from hep2flow.training.checkpoint import BEST, METRICS, STATE, CheckpointFiles

PREFIX = "trainings/k"
SECONDS = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "training"
    folder.mkdir()
    return folder


def files(folder: Path, update: int, *changed: str, resumable: bool = True, deferred: bool = True) -> CheckpointFiles:
    def write() -> None:
        for name in changed:
            (folder / name).write_text(f"{name} {update}" * 10_000)

    return CheckpointFiles(folder, 0, update, list(changed), resumable, deferred, write)


@pytest.mark.parametrize("deferred", [True, False], ids=["as on a GPU", "as on a CPU"])
def test_states_arrive_one_after_the_other_and_the_last_files_are_only_written(
    deferred: bool, store: Store, folder: Path, tmp_path: Path
) -> None:
    uploader = CheckpointUploader(store, PREFIX, 2, None)
    uploader.upload(files(folder, 1, STATE, METRICS, deferred=deferred))
    uploader.upload(files(folder, 2, STATE, METRICS, BEST, deferred=deferred))
    uploader.upload(files(folder, 3, STATE, METRICS, deferred=deferred))
    uploader.upload(files(folder, 4, METRICS, resumable=False, deferred=deferred))
    uploader.wait()
    assert uploader.saved is not None
    assert uploader.saved.updates == 3
    found = tmp_path / "found"
    assert checkpoint_uploader.download_state(store, PREFIX, found, pytest.fail) == uploader.saved
    assert {path.name: path.read_text().split(STATE)[-1][-1] for path in found.iterdir()} == {
        STATE: "3",
        METRICS: "3",
        BEST: "2",
    }
    assert (folder / METRICS).read_text().endswith(" 4")


def test_a_training_waits_for_no_writing_but_that_of_the_state_before(store: Store, folder: Path) -> None:
    uploader, may_write = CheckpointUploader(store, PREFIX, 2, None), threading.Event()
    slow = files(folder, 1, STATE)

    def write() -> None:
        assert may_write.wait(SECONDS)
        slow.write()

    uploader.upload(CheckpointFiles(folder, 0, 1, slow.changed, True, True, write))
    assert not (folder / STATE).exists()
    may_write.set()
    uploader.upload(files(folder, 2, STATE))
    assert uploader.saved is not None
    assert uploader.saved.updates == 1
    uploader.wait()


def test_what_cannot_be_written_later_is_written_before_the_training_continues(store: Store, folder: Path) -> None:
    uploader = CheckpointUploader(store, PREFIX, 2, None)
    uploader.upload(files(folder, 1, STATE, deferred=False))
    assert (folder / STATE).read_text().endswith("1")
    uploader.wait()


def test_an_error_of_an_upload_is_raised_by_the_next_upload(folder: Path) -> None:
    nowhere = Store(StoreAddress(endpoint="http://127.0.0.1:9", bucket="bucket"))
    uploader = CheckpointUploader(nowhere, PREFIX, 2, None)
    uploader.upload(files(folder, 1, STATE))
    with pytest.raises(StoreError):
        uploader.upload(files(folder, 2, STATE))
    assert uploader.saved is None


def test_an_error_of_writing_is_raised_by_waiting(store: Store, folder: Path) -> None:
    uploader = CheckpointUploader(store, PREFIX, 2, None)
    uploader.upload(files(folder / "nowhere", 1, STATE))
    with pytest.raises(FileNotFoundError):
        uploader.wait()
    assert uploader.saved is None
