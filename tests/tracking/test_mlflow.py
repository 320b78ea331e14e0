"""MLflow: the real client on a folder, and on a server that is not there."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from hep2flow.errors import UserError
from hep2flow.recipe import Recipe, load_recipe
from hep2flow.tracking.mlflow import log_to_mlflow
from tests.tracking.records import KEY, MANIFEST, history

DEAD = "127.0.0.1:9"  # the discard port: nobody listens


@pytest.fixture(autouse=True)
def _own_settings() -> None:
    """Nobody's tracker; nothing is told to MLflow's makers, and a dead server is not asked for minutes."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        del os.environ[name]
    os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("convnext-b", "laptop", ["train.epochs=4"])


@pytest.fixture
def client(tmp_path: Path) -> Any:
    """MLflow's client of the store that the environment names."""
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'hep2flow[mlflow]'")
    os.environ.update(MLFLOW_ALLOW_FILE_STORE="true", MLFLOW_TRACKING_URI=(tmp_path / "tracked").as_uri())
    return mlflow.MlflowClient()


def runs(client: Any, experiment: str = "hep2flow") -> list[Any]:
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


def test_a_training_is_a_run_with_its_recipe_its_curves_and_where_it_came_from(client: Any, recipe: Recipe) -> None:
    log_to_mlflow(KEY, recipe, history(4), MANIFEST)
    (run,) = runs(client)
    assert (run.info.run_name, run.info.status) == (recipe.title, "FINISHED")
    assert run.info.end_time - run.info.start_time == 6000  # as long as the training took, milliseconds
    params = run.data.params
    assert (params["model.network"], params["train.epochs"]) == (recipe.model.network, "4")
    assert (params["train.ema"], params["optim.betas"]) == ("null", "[0.9, 0.999]")
    assert {key.partition(".")[0] for key in params} == set(Recipe.model_fields)

    curve = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in curve] == [(1, 2.0), (2, 1.0), (3, 2 / 3), (4, 0.5)]
    assert [point.timestamp - run.info.start_time for point in curve] == [1500, 3000, 4500, 6000]
    validated = client.get_metric_history(run.info.run_id, "validation/accuracy")
    assert [(point.step, point.value) for point in validated] == [(2, 0.5), (4, 0.75)]

    tags = run.data.tags
    assert tags["hep2flow.training"] == KEY
    assert tags["hep2flow.network"] == MANIFEST["network"]
    assert (tags["hep2flow.dataset"], tags["hep2flow.split"]) == (MANIFEST["dataset"], MANIFEST["split"])
    assert {"hep2flow.version", "hep2flow.selected_on_test"} <= set(tags)


def test_what_was_selected_on_the_test_set_says_so(client: Any, recipe: Recipe) -> None:
    log_to_mlflow(KEY, recipe, history(2), {**MANIFEST, "selected_on_test": True, "warning": "optimistic"})
    (run,) = runs(client)
    assert run.data.tags["hep2flow.selected_on_test"] == "true"
    assert run.data.tags["hep2flow.warning"] == "optimistic"


def test_a_training_is_logged_once(client: Any, recipe: Recipe) -> None:
    log_to_mlflow(KEY, recipe, history(2), MANIFEST)
    (first,) = runs(client)
    log_to_mlflow(KEY, recipe, history(2), MANIFEST)
    assert [run.info.run_id for run in runs(client)] == [first.info.run_id]
    log_to_mlflow(KEY[::-1], recipe, history(2), MANIFEST)
    assert {run.data.tags["hep2flow.training"] for run in runs(client)} == {KEY, KEY[::-1]}


def test_a_logging_that_broke_off_is_made_anew(client: Any, recipe: Recipe) -> None:
    log_to_mlflow(KEY, recipe, history(2), MANIFEST)
    (broken,) = runs(client)
    client.update_run(broken.info.run_id, status="RUNNING")
    log_to_mlflow(KEY, recipe, history(2), MANIFEST)
    (whole,) = runs(client)
    assert whole.info.run_id != broken.info.run_id
    assert whole.info.status == "FINISHED"


