"""States on their way to the store while the training that wrote them goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from hep2flow.distributed.sender import Sender
from hep2flow.errors import StoreError
from hep2flow.store import resume
from hep2flow.store.s3 import Store, StoreAddress

PREFIX = "trainings/k"


def write(folder: Path, name: str, text: str) -> None:
    """As the loop does: a whole new file."""
    (folder / "new").write_text(text)
    (folder / "new").replace(folder / name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "training"
    folder.mkdir()
    return folder


def test_a_state_arrives_as_it_was_when_it_was_sent(store: Store, folder: Path, tmp_path: Path) -> None:
    sender = Sender(store, PREFIX, 2, None)
    for update in (1, 2, 3):
        write(folder, "state", f"state {update}" * 10_000)
        if update == 2:
            write(folder, "best", "best 2")
        sender.send(folder, (0, update), ["state", "best"] if update == 2 else ["state"])
        write(folder, "state", "of the epoch after it")
        write(folder, "best", "of the epoch after it")
    sender.wait()
    assert sender.saved is not None
    assert sender.saved.updates == 3
    found = tmp_path / "found"
    assert resume.load(store, PREFIX, found, pytest.fail) == sender.saved
    assert {path.name: path.read_text() for path in found.iterdir()} == {
        "state": "state 3" * 10_000,
        "best": "best 2",
    }
    assert sorted(path.name for path in folder.iterdir()) == ["best", "state"]


def test_what_the_sending_meets_is_raised_by_who_sends_next(folder: Path) -> None:
    nowhere = Store(StoreAddress(endpoint="http://127.0.0.1:9", bucket="bucket"))
    sender = Sender(nowhere, PREFIX, 2, None)
    write(folder, "state", "1")
    sender.send(folder, (1, 1), ["state"])
    with pytest.raises(StoreError):
        sender.send(folder, (2, 2), ["state"])
    assert sender.saved is None
