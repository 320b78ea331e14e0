"""A worker's status in the store, and the stop request that it polls, through an outage of the store too."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from hep2flow.distributed.status_reporter import StatusReporter
from hep2flow.store import embedded_server
from hep2flow.store.open_store import open_store
from hep2flow.store.s3 import Store
from hep2flow.store.training_status import TrainingStatus

SECONDS = 30


def comes(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SECONDS
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def test_progress_and_notices_are_uploaded_and_a_stop_request_is_noticed(store: Store) -> None:
    status = TrainingStatus(store, "trainings/one")
    reporter = StatusReporter(status, lambda: False)
    reporter.start()
    reporter.progress = {"epoch": 1}
    reporter.notice("resuming after epoch 1")
    assert comes(lambda: status.progress() == {"epoch": 1})
    assert comes(lambda: len(status.notices()) == 1)
    assert not reporter.stop_requested.is_set()
    status.request_stop()
    assert reporter.stop_requested.wait(SECONDS)
    reporter.close()


def test_a_preempted_machine_is_a_stop_request(store: Store) -> None:
    announced = threading.Event()
    reporter = StatusReporter(TrainingStatus(store, "trainings/two"), announced.is_set)
    reporter.start()
    assert not reporter.stop_requested.is_set()
    announced.set()
    assert reporter.stop_requested.wait(SECONDS)
    reporter.close()


def test_notices_of_an_outage_are_uploaded_when_the_store_is_back(own_server: None) -> None:
    status = TrainingStatus(open_store(), "trainings/three")
    status.put_progress({"epoch": 0})
    reporter = StatusReporter(status, lambda: False)
    embedded_server.down()
    reporter.start()
    reporter.notice("the store is away")
    reporter.notice("and still is")
    embedded_server.ensure_running()
    reporter.close()
    assert [note["text"] for note in status.notices()] == ["the store is away", "and still is"]
