"""A training as a run of MLflow, where the environment names a tracking server."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hep2flow import __version__
from hep2flow.errors import UserError
from hep2flow.recipe import Recipe
from hep2flow.tracking import scalars

if TYPE_CHECKING:
    from mlflow import MlflowClient

TRAINING = "hep2flow.training"

# MLflow's limits: characters of a parameter's value (later servers take more), and entries of one request.
VALUE_LENGTH, PARAMS_AT_ONCE, METRICS_AT_ONCE = 250, 100, 1000


def log_to_mlflow(name: str, recipe: Recipe, history: Sequence[Mapping[str, Any]], manifest: Mapping[str, Any]) -> None:
    """Log a training to MLFLOW_TRACKING_URI, once; do nothing where that is not set.

    The experiment is MLFLOW_EXPERIMENT_NAME, else ``hep2flow``. The training, of this key, is assumed to have ended now; its
    ``history`` are the lines of ``metrics.jsonl``, in order; at least one.

    Raises:
        UserError: mlflow is not installed, or the training could not be logged.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise UserError(
            f"MLFLOW_TRACKING_URI is set, but mlflow is not installed ({error.name or error}); "
            "pip install 'hep2flow[mlflow]', or unset it"
        ) from error
    try:
        _log(MlflowClient(tracking_uri=uri), name, recipe, history, manifest)
    except Exception as error:  # no error of a tracker may end hours of training
        # Without its cause: mlflow repeats the URI, credentials and all.
        raise UserError(_failure(name, uri, error)) from None


def _log(
    client: "MlflowClient", name: str, recipe: Recipe, history: Sequence[Mapping[str, Any]], manifest: Mapping[str, Any]
) -> None:
    from mlflow.entities import Metric, Param

    experiment = _experiment(client, os.environ.get("MLFLOW_EXPERIMENT_NAME") or "hep2flow")
    for earlier in client.search_runs([experiment], f"tags.`{TRAINING}` = '{name}'"):
        if earlier.info.status == "FINISHED":
            return
        client.delete_run(earlier.info.run_id)  # its logging was interrupted

    started = round((time.time() - history[-1]["seconds"]) * 1000)
    ends = [started + round(epoch["seconds"] * 1000) for epoch in history]
    params = [Param(key, value) for key, value in _leaves(recipe.model_dump(mode="json"))]
    metrics = [
        Metric(key, value, end, epoch["epoch"])
        for epoch, end in zip(history, ends, strict=True)
        for key, value in scalars(epoch).items()
    ]
    told = ("network", "dataset", "split", "selected_on_test", "warning")
    facts = {f"hep2flow.{key}": _text(manifest[key]) for key in told if key in manifest}
    tags = {TRAINING: name, "hep2flow.version": __version__, **facts}
    run = client.create_run(experiment, started, tags, recipe.title).info.run_id
    for first in range(0, len(params), PARAMS_AT_ONCE):
        client.log_batch(run, params=params[first : first + PARAMS_AT_ONCE], synchronous=True)
    for first in range(0, len(metrics), METRICS_AT_ONCE):
        client.log_batch(run, metrics=metrics[first : first + METRICS_AT_ONCE], synchronous=True)
    client.set_terminated(run, end_time=ends[-1])


def _experiment(client: "MlflowClient", name: str) -> str:
    """ID of the experiment of this name, which is created where it does not exist."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:  # another training may have created it meanwhile
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _leaves(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of nested mappings by their dotted path, all but text as JSON, cut to the length MLflow takes."""
    for key, value in nested.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}.")
        else:
            text = _text(value)
            yield path, text if len(text) <= VALUE_LENGTH else text[: VALUE_LENGTH - 1] + "…"


def _failure(name: str, uri: str, error: Exception) -> str:
    """The error on one line, without MLflow's message where the URI may hold credentials."""
    shown = _without_credentials(uri)
    words = f": {' '.join(str(error).split())[:500]}" if shown == uri else ""
    what = getattr(error, "error_code", None) or type(error).__name__
    return (
        f"training {name} was not logged to MLflow at {shown} ({what}{words}); "
        "check MLFLOW_TRACKING_URI and that the server answers there, or unset it"
    )


def _without_credentials(uri: str) -> str:
    """The URI without what stands before its last ``@`` or behind its first ``?``."""
    scheme, separator, rest = uri.partition("://")
    if "@" in rest and "?" in rest:  # either may be part of the other
        return f"{scheme}://…"
    return scheme + separator + rest.rpartition("@")[2].partition("?")[0]
