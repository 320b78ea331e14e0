"""An HTTP double of the Kubernetes API with KubeRay behind it: RayJobs of one namespace, their pods and logs, and the faults
of a real server.

What it answers was written after its sources, and after what was seen on a cluster:

- KubeRay 1.7, ray-operator/controllers/ray/rayjob_controller.go (``Reconcile``, ``initRayJobStatusIfNeed``,
  ``checkBackoffLimitAndUpdateStatusIfNeeded``) and ray-operator/apis/ray/v1/rayjob_types.go: a job's statuses and their
  order; raycluster_controller.go (``calculateStatus``): the condition ReplicaFailure.
- Kubernetes 1.34, its plugin ResourceQuota: the words of a quota that is used up, or whose status is not known yet.

It forbids what the Role of a pipeline's steps does not allow, so that every test with it shows that they ask for no more.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.execution.rights import Access, allowed, asked

NAMESPACE = "laboratory"
JOBS = f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayjobs"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
FORBIDDEN = 'rayjobs.ray.io is forbidden: User "system:serviceaccount:laboratory:step" cannot {verb} resource'
QUOTA = (
    'rayjobs.ray.io "{name}" is forbidden: exceeded quota: hep2flow, requested: count/rayjobs.ray.io=1, used: {count}'
)
UNKNOWN_QUOTA = (
    'rayjobs.ray.io "h2-0" is forbidden: status unknown for quota: hep2flow, resources: count/rayjobs.ray.io'
)

Tree = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """The next request of a verb is answered so."""

    verb: str
    status: int
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)


DISCONNECT = "disconnect"  # the watch's connection breaks in the middle of a line
EXPIRED = "expired"  # 410: the version to watch from is too old
END = "end"  # the server ends the watch, as it does after a while
HOLD = "hold"  # nothing happens any more until the job is deleted

# One thing that happens, while somebody watches: a change of the job's status, something done, or one of the above.
Step = Tree | Callable[[], None] | str

# A job's status as KubeRay changes it, in its order; "" and None are what is left out of it.
INITIALIZING: Tree = {"jobDeploymentStatus": "Initializing"}
SUBMITTED: Tree = {"jobDeploymentStatus": "Running"}  # its submitter is made; Ray knows no job yet
PENDING: Tree = {"jobDeploymentStatus": "Running", "jobStatus": "PENDING"}
RUNNING: Tree = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
ENDING: Tree = {"jobDeploymentStatus": "Running", "jobStatus": "SUCCEEDED"}  # until its submitter has ended: 15 s
COMPLETE: Tree = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
BEGUN: list[Step] = [INITIALIZING, SUBMITTED, PENDING, RUNNING]
SUCCEEDED: list[Step] = [ENDING, COMPLETE]
# What KubeRay forgets once the Ray cluster of a job is gone: it begins from nothing.
RESET: Tree = dict.fromkeys(("jobStatus", "jobId", "rayClusterName", "rayClusterStatus", "reason", "message"))
NEW_AGAIN: Tree = {**RESET, "jobDeploymentStatus": ""}
SUSPENDED: list[Step] = [
    {"suspend": True, "jobDeploymentStatus": "Suspending"},
    {**RESET, "jobDeploymentStatus": "Suspended"},
]
ADMITTED: list[Step] = [{"suspend": False}, NEW_AGAIN, INITIALIZING]
# After these KubeRay does nothing more for a job.
OVER = ("Complete", "Failed", "ValidationFailed")
# Reasons for which KubeRay begins nothing again, whatever the backoff limit.
FINAL = ("DeadlineExceeded", "JobStatusCheckTimeoutExceeded")


def failed(message: str = "Job entrypoint command failed with exit code 1") -> list[Step]:
    """The entry point ends with an error: KubeRay begins again while the backoff limit allows it, see Double.change."""
    end = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed", "message": message}
    return [{"jobDeploymentStatus": "Running", "jobStatus": "FAILED"}, end]


def given_up(reason: str, message: str = "") -> Tree:
    """KubeRay itself ends this attempt."""
    return {"jobDeploymentStatus": "Failed", "reason": reason, "message": message or f"The RayJob: {reason}"}


def refused_pods(message: str) -> Tree:
    """The API server takes none of the job's pods; the rest of the status says that all goes its way."""
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreateHeadPod"}
    return {**INITIALIZING, "rayClusterStatus": {"conditions": [{**condition, "message": message}]}}


