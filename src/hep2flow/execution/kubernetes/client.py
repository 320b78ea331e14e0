"""The Kubernetes API as far as a job needs it: patient with a server that is away, clear about what is forbidden."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import kubernetes.client
import kubernetes.config
import kubernetes.watch
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from hep2flow.errors import UserError
from hep2flow.store.outage import Tell, to_standard_error

GROUP, VERSION, RAYJOBS = "ray.io", "v1", "rayjobs"
OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
CONNECT_SECONDS = 5
READ_SECONDS = 30
WATCH_SECONDS = 20  # after which a watch is begun again
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
# A job that runs needs no API server, and one that is given up for its absence would have ended well.
PATIENCE_SECONDS = 6 * 3600.0
WORTH_A_WORD_SECONDS = 30.0
# A token is renewed while it is read, and an API server that has just begun knows none.
UNAUTHORIZED = 3
HASTE_SECONDS = 15.0  # while this process is being ended
HURRY_SECONDS = 0.5  # of the second that is left to a process which Kubeflow terminates

Answer = TypeVar("Answer")


class ConflictError(Exception):
    """An object of that name is there already."""


class GoneError(Exception):
    """The version to watch from is too old: look at everything again."""


class QuotaExceededError(Exception):
    """A quota is used up: when another job of the namespace ends, there is room."""


class KubernetesApi:
    """One namespace of the cluster that the service account or KUBECONFIG names.

    Every method tries again for hours where the server is busy, broken or away, and raises UserError for what is
    forbidden.

    Args:
        namespace: Empty for the step's own, or the one that KUBECONFIG names.
        tell: Told in one line, once, that the server is away, and that it is back.
    """

    def __init__(self, namespace: str = "", tell: Tell = to_standard_error) -> None:
        self._tell, self._lock, self._away = tell, threading.Lock(), False
        configuration = kubernetes.client.Configuration()
        # Whoever asks is patient already.
        configuration.retries = False
        try:
            if os.environ.get("KUBERNETES_SERVICE_HOST"):
                kubernetes.config.load_incluster_config(client_configuration=configuration)
                own = OWN_NAMESPACE.read_text().strip() if OWN_NAMESPACE.exists() else ""
            else:
                file = os.environ.get("KUBECONFIG") or None  # the client has read it when it was imported
                kubernetes.config.load_kube_config(file, client_configuration=configuration)
                own = kubernetes.config.list_kube_config_contexts(file)[1]["context"].get("namespace", "")
        except kubernetes.config.ConfigException as error:
            raise UserError(
                f"there is no Kubernetes cluster to be found ({error}); run inside one, or set KUBECONFIG"
            ) from error
        self.namespace = namespace or own or "default"
        self.own = own
        client = kubernetes.client.ApiClient(configuration)
        self._server = str(configuration.host)
        self._custom = kubernetes.client.CustomObjectsApi(client)
        self._core = kubernetes.client.CoreV1Api(client)

    def create(self, manifest: dict[str, Any]) -> None:
        """Create a RayJob; ConflictError where there is one of its name, QuotaExceededError where a quota is used up."""
        try:
            self._call(
                "create",
                RAYJOBS,
                lambda: self._custom.create_namespaced_custom_object(*self._rayjobs, manifest, **_timeouts()),
            )
        except ApiException as error:
            if error.status == 409:
                raise ConflictError from error
            if error.status == 403 and "exceeded quota" in _message(error):
                raise QuotaExceededError(_message(error)) from error
            if error.status == 404:
                raise UserError(
                    f"{self._server} has no namespace {self.namespace}, or knows no RayJobs ({_message(error)}); "
                    "check cluster.namespace, and that the KubeRay operator is installed"
                ) from error
            raise self._refused("create", RAYJOBS, error) from error

    def get(self, name: str) -> dict[str, Any] | None:
        """A RayJob; None where there is none."""
        try:
            found: dict[str, Any] = self._call(
                "get", RAYJOBS, lambda: self._custom.get_namespaced_custom_object(*self._rayjobs, name, **_timeouts())
            )
        except ApiException as error:
            if error.status == 404:
                return None
            raise self._refused("get", RAYJOBS, error) from error
        return found

    def delete(self, name: str) -> None:
        """Delete a RayJob and, through it, its pods; in a hurry. One that is not there is no error."""
        try:
            self._call(
                "delete",
                RAYJOBS,
                lambda: self._custom.delete_namespaced_custom_object(
                    *self._rayjobs, name, propagation_policy="Background", **_timeouts()
                ),
                HASTE_SECONDS,
            )
        except ApiException as error:
            if error.status != 404:
                raise self._refused("delete", RAYJOBS, error) from error

    def look(self, name: str) -> tuple[dict[str, Any] | None, str]:
        """A RayJob, None where there is none, and the version to watch from."""
        try:
            found: dict[str, Any] = self._call(
                "list",
                RAYJOBS,
                lambda: self._custom.list_namespaced_custom_object(
                    *self._rayjobs, field_selector=f"metadata.name={name}", **_timeouts()
                ),
            )
        except ApiException as error:
            raise self._refused("list", RAYJOBS, error) from error
        return next(iter(found["items"]), None), found["metadata"]["resourceVersion"]

    def watch(self, name: str, version: str) -> Iterator[dict[str, Any] | None]:
        """A RayJob at each change after a version, for some seconds; None once it is deleted.

        Raises GoneError where the version is too old, and OSError where the watch broke off.
        """
        try:
            for event in kubernetes.watch.Watch().stream(
                self._custom.list_namespaced_custom_object,
                *self._rayjobs,
                field_selector=f"metadata.name={name}",
                resource_version=version,
                timeout_seconds=WATCH_SECONDS,
                _request_timeout=(CONNECT_SECONDS, WATCH_SECONDS + READ_SECONDS),
            ):
                if event["type"] != "BOOKMARK":
                    yield None if event["type"] == "DELETED" else event["object"]
        except ApiException as error:
            if error.status == 410:
                raise GoneError from error
            if _passes(error) or error.status == 401:  # whoever looks again is told where it stays so
                raise OSError(f"{error.status} {error.reason}") from error
            raise self._refused("watch", RAYJOBS, error) from error
        except (HTTPError, ValueError) as error:  # broken off, in the middle of a line too
            raise OSError(type(error).__name__) from error

    def pods(self, selector: str) -> list[dict[str, Any]]:
        """Pods with these labels, the oldest first."""
        try:
            answer = self._call(
                "list",
                "pods",
                lambda: self._core.list_namespaced_pod(
                    self.namespace, label_selector=selector, _preload_content=False, **_timeouts()
                ),
            )
        except ApiException as error:
            raise self._refused("list", "pods", error) from error
        items: list[dict[str, Any]] = json.loads(answer.data)["items"]
        return sorted(items, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))

    def log(self, pod: str) -> Iterator[str]:
        """Lines of a pod's log, each with its time before it, until the pod ends; OSError where they break off."""
        try:
            answer = self._core.read_namespaced_pod_log(
                pod,
                self.namespace,
                follow=True,
                timestamps=True,
                _preload_content=False,
                _request_timeout=(CONNECT_SECONDS, None),
            )
            try:
                yield from kubernetes.watch.watch.iter_resp_lines(answer)
            finally:
                answer.close()
        except ApiException as error:
            if _passes(error) or error.status in (400, 404):  # its container has not begun, or it is gone
                raise OSError(f"{error.status} {error.reason}") from error
            raise self._refused("get", "pods/log", error) from error
        except HTTPError as error:
            raise OSError(type(error).__name__) from error

    def is_leaving(self, pod: str) -> bool:
        """Whether a pod is being deleted, or gone: its node is drained, or somebody has deleted it. Asked once, in haste."""
        try:
            answer = self._core.read_namespaced_pod(
                pod, self.own, _preload_content=False, _request_timeout=HURRY_SECONDS
            )
        except ApiException as error:
            return bool(error.status == 404)
        except HTTPError:
            return False
        return "deletionTimestamp" in json.loads(answer.data)["metadata"]

    @property
    def _rayjobs(self) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self.namespace, RAYJOBS

    def _call(self, verb: str, resource: str, call: Callable[[], Answer], patience: float = PATIENCE_SECONDS) -> Answer:
        pause, began, refused = FIRST_PAUSE, time.monotonic(), 0
        while True:
            try:
                answer = call()
                self._is_away(False)
                return answer
            except (ApiException, HTTPError) as error:
                if isinstance(error, ApiException):
                    refused += error.status == 401
                    if not _passes(error) and not (error.status == 401 and refused < UNAUTHORIZED):
                        raise
                if time.monotonic() - began > WORTH_A_WORD_SECONDS:
                    self._is_away(True, _why(error))
                if time.monotonic() + pause > began + patience:
                    raise UserError(
                        f"Kubernetes at {self._server} {_why(error)} since {patience:.0f} s (to {verb} {resource}); "
                        "check the API server and the network"
                    ) from error
                time.sleep(max(pause, _asked_pause(error)))
                pause = min(2 * pause, LONGEST_PAUSE)

    def _is_away(self, away: bool, why: str = "") -> None:
        with self._lock:
            if away != self._away:
                self._away = away
                self._tell(
                    f"Kubernetes at {self._server} is away ({why}); it is waited for, and what runs goes on meanwhile"
                    if away
                    else f"Kubernetes at {self._server} is back"
                )

    def _refused(self, verb: str, resource: str, error: ApiException) -> UserError:
        told = _message(error)
        if error.status == 403 and re.search(r"\bcannot\b", told):
            group = GROUP if resource == RAYJOBS else ""
            return UserError(
                f"Kubernetes forbids to {verb} {resource} in namespace {self.namespace}: a Role lacks the rule "
                f'{{apiGroups: ["{group}"], resources: [{resource}], verbs: [{verb}]}}; k8s/base/role.yaml has it ({told})'
            )
        if error.status == 401:
            return UserError(f"Kubernetes at {self._server} does not accept these credentials; log in again")
        return UserError(f"Kubernetes refuses to {verb} {resource} in namespace {self.namespace}: {told}")


def _timeouts() -> dict[str, Any]:
    return {"_request_timeout": (CONNECT_SECONDS, READ_SECONDS)}


def _passes(error: ApiException) -> bool:
    """Whether it may be otherwise in a while.

    A quota that is new has no status for some seconds. Status 0 is the client's for a failed TLS handshake: where the API
    server is away its address may lead elsewhere (seen: certificate verify failed).
    """
    unknown = error.status == 403 and "status unknown for quota" in _message(error)
    return bool(unknown or error.status in (0, 429) or error.status >= 500)


def _why(error: ApiException | HTTPError) -> str:
    if isinstance(error, HTTPError):
        return f"cannot be reached, {type(error).__name__}"
    return f"answers {error.status}" if error.status else f"cannot be reached, {str(error.reason).splitlines()[0]}"


def _asked_pause(error: Exception) -> float:
    asked = (getattr(error, "headers", None) or {}).get("Retry-After", "")
    return min(float(asked), LONGEST_PAUSE) if str(asked).isdigit() else 0.0


def _message(error: ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)
