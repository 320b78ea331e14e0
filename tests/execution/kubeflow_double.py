"""An HTTP double of Kubeflow Pipelines' API: what it was told, and how its runs go.

Written after the sources of 2.17.0, and after what was seen on a cluster:

- backend/src/apiserver/model/run.go: the states; storage/run_store.go: ``UpdateRun`` adds a state to the history where it is
  another one, ``TerminateRun`` sets CANCELING and adds nothing; resource/resource_manager.go (``ReportWorkflowResource``):
  whatever the persistence agent reports while a workflow is being terminated is CANCELING, and adds it; what it reports in
  the end is FAILED.
- backend/api/v2beta1/run.proto: a run in JSON. Where the persistence agent has failed its state stays as it is for ever.
- sdk/python/kfp/client/client.py: what is asked, in which order.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Tree = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """A request is answered so; with status 0 its connection is broken off."""

    status: int = 0
    message: str = ""


AWAY, BUSY = Fault(), Fault(503, "upstream connect error")
UNREPORTED = "CANCELING, unreported"  # terminated, but the workflow was over before the agent reported it

# What a look at a run finds: a state, a fault, or something done before the next of them is told. The last state stays.
Look = str | Fault | Callable[[], None]
TERMINATED: list[Look] = ["PENDING", "RUNNING", "CANCELING", "FAILED"]


@dataclass
class Run:
    """A run that was created: what was asked for, and what is yet to be seen of it."""

    id: str
    asked: Tree
    looks: list[Look]
    state: str = "PENDING"
    history: list[str] = field(default_factory=lambda: ["PENDING"])

    def look(self) -> Fault | None:
        """Go on to the next thing to be seen."""
        while self.looks:
            next_one = self.looks.pop(0)
            if isinstance(next_one, Fault):
                return next_one
            if callable(next_one):
                next_one()
                continue
            self.state = next_one.partition(",")[0]
            if next_one != UNREPORTED and self.history[-1] != self.state:
                self.history.append(self.state)
            return None
        return None

    def told(self, error: str) -> Tree:
        """As the API tells it."""
        history = [{"update_time": f"2026-01-01T00:00:{at:02}Z", "state": one} for at, one in enumerate(self.history)]
        told = {"run_id": self.id, "state": self.state, "state_history": history}
        return {**told, "error": {"code": 13, "message": error}} if error and self.state == "FAILED" else told


class Double(ThreadingHTTPServer):
    """Kubeflow Pipelines.

    plans:   how each run goes, in the order of their creation; the last one again for those that come after
    error:   of runs that fail
    refuses: how a run that is to be created is answered instead; None for none
    token:   without which nobody is let in; empty for everybody
    created: kind and body of each thing, as they came
    before:  called before a run is created
    """

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was broken off."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plans: list[list[Look]] = [["PENDING", "RUNNING", "SUCCEEDED"]]
        self.error = ""
        self.refuses: Fault | None = None
        self.token = ""
        self.created: list[tuple[str, Tree]] = []
        self.runs: dict[str, Run] = {}
        self.before: Callable[[], None] = lambda: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def create(self, kind: str, body: Tree) -> Tree:
        """Take a thing on; returns it as the API tells it."""
        self.created.append((kind, body))
        if kind == "experiments":
            return {"experiment_id": "e", "display_name": body["display_name"]}
        if kind == "recurringruns":
            return {"recurring_run_id": "again"}
        looks = self.plans[min(len(self.runs), len(self.plans) - 1)]
        run = Run(("one", "two", "three", "four")[len(self.runs)], body, list(looks))
        self.runs[run.id] = run
        return run.told("")


class _Handler(BaseHTTPRequestHandler):
    server: Double

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self._answer(401, {})
        elif path.endswith("/healthz"):
            self._answer(200, {"multi_user": False})
        elif path.endswith("/experiments"):
            self._answer(200, {"experiments": []})
        elif (run := self.server.runs.get(path.rpartition("/")[2])) is None:
            self._fault(Fault(404, "run not found"))
        elif fault := run.look():
            self._fault(fault)
        else:
            self._answer(200, run.told(self.server.error))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kind = self.path.rpartition("/")[2]
        if kind != "experiments":
            self.server.before()
            if self.server.refuses is not None:
                self._fault(self.server.refuses)
                return
        self._answer(200, self.server.create(kind, body))

    def _fault(self, fault: Fault) -> None:
        if fault.status:
            self._answer(fault.status, {"error": fault.message, "code": 13, "message": fault.message, "details": []})

    def _answer(self, status: int, body: Tree) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving() -> Iterator[Double]:
    """A Kubeflow on loopback."""
    server = Double()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
