"""The log of a job on a cluster: shown as it comes, and kept in the store, because it goes with the cluster."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from hep2flow.errors import UserError
from hep2flow.execution.kubernetes.client import KubernetesApi
from hep2flow.execution.kubernetes.rayjob import JOB
from hep2flow.process import TerminatedError
from hep2flow.store.s3 import Store

PAUSE_SECONDS = 2.0
KEEP_SECONDS = 30.0  # between two copies to the store
END_SECONDS = 5.0
ENDED = frozenset({"Succeeded", "Failed"})


class JobLog:
    """While its block runs the log of a job's submitter, which is that of its driver, goes to standard error and to ``key``.

    A stream that breaks off is taken up again without a line twice.
    """

    def __init__(self, api: KubernetesApi, job: str, store: Store, key: str) -> None:
        self._api, self._store, self._key = api, store, key
        self._selector = f"{JOB}={job},app.kubernetes.io/component=submitter"
        self._lines: list[str] = []
        self._until: dict[str, str] = {}  # pod -> time of its last line
        self._whole: set[str] = set()
        self._kept, self._kept_at = 0, time.monotonic()
        self._over = threading.Event()
        self._reader = threading.Thread(target=self._read, name="job-log", daemon=True)

    def __enter__(self) -> JobLog:
        self._reader.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self._over.set()
        if kind is not None and issubclass(kind, TerminatedError):  # a second is left, and the record needs it
            return
        self._reader.join(END_SECONDS)
        self._keep()

    def _read(self) -> None:
        last = False
        while not last:
            last = self._over.is_set()
            try:
                for pod in self._api.pods(self._selector):
                    self._read_pod(pod)
            except UserError as error:  # the job itself is well without it
                print(f"hep2flow: the job's log cannot be shown: {error}", file=sys.stderr, flush=True)
                return
            self._over.wait(PAUSE_SECONDS)

    def _read_pod(self, pod: dict[str, Any]) -> None:
        name, ended = pod["metadata"]["name"], pod.get("status", {}).get("phase") in ENDED
        if name in self._whole:
            return
        try:
            for line in self._api.log(name):
                at, _, text = line.partition(" ")
                if at > self._until.get(name, ""):
                    self._until[name] = at
                    self._lines.append(text)
                    print(text, file=sys.stderr, flush=True)
                    if time.monotonic() - self._kept_at > KEEP_SECONDS:
                        self._keep()
        except OSError:  # broken off, or not begun: at the next look
            return
        if ended:
            self._whole.add(name)

    def _keep(self) -> None:
        self._kept_at, count = time.monotonic(), len(self._lines)
        if count == self._kept:
            return
        try:
            self._store.put_bytes(self._key, "".join(f"{line}\n" for line in self._lines[:count]).encode())
        except UserError as error:
            print(f"hep2flow: the job's log cannot be kept: {error}", file=sys.stderr, flush=True)
        self._kept = count
