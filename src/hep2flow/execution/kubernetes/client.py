"""The part of the Kubernetes API that a job needs: retries while the server is unreachable, names what is forbidden."""

import json
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import kubernetes.client
import kubernetes.config
import kubernetes.watch
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from hep2flow.errors import UserError
from hep2flow.store.outage import Log, log_to_stderr

GROUP, VERSION, RAYJOBS = "ray.io", "v1", "rayjobs"
OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
CONNECT_SECONDS = 5
READ_SECONDS = 30
SILENCE_SECONDS = 120  # of a log, after which it is opened again: a connection that is dead says nothing
WATCH_SECONDS = 20  # after which a watch is started again
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
# A running job needs no API server, and one that is given up because of an outage would have ended well.
PATIENCE_SECONDS = 6 * 3600.0
OUTAGE_NOTICE_SECONDS = 30.0
# A token may be renewed while it is read, and an API server that has just started knows none.
MAX_UNAUTHORIZED = 3
DELETE_SECONDS = 15.0  # this process is being ended
TERMINATION_SECONDS = 0.5  # of the one second between Kubeflow's SIGTERM and SIGKILL


class ConflictError(Exception):
    """An object of that name already exists."""


class GoneError(OSError):
    """The resource version to watch from is too old: list again."""


class QuotaExceededError(Exception):
    """A quota is used up until another job of the namespace ends."""


def load_configuration() -> tuple[kubernetes.client.Configuration, str]:
    """Configuration of the service account or of KUBECONFIG, without retries, and its own namespace, which may be empty.

    Raises:
        UserError: There is neither.
    """
    configuration = kubernetes.client.Configuration()
    configuration.retries = False  # urllib3's own end after seconds, and report nothing
    try:
        if os.environ.get("KUBERNETES_SERVICE_HOST"):
            kubernetes.config.load_incluster_config(client_configuration=configuration)
            return configuration, OWN_NAMESPACE.read_text().strip() if OWN_NAMESPACE.exists() else ""
        file = os.environ.get("KUBECONFIG") or None  # the client reads the variable only once, on import
        kubernetes.config.load_kube_config(file, client_configuration=configuration)
        return configuration, kubernetes.config.list_kube_config_contexts(file)[1]["context"].get("namespace", "")
    except kubernetes.config.ConfigException as error:
        what = f"there is no Kubernetes cluster to be found ({error})"
        raise UserError(f"{what}; run inside one, or set KUBECONFIG") from error