@dataclass
class Double:
    """The cluster's state, and what befalls it.

    script:   what happens to the job, one after the other
    faults:   answered once each
    requests: verb and path, as they came
    beyond:   what they asked for and the Role does not allow
    steps:    pods of the steps by their names, which the API tells one by one; one that is not here is gone
    made:     every job that was created, in its last state, whether it was deleted or not
    quota:    RayJobs that the namespace may have; None for any number
    logs:     of each pod, what each look at it gives; the last one again and again, and log_read is set
    """

    script: list[Step] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    beyond: set[Access] = field(default_factory=set)
    jobs: dict[str, Tree] = field(default_factory=dict)
    made: list[Tree] = field(default_factory=list)
    pods: list[Tree] = field(default_factory=list)
    steps: dict[str, Tree] = field(default_factory=dict)
    quota: int | None = None
    logs: dict[str, list[list[str]]] = field(default_factory=dict)
    created: threading.Event = field(default_factory=threading.Event)
    deleted: threading.Event = field(default_factory=threading.Event)
    log_read: threading.Event = field(default_factory=threading.Event)
    version: int = 1
    clusters: Iterator[int] = field(default_factory=count)
    closed: bool = False
    _server: ThreadingHTTPServer | None = None
    _reserved: socket.socket | None = None

    def change(self, job: Tree, change: Tree) -> None:
        """``suspend`` changes what is asked for, everything else the status, as KubeRay's controller goes on from there.

        A new attempt has a Ray cluster of another name. A job that failed is begun again while its backoff limit allows it.
        """
        self.version += 1
        job["metadata"]["resourceVersion"] = str(self.version)
        fresh = dict(change)
        if "suspend" in fresh:
            job["spec"]["suspend"] = fresh.pop("suspend")
        status = {**job.get("status", {}), **fresh}
        if status.get("jobDeploymentStatus") == "Initializing" and not status.get("rayClusterName"):
            name, number = job["metadata"]["name"], next(self.clusters)
            status |= {"rayClusterName": f"{name}-{number:05}", "jobId": f"{name}-{number:05}"}
        if fresh.get("jobDeploymentStatus") == "Failed":
            status["failed"] = status.get("failed", 0) + 1
            if status["failed"] <= job["spec"].get("backoffLimit", 0) and status.get("reason") not in FINAL:
                status["jobDeploymentStatus"] = "Retrying"
        if fresh.get("jobDeploymentStatus") == "Complete" and status.get("jobStatus") == "SUCCEEDED":
            status["succeeded"] = 1
        job["status"] = {key: value for key, value in status.items() if value not in ("", None)}

    def wait_for_log(self) -> None:
        """Until every line of the log was there to read."""
        assert self.log_read.wait(60)

    def verbs(self) -> list[str]:
        return [verb for verb, _ in self.requests]

    def close(self) -> None:
        """Nobody listens any more: connections are refused, those that are open are broken off."""
        assert self._server is not None
        self.closed = True
        self._server.shutdown()
        self._server.server_close()

    def release(self) -> None:
        """Give the port of a closed server back."""
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    def open(self) -> int:
        """Listen, after :meth:`close` under the same port; returns it."""

        class Handler(_Handler):
            world = self

        if self._reserved is None:
            # Bound for as long as the double lives, without listening: no other process is given the port meanwhile, and
            # connections are refused while the server is closed.
            self._reserved = socket.socket()
            self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._reserved.bind(("127.0.0.1", 0))
        self._server, self.closed = _Server(self._reserved.getsockname(), Handler), False
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return int(self._server.server_port)


