"""A store that is away for a while, or answers 5xx: a patient process waits, and says so once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hep2flow.errors import StoreError
from hep2flow.store import embedded_server, outage
from hep2flow.store.s3 import Store, StoreAddress, open_store


def test_a_patient_store_outlives_a_server_that_is_away(own_server: None) -> None:
    told: list[str] = []
    away = threading.Event()
    hasty = open_store()

    def tell(text: str) -> None:
        told.append(text)
        away.set()

    patient = Store(hasty.address, tell)
    hasty.put_bytes("a", b"before")
    embedded_server.down()
    back = threading.Thread(target=lambda: (away.wait(60), embedded_server.ensure()))
    back.start()
    assert patient.get_bytes("a") == b"before"
    patient.put_bytes("b", b"after")
    back.join()
    assert hasty.get_bytes("b") == b"after"
    assert ["away" in text for text in told] == [True, False]
    assert "is back" in told[1]


class Failing(BaseHTTPRequestHandler):
    """Stands for a store in trouble: 503 three times, then an object."""

    answers = 0

    def do_GET(self) -> None:
        type(self).answers += 1
        body = b"whole" if self.answers > 3 else b"<Error><Code>SlowDown</Code></Error>"
        self.send_response(200 if self.answers > 3 else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_patient_store_outlives_answers_of_5xx_from_a_mock_server(store: Store) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Failing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    told: list[str] = []
    try:
        address = StoreAddress(endpoint=f"http://127.0.0.1:{server.server_port}", bucket="bucket")
        assert Store(address, told.append).get_bytes("a") == b"whole"
    finally:
        server.shutdown()
    assert "away (answers 503)" in told[0]
    assert "is back" in told[1]
    assert len(told) == 2


class Closing(BaseHTTPRequestHandler):
    """Stands for a store that is away behind a proxy which is not: connections are closed without an answer."""

    times = 60
    seen = 0

    def do_GET(self) -> None:
        type(self).seen += 1
        if self.seen <= self.times:
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"whole")

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_every_thread_is_patient_however_often_the_others_have_tried(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """botocore alone gives up after 35 repetitions of all threads together."""
    monkeypatch.setattr(outage, "LONGEST_PAUSE", 0.01)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Closing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    told: list[str] = []
    try:
        patient = Store(StoreAddress(endpoint=f"http://127.0.0.1:{server.server_port}", bucket="bucket"), told.append)
        with ThreadPoolExecutor(3) as threads:
            assert list(threads.map(patient.get_bytes, "abc")) == [b"whole"] * 3
    finally:
        server.shutdown()
    assert Closing.seen >= Closing.times + 3
    assert ["is away" in text for text in told] == [True, False]


def test_patience_ends(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "PATIENCE_SECONDS", 0.0)
    nobody = Store(StoreAddress(endpoint="http://127.0.0.1:1", bucket="bucket"), lambda _: None)
    with pytest.raises(StoreError, match=r"cannot reach http://127\.0\.0\.1:1"):
        nobody.get_bytes("a")


def test_what_is_not_there_and_what_is_refused_is_told_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    with pytest.raises(StoreError, match="not there"):
        Store(store.address, told.append).get_bytes("nothing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match="does not accept these credentials"):
        Store(store.address, told.append).get_bytes("a")
    assert told == []