class KubernetesApi:
    """RayJobs and pods in one namespace of the cluster that the service account or KUBECONFIG names.

    Every method but the streams retries for hours while the server is busy, failing or unreachable, and raises UserError
    for what is forbidden. An empty ``namespace`` is the step's own, or the one that KUBECONFIG names. ``log`` gets one line
    when an outage of the server is noticed, and one when it is over.
    """

    def __init__(self, namespace: str = "", log: Log = log_to_stderr) -> None:
        self._log, self._lock, self._unreachable = log, threading.Lock(), False
        configuration, self.own_namespace = load_configuration()
        self.namespace = namespace or self.own_namespace or "default"
        self._rayjobs = GROUP, VERSION, self.namespace, RAYJOBS
        self._server = str(configuration.host)
        client = kubernetes.client.ApiClient(configuration)
        self._custom = kubernetes.client.CustomObjectsApi(client)
        self._core = kubernetes.client.CoreV1Api(client)

    def create(self, manifest: dict[str, Any]) -> None:
        """Create a RayJob; ConflictError for a name that exists, QuotaExceededError where a quota is used up."""
        try:
            method = self._custom.create_namespaced_custom_object
            self._call("create", RAYJOBS, method, *self._rayjobs, manifest, expected=(403, 404, 409))
        except ApiException as error:
            if error.status == 409:
                raise ConflictError from error
            if error.status == 403 and "exceeded quota" in _message(error):
                raise QuotaExceededError(_message(error)) from error
            if error.status == 404:
                what = f"{self._server} has no namespace {self.namespace}, or knows no RayJobs ({_message(error)})"
                fix = "check cluster.namespace, and that the KubeRay operator is installed"
                raise UserError(f"{what}; {fix}") from error
            raise self._refused("create", RAYJOBS, error) from error

    def get(self, name: str) -> dict[str, Any] | None:
        """A RayJob; None where there is none."""
        method, found = self._custom.get_namespaced_custom_object, None
        with suppress(ApiException):
            found = self._call("get", RAYJOBS, method, *self._rayjobs, name, expected=(404,))
        return found

    def delete(self, name: str) -> None:
        """Delete a RayJob and, through it, its pods, within seconds; one that does not exist is no error."""
        method, options = self._custom.delete_namespaced_custom_object, {"propagation_policy": "Background"}
        with suppress(ApiException):
            arguments = (*self._rayjobs, name)
            self._call("delete", RAYJOBS, method, *arguments, patience=DELETE_SECONDS, expected=(404,), **options)

    def find(self, name: str) -> tuple[dict[str, Any] | None, str]:
        """A RayJob, None where there is none, and the resource version to watch from."""
        method = self._custom.list_namespaced_custom_object
        found = self._call("list", RAYJOBS, method, *self._rayjobs, field_selector=f"metadata.name={name}")
        return next(iter(found["items"]), None), found["metadata"]["resourceVersion"]

    def watch(self, name: str, version: str, seconds: int = WATCH_SECONDS) -> Iterator[dict[str, Any] | None]:
        """Yield a RayJob at each change after a resource version, for so many seconds; None once it is deleted.

        GoneError where the version is too old, OSError where the watch broke off.
        """
        chosen = {"field_selector": f"metadata.name={name}", "resource_version": version}
        limits = {"timeout_seconds": seconds, "_request_timeout": (CONNECT_SECONDS, seconds + READ_SECONDS)}
        method, stream = self._custom.list_namespaced_custom_object, kubernetes.watch.Watch().stream
        with self._streaming("watch", RAYJOBS, passing=(401,)):  # where a 401 stays, the next `find` reports it
            for event in stream(method, *self._rayjobs, **chosen, **limits):
                if event["type"] != "BOOKMARK":
                    yield None if event["type"] == "DELETED" else event["object"]

    def pods(self, selector: str) -> list[dict[str, Any]]:
        """Pods with these labels, the oldest first."""
        options: dict[str, Any] = {"label_selector": selector, "_preload_content": False}
        answer = self._call("list", "pods", self._core.list_namespaced_pod, self.namespace, **options)
        items: list[dict[str, Any]] = json.loads(answer.data)["items"]
        return sorted(items, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))

    def log(self, pod: str) -> Iterator[str]:
        """Yield lines of a pod's log, each with its time before it, until the pod ends; OSError where the log breaks off."""
        options = {"follow": True, "timestamps": True, "_request_timeout": (CONNECT_SECONDS, SILENCE_SECONDS)}
        with self._streaming("get", "pods/log", passing=(400, 404)):  # its container has not started, or it is gone
            answer = self._core.read_namespaced_pod_log(pod, self.namespace, _preload_content=False, **options)
            with closing(answer):
                yield from kubernetes.watch.watch.iter_resp_lines(answer)

    @contextmanager
    def _streaming(self, verb: str, resource: str, passing: Collection[int]) -> Iterator[None]:
        """OSError for what breaks a stream off, a status that passes among it; UserError for what is refused."""
        try:
            yield
        except ApiException as error:
            if error.status == 410:
                raise GoneError from error
            if _is_transient(error) or error.status in passing:
                raise OSError(f"{error.status} {error.reason}") from error
            raise self._refused(verb, resource, error) from error
        except (HTTPError, ValueError) as error:  # ValueError: broken off in the middle of a line
            raise OSError(type(error).__name__) from error

    def is_being_deleted(self, pod: str) -> bool:
        """Whether a pod of the own namespace is being deleted, or gone; one attempt of half a second."""
        options = {"_preload_content": False, "_request_timeout": TERMINATION_SECONDS}
        try:
            answer = self._core.read_namespaced_pod(pod, self.own_namespace, **options)
        except ApiException as error:
            return bool(error.status == 404)
        except HTTPError:
            return False
        return "deletionTimestamp" in json.loads(answer.data)["metadata"]

    def _call(
        self,
        verb: str,
        resource: str,
        method: Callable[..., Any],
        *arguments: Any,
        patience: float = PATIENCE_SECONDS,
        expected: Collection[int] = (),
        **options: Any,
    ) -> Any:
        """Retry until the server answers; ApiException for an expected status, UserError for any other refusal.

        urllib3's Retry would repeat neither a 403 or 401 that passes nor the client's status 0, reports no outage, and
        counts attempts instead of hours.
        """
        pause, started, unauthorized = FIRST_PAUSE, time.monotonic(), 0
        while True:
            try:
                answer = method(*arguments, **options, _request_timeout=(CONNECT_SECONDS, READ_SECONDS))
                self._report_outage(None)
                return answer
            except (ApiException, HTTPError) as error:
                if isinstance(error, ApiException):
                    unauthorized += error.status == 401
                    if not _is_transient(error) and not (error.status == 401 and unauthorized < MAX_UNAUTHORIZED):
                        if error.status in expected:
                            raise
                        raise self._refused(verb, resource, error) from error
                if time.monotonic() - started > OUTAGE_NOTICE_SECONDS:
                    self._report_outage(_reason(error))
                if time.monotonic() + pause > started + patience:
                    what = (
                        f"Kubernetes at {self._server} {_reason(error)} since {patience:.0f} s (to {verb} {resource})"
                    )
                    raise UserError(f"{what}; check the API server and the network") from error
                time.sleep(max(pause, _retry_after(error)))
                pause = min(2 * pause, LONGEST_PAUSE)

    def _report_outage(self, reason: str | None) -> None:
        with self._lock:
            if (reason is not None) != self._unreachable:
                self._unreachable = reason is not None
                news = f"unreachable ({reason}); waiting for it, running jobs continue" if reason else "reachable again"
                self._log(f"Kubernetes at {self._server} is {news}")

    def _refused(self, verb: str, resource: str, error: ApiException) -> UserError:
        message, what = _message(error), f"to {verb} {resource} in namespace {self.namespace}"
        if error.status == 403 and re.search(r"\bcannot\b", message):
            group = GROUP if resource == RAYJOBS else ""
            rule = f'{{apiGroups: ["{group}"], resources: [{resource}], verbs: [{verb}]}}; k8s/base/role.yaml has it'
            return UserError(f"Kubernetes forbids {what}: a Role lacks the rule {rule} ({message})")
        if error.status == 401:
            return UserError(f"Kubernetes at {self._server} does not accept these credentials; log in again")
        return UserError(f"Kubernetes refuses {what}: {message}")


def _is_transient(error: ApiException) -> bool:
    """Whether a later attempt may succeed.

    A new quota has no status for some seconds. Status 0 is the client's for a failed TLS handshake: where the API server
    is unreachable its address may lead elsewhere (seen: certificate verify failed).
    """
    new_quota = error.status == 403 and "status unknown for quota" in _message(error)
    return bool(new_quota or error.status in (0, 429) or error.status >= 500)


def _reason(error: ApiException | HTTPError) -> str:
    if isinstance(error, HTTPError):
        return f"cannot be reached, {type(error).__name__}"
    return f"answers {error.status}" if error.status else f"cannot be reached, {str(error.reason).splitlines()[0]}"


def _retry_after(error: Exception) -> float:
    seconds = (getattr(error, "headers", None) or {}).get("Retry-After", "")
    return min(float(seconds), LONGEST_PAUSE) if str(seconds).isdigit() else 0.0


def _message(error: ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)
