"""A store that is unreachable for a while, or answers 5xx: a process with retries waits, and logs it once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hep2flow.errors import StoreError
from hep2flow.store import embedded_server, outage
from hep2flow.store.address import StoreAddress
from hep2flow.store.open_store import open_store
from hep2flow.store.s3 import Store


def test_a_store_with_retries_outlives_an_unreachable_server(own_server: None) -> None:
    messages: list[str] = []
    unreachable = threading.Event()
    plain = open_store()

    def log(text: str) -> None:
        messages.append(text)
        unreachable.set()

    retrying = Store(plain.address, log)
    plain.put_bytes("a", b"before")
    embedded_server.down()
    back = threading.Thread(target=lambda: (unreachable.wait(60), embedded_server.ensure_running()))
    back.start()
    assert retrying.get_bytes("a") == b"before"
    retrying.put_bytes("b", b"after")
    back.join()
    assert plain.get_bytes("b") == b"after"
    assert ["unreachable" in text for text in messages] == [True, False]
    assert "is back" in messages[1]


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


def test_a_store_with_retries_outlives_answers_of_5xx_from_a_mock_server(store: Store) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Failing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    messages: list[str] = []
    try:
        address = StoreAddress(endpoint=f"http://127.0.0.1:{server.server_port}", bucket="bucket")
        assert Store(address, messages.append).get_bytes("a") == b"whole"
    finally:
        server.shutdown()
    assert "unreachable (answers 503)" in messages[0]
    assert "is back" in messages[1]
    assert len(messages) == 2


class Closing(BaseHTTPRequestHandler):
    """Stands for an unreachable store behind a reachable proxy: connections are closed without an answer."""

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


def test_every_thread_retries_however_often_the_others_did(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore alone gives up after 35 repetitions of all threads together."""
    monkeypatch.setattr(outage, "MAX_DELAY_SECONDS", 0.01)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Closing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    messages: list[str] = []
    try:
        retrying = Store(
            StoreAddress(endpoint=f"http://127.0.0.1:{server.server_port}", bucket="bucket"), messages.append
        )
        with ThreadPoolExecutor(3) as threads:
            assert list(threads.map(retrying.get_bytes, "abc")) == [b"whole"] * 3
    finally:
        server.shutdown()
    assert Closing.seen >= Closing.times + 3
    # A thread may notice the end of the outage while another one's failed request is still under way: told twice, in turns.
    told = ["is unreachable" in text for text in messages]
    assert told
    assert told == [True, False] * (len(told) // 2)


def test_retries_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "RETRY_SECONDS", 0.0)
    nobody = Store(StoreAddress(endpoint="http://127.0.0.1:1", bucket="bucket"), lambda _: None)
    with pytest.raises(StoreError, match=r"cannot reach http://127\.0\.0\.1:1"):
        nobody.get_bytes("a")


def test_missing_objects_and_refused_credentials_are_reported_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []
    with pytest.raises(StoreError, match="not there"):
        Store(store.address, messages.append).get_bytes("nothing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match="does not accept these credentials"):
        Store(store.address, messages.append).get_bytes("a")
    assert messages == []
