"""A relay before the store that breaks off the first answers of any length, as a bad network does."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

AFTER_BYTES = 100_000


@contextmanager
def breaking_off(port: int, answers: int) -> Iterator[int]:
    """A port of this machine that leads to ``port``; the first so many connections end after AFTER_BYTES of answers."""
    left = threading.Semaphore(answers)

    def answer(server: socket.socket, client: socket.socket) -> None:
        passed, breaks = 0, False
        with server, client, contextlib.suppress(OSError):
            while block := server.recv(65536):
                passed += len(block)
                breaks = breaks or (passed > AFTER_BYTES and left.acquire(blocking=False))
                if breaks:
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(block)

    def ask(client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", port))
        threading.Thread(target=answer, args=(server, client), daemon=True).start()
        with contextlib.suppress(OSError):
            while block := client.recv(65536):
                server.sendall(block)
            server.shutdown(socket.SHUT_WR)

    def listen() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=ask, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=listen, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
