"""The log of a RayJob: shown while the job runs, and copied to the store, because it is deleted with the cluster."""

import threading
import time
from typing import Any

from hep2flow.errors import UserError
from hep2flow.execution.kubernetes.client import KubernetesApi
from hep2flow.execution.kubernetes.rayjob import JOB_LABEL
from hep2flow.process import TerminatedError
from hep2flow.store.outage import log_to_stderr
from hep2flow.store.s3 import Store

PAUSE_SECONDS = 2.0
UPLOAD_SECONDS = 30.0  # between two copies to the store
JOIN_SECONDS = 5.0
ENDED = frozenset({"Succeeded", "Failed"})


class JobLog:
    """Copies the submitter's log, which is the driver's, to standard error and to ``key`` while the block runs.

    A stream that breaks off is continued without a repeated line, and so is the log of a submitter whose pod was lost: the
    one that replaces it prints the log of the same submission from its beginning.
    """

    def __init__(self, api: KubernetesApi, job: str, store: Store, key: str) -> None:
        self._api, self._store, self._key = api, store, key
        self._selector = f"{JOB_LABEL}={job},app.kubernetes.io/component=submitter"
        self._lines: list[str] = []
        self._printed: dict[str, list[str]] = {}  # submission -> its lines
        self._received: dict[str, int] = {}  # pod -> lines
        self._last_time: dict[str, str] = {}  # pod -> time of its last line
        self._complete: set[str] = set()
        self._uploaded, self._uploaded_at = 0, time.monotonic()
        self._over = threading.Event()
        self._reader = threading.Thread(target=self._read, name="job-log", daemon=True)

    def __enter__(self) -> "JobLog":
        self._reader.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self._over.set()
        if kind is not None and issubclass(kind, TerminatedError):  # the record needs the one second before SIGKILL
            return
        self._reader.join(JOIN_SECONDS)
        self._upload()

    def _read(self) -> None:
        last = False
        while not last:
            last = self._over.is_set()
            try:
                for pod in self._api.pods(self._selector):
                    self._read_pod(pod)
            except UserError as error:  # the job runs on without it
                log_to_stderr(f"hep2flow: the job's log cannot be shown: {error}")
                return
            self._upload()
            self._over.wait(PAUSE_SECONDS)

    def _read_pod(self, pod: dict[str, Any]) -> None:
        name, ended = pod["metadata"]["name"], pod.get("status", {}).get("phase") in ENDED
        if name in self._complete:
            return
        try:
            for line in self._api.log(name):
                at, _, text = line.partition(" ")
                if at > self._last_time.get(name, ""):
                    self._last_time[name] = at
                    self._show(name, _submission(pod), text)
        except OSError:  # broken off, or not started: the next round continues
            return
        if ended:
            self._complete.add(name)

    def _show(self, pod: str, submission: str, line: str) -> None:
        printed, place = self._printed.setdefault(submission, []), self._received.get(pod, 0)
        self._received[pod] = place + 1
        if printed[place : place + 1] == [line]:  # by the submitter that was lost
            return
        printed.append(line)
        self._lines.append(line)
        log_to_stderr(line)
        if time.monotonic() - self._uploaded_at > UPLOAD_SECONDS:
            self._upload()

    def _upload(self) -> None:
        self._uploaded_at, count = time.monotonic(), len(self._lines)
        if count == self._uploaded:
            return
        try:
            self._store.put_bytes(self._key, "".join(f"{line}\n" for line in self._lines[:count]).encode())
        except UserError as error:
            log_to_stderr(f"hep2flow: the job's log cannot be stored: {error}")
        self._uploaded = count


def _submission(pod: dict[str, Any]) -> str:
    """KubeRay's id of the Ray job that a submitter's pod follows; a new Ray cluster has another."""
    variables = pod.get("spec", {}).get("containers", [{}])[0].get("env", [])
    return next((str(one["value"]) for one in variables if one["name"] == "RAY_JOB_SUBMISSION_ID"), "")
