"""What a worker and the notes in the store tell each other, through a store that is away meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from hep2flow.distributed.status_reporter import Messenger
from hep2flow.store import embedded_server
from hep2flow.store.s3 import Store, open_store
from hep2flow.store.training_status import Live

SECONDS = 30


def comes(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SECONDS
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def test_progress_and_notices_are_seen_and_the_wish_to_leave_is_heard(store: Store) -> None:
    live = Live(store, "trainings/one")
    messenger = Messenger(live, lambda: False)
    messenger.start()
    messenger.progress = {"epoch": 1}
    messenger.notice("goes on after epoch 1")
    assert comes(lambda: live.progress() == {"epoch": 1})
    assert comes(lambda: len(live.notices()) == 1)
    assert not messenger.leave.is_set()
    live.ask_to_leave()
    assert messenger.leave.wait(SECONDS)
    messenger.close()


def test_a_machine_that_is_taken_away_is_left(store: Store) -> None:
    announced = threading.Event()
    messenger = Messenger(Live(store, "trainings/two"), announced.is_set)
    messenger.start()
    assert not messenger.leave.is_set()
    announced.set()
    assert messenger.leave.wait(SECONDS)
    messenger.close()


def test_what_could_not_be_carried_is_carried_when_the_store_is_back(own_server: None) -> None:
    live = Live(open_store(), "trainings/three")
    live.put_progress({"epoch": 0})
    messenger = Messenger(live, lambda: False)
    embedded_server.down()
    messenger.start()
    messenger.notice("the store is away")
    messenger.notice("and still is")
    embedded_server.ensure()
    messenger.close()
    assert [note["text"] for note in live.notices()] == ["the store is away", "and still is"]
