"""Kubeflow Pipelines as whoever submits a run sees it: reached at once or refused in one line."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import requests
from requests.structures import CaseInsensitiveDict

from hep2flow.errors import UserError

SECONDS = 10
OVER = frozenset({"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"})
# Not 500, which is its word for a pipeline that it refuses.
AWAY = frozenset({502, 503, 504})
TERMINATED = frozenset({"CANCELING", "CANCELED"})

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Login:
    """How to be let in; nothing where the host asks for nothing, as behind `kubectl port-forward`.

    token, cookies: files that hold the bearer token, and the Cookie header of a browser that is logged in
    ca:     file of the certificate authority
    """

    token: Path | None = None
    cookies: Path | None = None
    ca: Path | None = None


@dataclass(frozen=True)
class Sent:
    """A run, or a recurring run, as Kubeflow knows it."""

    id: str
    url: str


@dataclass(frozen=True)
class RunState:
    """A run as Kubeflow sees it: late by minutes on a busy node, and for ever where its persistence agent has failed.

    Attributes:
        state: In Kubeflow's words: PENDING, RUNNING, SUCCEEDED, SKIPPED, FAILED, CANCELING, CANCELED, PAUSED.
        terminated: Somebody ended it: such a run is FAILED in the end, after CANCELING.
        message: What went wrong, in Kubeflow's words; mostly empty.
    """

    state: str
    terminated: bool
    message: str

    @property
    def is_over(self) -> bool:
        """Whether Kubeflow will do nothing more for it."""
        return self.state in OVER


class KubeflowAwayError(UserError):
    """Kubeflow Pipelines does not answer, after it has."""


class Kubeflow:
    """One Kubeflow Pipelines API.

    host: its URL; namespace: of the profile, in a Kubeflow with users
    Raises UserError where it does not answer, or does not let us in.
    """

    def __init__(self, host: str, namespace: str, login: Login) -> None:
        if not host.startswith(("http://", "https://")):
            raise UserError(f"--host {host}: write it as a URL, for example http://127.0.0.1:8080")
        self._host = host.rstrip("/")
        token, cookies = _secret("--token-file", login.token), _secret("--cookies-file", login.cookies)
        self._knock(token, cookies, login.ca)
        with _quiet():
            import kfp

            self._client = kfp.Client(
                host=self._host,
                namespace=namespace or "kubeflow",
                existing_token=token or None,
                cookies=cookies or None,
                ssl_ca_cert=None if login.ca is None else str(login.ca),
            )
        self._namespace = namespace or None

    def run(
        self,
        package: Path,
        experiment: str,
        name: str,
        arguments: dict[str, Any],
        service_account: str,
        cron: str = "",
    ) -> Sent:
        """Start a run, or with ``cron`` have one started at each of its times; never answered from Kubeflow's cache."""
        with _quiet():
            found = self._ask(lambda: self._client.create_experiment(experiment, namespace=self._namespace))
            shared: dict[str, Any] = {
                "experiment_id": found.experiment_id,
                "job_name": name,
                "pipeline_package_path": str(package),
                "params": arguments,
                "enable_caching": False,
                "service_account": service_account or None,
            }
            if cron:
                started = self._ask(lambda: self._client.create_recurring_run(cron_expression=cron, **shared))
                there = f"recurringrun/details/{started.recurring_run_id}"
                return Sent(started.recurring_run_id, f"{self._host}/#/{there}")
            begun = self._ask(lambda: self._client.run_pipeline(**shared))
            return Sent(begun.run_id, f"{self._host}/#/runs/details/{begun.run_id}")

    def state(self, run_id: str) -> RunState:
        """How a run is now; UserError where Kubeflow does not answer, or knows no such run."""
        run = self._ask(lambda: self._client.get_run(run_id))
        seen = {str(run.state), *(str(entry.state) for entry in run.state_history or ())}
        message = "" if run.error is None else str(getattr(run.error, "message", "") or "")
        return RunState(str(run.state), bool(seen & TERMINATED), message)

    def _knock(self, token: str, cookies: str, ca: Path | None) -> None:
        headers = CaseInsensitiveDict({"Authorization": f"Bearer {token}"} if token else {})
        if cookies:
            headers["Cookie"] = cookies
        try:
            answer = requests.get(
                f"{self._host}/apis/v2beta1/healthz",
                headers=headers,
                timeout=SECONDS,
                verify=True if ca is None else str(ca),
                allow_redirects=False,
            )
        except (requests.RequestException, OSError) as error:
            raise UserError(
                f"Kubeflow Pipelines at {self._host} cannot be reached ({type(error).__name__}); check --host, and that "
                "`kubectl port-forward service/ml-pipeline-ui 8080:80` runs where you go through it"
            ) from error
        if answer.status_code in (301, 302, 303, 307, 401, 403):
            raise UserError(
                f"Kubeflow Pipelines at {self._host} does not let us in ({answer.status_code}); give --token-file or "
                "--cookies-file, or a fresh one"
            )
        if answer.status_code != 200 or "json" not in answer.headers.get("Content-Type", ""):
            raise UserError(
                f"{self._host}: no API of Kubeflow Pipelines answers there ({answer.status_code}); check --host"
            )

    def _ask(self, call: Callable[[], Answer]) -> Answer:
        from kfp_server_api import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return call()
        except ApiException as error:
            if error.status in AWAY:
                raise KubeflowAwayError(
                    f"Kubeflow Pipelines at {self._host} is away ({error.status}: {_told(error)}); try again"
                ) from error
            raise UserError(f"Kubeflow Pipelines at {self._host} refuses ({error.status}): {_told(error)}") from error
        except HTTPError as error:
            raise KubeflowAwayError(
                f"Kubeflow Pipelines at {self._host} went away ({type(error).__name__}); try again"
            ) from error


@contextlib.contextmanager
def _quiet() -> Any:
    """The client prints links of its own, and warns of versions that are not ours."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _secret(option: str, file: Path | None) -> str:
    if file is None:
        return ""
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{option} {file}: cannot be read ({type(error).__name__}); name a readable text file"
        ) from error
    if not text or "\n" in text:
        raise UserError(f"{option} {file}: is to hold one line and nothing else")
    return text


def _told(error: Any) -> str:
    """The server's own message, shortened to a line."""
    import json

    try:
        body = json.loads(error.body)
        text = str(body.get("error_message") or body.get("message") or body.get("error"))
    except (TypeError, ValueError, AttributeError):
        text = str(error.reason)
    return " ".join(text.split())[:300]
