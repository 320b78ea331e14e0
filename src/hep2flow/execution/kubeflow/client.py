"""Client of Kubeflow Pipelines for submitting runs: errors in one line."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from hep2flow.errors import UserError

if TYPE_CHECKING:
    from hep2flow.execution.kubeflow.submission import Submission

SECONDS = 10
FINAL_STATES = frozenset({"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"})
# Not 500: KFP answers so where its Go compiler refuses a pipeline.
UNAVAILABLE = frozenset({502, 503, 504})
TERMINATED = frozenset({"CANCELING", "CANCELED"})


@dataclass(frozen=True)
class SubmittedRun:
    """A run, or a recurring one, as Kubeflow knows it."""

    id: str
    url: str


@dataclass(frozen=True)
class RunState:
    """A run's state in Kubeflow: late by minutes on a busy node, and never updated where its persistence agent failed."""

    state: str  # in Kubeflow's words: PENDING, RUNNING, SUCCEEDED, SKIPPED, FAILED, CANCELING, CANCELED, PAUSED
    terminated: bool  # somebody ended it: such a run ends FAILED, after CANCELING (KFP 2.17)
    message: str  # what went wrong, in Kubeflow's words; mostly empty


class KubeflowUnreachableError(UserError):
    """Kubeflow Pipelines has become unreachable."""


class Kubeflow:
    """The API of Kubeflow Pipelines at a URL; ``namespace`` is the profile's, in a Kubeflow with users.

    Files hold the bearer token, the Cookie header of a browser that is logged in, and the certificate authority; None
    where the host requires none, as behind `kubectl port-forward`.

    Raises:
        UserError: It does not answer, or refuses the credentials.
    """

    def __init__(self, host: str, namespace: str, token: Path | None, cookies: Path | None, ca: Path | None) -> None:
        if not host.startswith(("http://", "https://")):
            raise UserError(f"--host {host}: write it as a URL, for example http://127.0.0.1:8080")
        self._host = host.rstrip("/")
        self._api = f"Kubeflow Pipelines at {self._host}"
        bearer, cookie = _read_secret("--token-file", token), _read_secret("--cookies-file", cookies)
        self._check_reachable(bearer, cookie, ca)
        with _quiet():
            import kfp

            self._client = kfp.Client(
                host=self._host,
                namespace=namespace or "kubeflow",
                existing_token=bearer,
                cookies=cookie,
                ssl_ca_cert=None if ca is None else str(ca),
            )
        self._apispace = namespace or None

    def submit(self, package: Path, submission: Submission) -> SubmittedRun:
        """Submit a compiled pipeline as a run, or as a recurring one; KFP's cache is off."""
        client = self._client
        with _quiet():
            found = self._call(client.create_experiment, submission.experiment, namespace=self._apispace)
            shared: dict[str, Any] = {
                "experiment_id": found.experiment_id,
                "job_name": submission.name,
                "pipeline_package_path": str(package),
                "params": submission.arguments,
                "enable_caching": False,
                "service_account": submission.service_account or None,
            }
            if submission.cron:
                run = self._call(client.create_recurring_run, cron_expression=submission.cron, **shared)
                return SubmittedRun(run.recurring_run_id, f"{self._host}/#/recurringrun/details/{run.recurring_run_id}")
            run = self._call(client.run_pipeline, **shared)
            return SubmittedRun(run.run_id, f"{self._host}/#/runs/details/{run.run_id}")

    def state(self, run_id: str) -> RunState:
        """State of a run; UserError where Kubeflow does not answer, or knows no such run."""
        run = self._call(self._client.get_run, run_id)
        states = {str(run.state), *(str(entry.state) for entry in run.state_history or ())}
        message = "" if run.error is None else str(getattr(run.error, "message", "") or "")
        return RunState(str(run.state), bool(states & TERMINATED), message)

    def _check_reachable(self, token: str | None, cookie: str | None, ca: Path | None) -> None:
        headers = {"Authorization": f"Bearer {token}" if token else None, "Cookie": cookie}
        url, verify = f"{self._host}/apis/v2beta1/healthz", True if ca is None else str(ca)
        try:
            answer = requests.get(url, headers=headers, timeout=SECONDS, verify=verify, allow_redirects=False)
        except (requests.RequestException, OSError) as error:
            forward = "`kubectl port-forward service/ml-pipeline-ui 8080:80` runs where you go through it"
            what = f"{self._api} cannot be reached ({type(error).__name__})"
            raise UserError(f"{what}; check --host, and that {forward}") from error
        code = answer.status_code
        if code in (301, 302, 303, 307, 401, 403):
            raise UserError(f"{self._api} refuses access ({code}); give --token-file or --cookies-file, or a fresh one")
        if code != 200 or "json" not in answer.headers.get("Content-Type", ""):
            raise UserError(f"{self._host}: no API of Kubeflow Pipelines answers there ({code}); check --host")

    def _call(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        from kfp_server_api import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return method(*arguments, **options)
        except ApiException as error:
            if error.status not in UNAVAILABLE:
                raise UserError(f"{self._api} refuses ({error.status}): {_message(error)}") from error
            what = f"{self._api} is unavailable ({error.status}: {_message(error)})"
            raise KubeflowUnreachableError(f"{what}; try again") from error
        except HTTPError as error:
            what = f"{self._api} has become unreachable ({type(error).__name__})"
            raise KubeflowUnreachableError(f"{what}; try again") from error


@contextlib.contextmanager
def _quiet() -> Any:
    """Silence kfp's client, which prints links of its own and warns of versions."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _read_secret(option: str, file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        what = f"{option} {file}: cannot be read ({type(error).__name__})"
        raise UserError(f"{what}; name a readable text file") from error
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