def pod(name: str, **status: Any) -> Tree:
    """A pod of a job, as the API tells it."""
    return {"metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}, "status": status}


def leaving(name: str) -> Tree:
    """A pod that somebody deletes, or whose node is drained."""
    told = pod(name, phase="Running")
    told["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30}
    return told


@contextmanager
def serving(double: Double, folder: Path) -> Iterator[Path]:
    """Serve it on loopback; yields the KUBECONFIG that names it."""
    port = double.open()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "double",
        "clusters": [{"name": "double", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "nobody", "user": {"token": "none"}}],
        "contexts": [{"name": "double", "context": {"cluster": "double", "user": "nobody", "namespace": NAMESPACE}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    try:
        yield path
    finally:
        double.deleted.set()
        if not double.closed:
            double.close()
        double.release()
    assert not double.beyond, f"k8s/base/role.yaml does not allow {sorted(double.beyond)}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_port = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever follows may end in the middle of an answer."""


class _Handler(BaseHTTPRequestHandler):
    world: Double
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if parts.path == JOBS:
            verb = "watch" if query.get("watch") in ("true", "True") else "list"
        elif parts.path == PODS:
            verb = "list pods"
        elif parts.path.startswith(PODS):
            verb = "log" if parts.path.endswith("/log") else "get pod"
        else:
            verb = "get"
        if self._faulty(verb):
            return
        if verb == "watch":
            self._watch(query)
        elif verb == "list":
            name = query["fieldSelector"].removeprefix("metadata.name=")
            items = [job for key, job in self.world.jobs.items() if key == name]
            self._answer(200, {"items": items, "metadata": {"resourceVersion": str(self.world.version)}})
        elif verb == "list pods":
            assert "hep2flow/job=" in query["labelSelector"]
            component = query["labelSelector"].partition("component=")[2]
            pods = [one for one in self.world.pods if component in one["metadata"]["name"]]
            self._answer(200, {"kind": "PodList", "apiVersion": "v1", "items": pods, "metadata": {}})
        elif verb == "log":
            self._log(parts.path.removeprefix(f"{PODS}/").removesuffix("/log"))
        else:
            known = self.world.steps if verb == "get pod" else self.world.jobs
            found = known.get(parts.path.rpartition("/")[2])
            self._answer(200, found) if found else self._status(404, "not found")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._faulty("create"):
            return
        name, count_now = body["metadata"]["name"], len(self.world.jobs)
        if name in self.world.jobs:
            self._status(409, f'rayjobs.ray.io "{name}" already exists')
            return
        if self.world.quota is not None and count_now >= self.world.quota:
            self._status(403, QUOTA.format(name=name, count=f"count/rayjobs.ray.io={count_now}"))
            return
        self.world.jobs[name] = body
        self.world.made.append(body)
        self.world.change(body, {})
        self._answer(201, body)
        self.world.created.set()

    def do_DELETE(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._faulty("delete"):
            return
        gone = self.world.jobs.pop(self.path.partition("?")[0].removeprefix(f"{JOBS}/"), None)
        self._status(200, "") if gone else self._status(404, "not found")
        self.world.deleted.set()

    def _faulty(self, verb: str) -> bool:
        if self.world.closed:
            self.close_connection = True
            return True
        self.world.requests.append((verb, self.path))
        access = asked(self.command, self.path)
        if access not in allowed():
            self.world.beyond.add(access)
            self._status(403, FORBIDDEN.format(verb=access[2]))
            return True
        fault = next((fault for fault in self.world.faults if fault.verb == verb), None)
        if fault is None:
            return False
        self.world.faults.remove(fault)
        self._status(fault.status, fault.message or FORBIDDEN.format(verb=verb), fault.headers)
        return True

    def _watch(self, query: dict[str, str]) -> None:
        name = query["fieldSelector"].removeprefix("metadata.name=")
        self._begin()
        while self.world.script:
            step = self.world.script.pop(0)
            job = self.world.jobs.get(name)
            if job is None or step == END:
                break
            if job.get("status", {}).get("jobDeploymentStatus") in OVER:  # the rest of the script is of another one
                self.world.script.insert(0, step)
                break
            if step == DISCONNECT:
                self._chunk('{"type": "MODIFIED", "obj')
                self.wfile.flush()
                self.close_connection = True
                return
            if step == EXPIRED:
                gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
                self._chunk(json.dumps({"type": "ERROR", "object": gone}) + "\n")
                break
            if step == HOLD:
                self.world.deleted.wait(float(query["timeoutSeconds"]))
                break
            if isinstance(step, dict):
                self.world.change(job, step)
                self._chunk(json.dumps({"type": "MODIFIED", "object": job}) + "\n")
            else:
                assert callable(step)
                step()
                if self.world.closed:
                    self.close_connection = True
                    return
                if name not in self.world.jobs:
                    self._chunk(json.dumps({"type": "DELETED", "object": job}) + "\n")
        self._chunk("")

    def _log(self, name: str) -> None:
        looks = self.world.logs.get(name, [])
        if not looks:
            self._status(400, "container is waiting to start")
            return
        lines = looks.pop(0) if len(looks) > 1 else looks[0]
        self._begin()
        for line in lines:
            if line == DISCONNECT:
                self.close_connection = True
                return
            self._chunk(f"{line}\n")
        self._chunk("")
        if len(looks) == 1:
            self.world.log_read.set()

    def _begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _status(self, code: int, message: str, headers: dict[str, str] | None = None) -> None:
        self._answer(code, {"kind": "Status", "code": code, "message": message}, headers)

    def _answer(self, code: int, body: Tree | None, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)
