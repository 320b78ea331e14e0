"""Client of Kubeflow Pipelines for submitting runs: errors in one line."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import requests
from requests.structures import CaseInsensitiveDict

from hep2flow.errors import UserError

if TYPE_CHECKING:
    from hep2flow.execution.kubeflow.submission import Submission

SECONDS = 10
FINAL_STATES = frozenset({"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"})
# Not 500: KFP answers so where its Go compiler refuses a pipeline.
UNAVAILABLE = frozenset({502, 503, 504})
TERMINATED = frozenset({"CANCELING", "CANCELED"})

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Login:
    """Credentials; none where the host requires none, as behind `kubectl port-forward`.

    Attributes:
        token: File that holds the bearer token.
        cookies: File that holds the Cookie header of a browser that is logged in.
        ca: File of the certificate authority.
    """

    token: Path | None = None
    cookies: Path | None = None
    ca: Path | None = None


@dataclass(frozen=True)
class SubmittedRun:
    """A run, or a recurring run, as Kubeflow knows it."""

    id: str
    url: str


@dataclass(frozen=True)
class RunState:
    """A run's state in Kubeflow: late by minutes on a busy node, and never updated where its persistence agent failed.

    Attributes:
        state: In Kubeflow's words: PENDING, RUNNING, SUCCEEDED, SKIPPED, FAILED, CANCELING, CANCELED, PAUSED.
        terminated: Somebody ended it: such a run ends FAILED, after CANCELING (KFP 2.17).
        message: What went wrong, in Kubeflow's words; mostly empty.
    """

    state: str
    terminated: bool
    message: str

    @property
    def is_over(self) -> bool:
        """Whether Kubeflow will do nothing more for it."""
        return self.state in FINAL_STATES


class KubeflowUnreachableError(UserError):
    """Kubeflow Pipelines has become unreachable."""


class Kubeflow:
    """The API of Kubeflow Pipelines.

    Args:
        host: Its URL.
        namespace: Of the profile, in a Kubeflow with users.
        login: Credentials.

    Raises:
        UserError: It does not answer, or refuses the credentials.
    """

    def __init__(self, host: str, namespace: str, login: Login) -> None:
        if not host.startswith(("http://", "https://")):
            raise UserError(f"--host {host}: write it as a URL, for example http://127.0.0.1:8080")
        self._host = host.rstrip("/")
        token, cookies = _read_secret("--token-file", login.token), _read_secret("--cookies-file", login.cookies)
        self._check_reachable(token, cookies, login.ca)
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

    def submit(self, package: Path, submission: Submission) -> SubmittedRun:
        """Submit a compiled pipeline as a run, or as a recurring one; KFP's cache is off."""
        with _quiet():
            found = self._call(lambda: self._client.create_experiment(submission.experiment, namespace=self._namespace))
            shared: dict[str, Any] = {
                "experiment_id": found.experiment_id,
                "job_name": submission.name,
                "pipeline_package_path": str(package),
                "params": submission.arguments,
                "enable_caching": False,
                "service_account": submission.service_account or None,
            }
            if submission.cron:
                started = self._call(
                    lambda: self._client.create_recurring_run(cron_expression=submission.cron, **shared)
                )
                url = f"{self._host}/#/recurringrun/details/{started.recurring_run_id}"
                return SubmittedRun(started.recurring_run_id, url)
            started = self._call(lambda: self._client.run_pipeline(**shared))
            return SubmittedRun(started.run_id, f"{self._host}/#/runs/details/{started.run_id}")

    def state(self, run_id: str) -> RunState:
        """State of a run; UserError where Kubeflow does not answer, or knows no such run."""
        run = self._call(lambda: self._client.get_run(run_id))
        states = {str(run.state), *(str(entry.state) for entry in run.state_history or ())}
        message = "" if run.error is None else str(getattr(run.error, "message", "") or "")
        return RunState(str(run.state), bool(states & TERMINATED), message)

    def _check_reachable(self, token: str, cookies: str, ca: Path | None) -> None:
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
                f"Kubeflow Pipelines at {self._host} refuses access ({answer.status_code}); give --token-file or "
                "--cookies-file, or a fresh one"
            )
        if answer.status_code != 200 or "json" not in answer.headers.get("Content-Type", ""):
            raise UserError(
                f"{self._host}: no API of Kubeflow Pipelines answers there ({answer.status_code}); check --host"
            )

    def _call(self, call: Callable[[], Answer]) -> Answer:
        from kfp_server_api import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return call()
        except ApiException as error:
            if error.status in UNAVAILABLE:
                raise KubeflowUnreachableError(
                    f"Kubeflow Pipelines at {self._host} is unavailable ({error.status}: {_message(error)}); try again"
                ) from error
            raise UserError(
                f"Kubeflow Pipelines at {self._host} refuses ({error.status}): {_message(error)}"
            ) from error
        except HTTPError as error:
            raise KubeflowUnreachableError(
                f"Kubeflow Pipelines at {self._host} has become unreachable ({type(error).__name__}); try again"
            ) from error


@contextlib.contextmanager
def _quiet() -> Any:
    """Silence kfp's client, which prints links of its own and warns of versions."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _read_secret(option: str, file: Path | None) -> str:
    if file is None:
        return ""
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{option} {file}: cannot be read ({type(error).__name__}); name a readable text file"
        ) from error
    if not text or "\n" in text:
        raise UserError(f"{option} {file}: must hold one line and nothing else")
    return text


def _message(error: Any) -> str:
    """The server's own message, shortened to a line."""
    try:
        body = json.loads(error.body)
        text = str(body.get("error_message") or body.get("message") or body.get("error"))
    except (TypeError, ValueError, AttributeError):
        text = str(error.reason)
    return " ".join(text.split())[:300]