def test_the_environment_names_the_experiment(client: Any, recipe: Recipe) -> None:
    os.environ["MLFLOW_EXPERIMENT_NAME"] = "slides of May"
    log_to_mlflow(KEY, recipe, history(2), MANIFEST)
    assert len(runs(client, "slides of May")) == 1
    assert client.get_experiment_by_name("hep2flow") is None


def test_long_trainings_and_long_values_keep_to_mlflows_limits(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real, most = type(client).log_batch, {"params": 100, "metrics": 1000}  # a server refuses more, a folder does not

    def strict(self: Any, run: str, **entries: Any) -> None:
        assert all(len(entries.get(kind, ())) <= limit for kind, limit in most.items())
        real(self, run, **entries)

    monkeypatch.setattr(type(client), "log_batch", strict)
    weights = "s3://bucket/" + "long/" * 2000 + "weights.safetensors"
    recipe = load_recipe("convnext-b", "laptop", [f"model.weights={weights}"])
    log_to_mlflow(KEY, recipe, history(700), MANIFEST)
    (run,) = runs(client)
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 700
    assert len(client.get_metric_history(run.info.run_id, "validation/loss")) == 350
    assert run.data.params["model.weights"].startswith("s3://bucket/long/")
    assert run.data.params["model.weights"].endswith("…")


def test_two_trainings_that_make_the_experiment_at_once_both_find_it(
    client: Any, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = type(client).get_experiment_by_name, []

    def late(self: Any, name: str) -> Any:
        asked.append(name)
        if len(asked) == 1:
            real(self, name) or self.create_experiment(name)
            return None
        return real(self, name)

    monkeypatch.setattr(type(client), "get_experiment_by_name", late)
    log_to_mlflow(KEY, recipe, history(2), MANIFEST)
    assert len(runs(client)) == 1


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (f"http://{DEAD}", f"http://{DEAD} ("),
        (f"http://anna:hush%21@{DEAD}/ml", f"http://{DEAD}/ml ("),
        (f"http://anna:hu/sh@{DEAD}", f"http://{DEAD} ("),
        (f"http://anna:hush?@{DEAD}", "http://… ("),
        (f"http://{DEAD}/?token=hush", f"http://{DEAD}/ ("),
        (f"http://{DEAD}/?token=a@hush", "http://… ("),
        ("nonsense://anna:hush@there", "nonsense://there ("),
    ],
)
def test_a_tracker_that_cannot_be_reached_is_told_without_credentials(
    client: Any, recipe: Recipe, uri: str, shown: str
) -> None:
    os.environ["MLFLOW_TRACKING_URI"] = uri
    with pytest.raises(UserError) as raised:
        log_to_mlflow(KEY, recipe, history(2), MANIFEST)
    told = str(raised.value)
    assert f"MLflow at {shown}" in told
    assert "MLFLOW_TRACKING_URI" in told
    assert "\n" not in told
    assert not re.search(r"hu/?sh|anna", told)
    assert raised.value.__suppress_context__


def test_what_mlflow_says_of_a_store_it_refuses_is_told(client: Any, recipe: Recipe, tmp_path: Path) -> None:
    os.environ.update(MLFLOW_ALLOW_FILE_STORE="false", MLFLOW_TRACKING_URI=(tmp_path / "refused").as_uri())
    with pytest.raises(UserError, match="MLFLOW_ALLOW_FILE_STORE"):
        log_to_mlflow(KEY, recipe, history(2), MANIFEST)


def test_nothing_happens_unless_asked_for(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    log_to_mlflow(KEY, recipe, history(2), MANIFEST)
    os.environ["MLFLOW_TRACKING_URI"] = f"http://{DEAD}"
    with pytest.raises(UserError, match=re.escape("pip install 'hep2flow[mlflow]'")):
        log_to_mlflow(KEY, recipe, history(2), MANIFEST)
