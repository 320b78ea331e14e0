"""States on their way to the store while the training that made them goes on."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hep2flow.distributed import checkpoint_uploader
from hep2flow.distributed.checkpoint_uploader import Sender
from hep2flow.errors import StoreError
from hep2flow.store.s3 import Store, StoreAddress
from hep2flow.training.checkpoint import BEST, METRICS, STATE, Files

PREFIX = "trainings/k"
SECONDS = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "training"
    folder.mkdir()
    return folder


def files(folder: Path, update: int, *fresh: str, goes_on: bool = True, later: bool = True) -> Files:
    def write() -> None:
        for name in fresh:
            (folder / name).write_text(f"{name} {update}" * 10_000)

    return Files(folder, 0, update, list(fresh), goes_on, later, write)


@pytest.mark.parametrize("later", [True, False], ids=["as on a GPU", "as on a CPU"])
def test_states_arrive_one_after_the_other_and_the_last_files_are_only_written(
    later: bool, store: Store, folder: Path, tmp_path: Path
) -> None:
    sender = Sender(store, PREFIX, 2, None)
    sender.send(files(folder, 1, STATE, METRICS, later=later))
    sender.send(files(folder, 2, STATE, METRICS, BEST, later=later))
    sender.send(files(folder, 3, STATE, METRICS, later=later))
    sender.send(files(folder, 4, METRICS, goes_on=False, later=later))
    sender.wait()
    assert sender.saved is not None
    assert sender.saved.updates == 3
    found = tmp_path / "found"
    assert checkpoint_uploader.load(store, PREFIX, found, pytest.fail) == sender.saved
    assert {path.name: path.read_text().split(STATE)[-1][-1] for path in found.iterdir()} == {
        STATE: "3",
        METRICS: "3",
        BEST: "2",
    }
    assert (folder / METRICS).read_text().endswith(" 4")


def test_a_training_waits_for_no_writing_but_that_of_the_state_before(store: Store, folder: Path) -> None:
    sender, may_write = Sender(store, PREFIX, 2, None), threading.Event()
    slow = files(folder, 1, STATE)

    def write() -> None:
        assert may_write.wait(SECONDS)
        slow.write()

    sender.send(Files(folder, 0, 1, slow.fresh, True, True, write))
    assert not (folder / STATE).exists()
    may_write.set()
    sender.send(files(folder, 2, STATE))
    assert sender.saved is not None
    assert sender.saved.updates == 1
    sender.wait()


def test_what_cannot_be_written_later_is_written_before_the_training_goes_on(store: Store, folder: Path) -> None:
    sender = Sender(store, PREFIX, 2, None)
    sender.send(files(folder, 1, STATE, later=False))
    assert (folder / STATE).read_text().endswith("1")
    sender.wait()


def test_what_the_sending_meets_is_raised_by_who_sends_next(folder: Path) -> None:
    nowhere = Store(StoreAddress(endpoint="http://127.0.0.1:9", bucket="bucket"))
    sender = Sender(nowhere, PREFIX, 2, None)
    sender.send(files(folder, 1, STATE))
    with pytest.raises(StoreError):
        sender.send(files(folder, 2, STATE))
    assert sender.saved is None


def test_what_the_writing_meets_is_raised_by_who_waits(store: Store, folder: Path) -> None:
    sender = Sender(store, PREFIX, 2, None)
    sender.send(files(folder / "nowhere", 1, STATE))
    with pytest.raises(FileNotFoundError):
        sender.wait()
    assert sender.saved is None
