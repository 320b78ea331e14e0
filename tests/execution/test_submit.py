"""What a submission tells Kubeflow, against an HTTP double of its API: no Kubeflow can run here."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hep2flow.errors import UserError
from hep2flow.execution.kubeflow.compile import compile_for_cluster, load_pipeline
from hep2flow.execution.kubeflow.submission import (
    UNROLLED_MODELS,
    Submission,
    SubmitOptions,
    build_submission,
    parameters_of,
)
from hep2flow.execution.kubernetes.cluster_options import ClusterOptions
from hep2flow.execution.run_request import RunRequest
from hep2flow.pipelines.unrolled import unrolled
from hep2flow.recipe import load_recipe
from hep2flow.search.settings import SweepSettings
from hep2flow.stages.begin import resolve_recipe
from hep2flow.store.address import StoreAddress
from hep2flow.store.publish import find_published
from hep2flow.store.runs import RunView, read_run, show_run
from hep2flow.store.s3 import Store
from tests.execution.kubeflow_double import AWAY, Double, Fault, Tree
from tests.test_cli import Answer, hep2flow

STORE = StoreAddress(endpoint="http://127.0.0.1:9000", bucket="mlpipeline", prefix="hep2flow")
DIGEST = "@sha256:" + 64 * "0"
RUN = "monday"


def asked(options: ClusterOptions | None = None, **choices: Any) -> Submission:
    recipes = [load_recipe("coat-mini", "laptop")]
    request = RunRequest("s3://mlpipeline/cells", recipes, sweep=choices.pop("sweep", None))
    store, run_id = choices.pop("store", STORE), choices.pop("run_id", "monday")
    defaults: dict[str, Any] = {
        "experiment": "hep2flow",
        "service_account": "hep2flow-step",
        "repository": "hep2flow",
        "store_endpoint": None,
        "cron": "",
        "parameters": [],
    }
    return build_submission(
        store, request, options or ClusterOptions(), run_id, SubmitOptions(**{**defaults, **choices})
    )


def submit(kubeflow: Double, store: Store, *arguments: str | Path) -> Answer:
    """A run of one small model, under a name of its own."""
    return told(kubeflow, store, "reproduce", "--recipe", "coat-mini", "--run-id", RUN, *arguments)


def told(kubeflow: Double, store: Store, pipeline: str, *arguments: str | Path) -> Answer:
    """Cells that are in the store, and small recipes."""
    source = store.uri("cells")
    return hep2flow(
        "submit", pipeline, "--host", kubeflow.url, "--source", source, "--profile", "laptop", "--keep-tags", *arguments
    )  # fmt: skip


def specs(tree: Any) -> Iterator[Tree]:
    """Every object in a pipeline's specification."""
    if isinstance(tree, dict):
        yield tree
    for part in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from specs(part)


def tasks(body: Tree) -> set[str]:
    """Tasks of a run's outermost level, as Kubeflow is told them."""
    return set(body["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"])


@pytest.mark.parametrize("sweep", [None, SweepSettings(trials=7, hours=2, finals=3)])
def test_every_argument_is_a_parameter_of_the_pipeline(sweep: SweepSettings | None) -> None:
    sent = asked(sweep=sweep, options=ClusterOptions(queue="gpu"))
    pipeline = unrolled(sent.request.pipeline, sent.request.models)
    assert set(sent.arguments) <= set(pipeline.pipeline_spec.root.input_definitions.parameters)
    assert sent.request.pipeline == ("reproduce" if sweep is None else "sweep")


@pytest.mark.parametrize("sweep", [None, SweepSettings(trials=7, hours=2)])
def test_a_recurring_run_is_told_what_its_first_task_needs_to_know(sweep: SweepSettings | None) -> None:
    sent = asked(sweep=sweep, cron="0 3 * * *").with_recipes(["s3://mlpipeline/hep2flow/recipes/0.yaml"])
    assert sent.looped
    assert set(sent.arguments) <= set(parameters_of(sent.request.pipeline))
    assert sent.arguments["recipes"] == ["s3://mlpipeline/hep2flow/recipes/0.yaml"]
    if sweep is not None:
        assert (sent.arguments["trials"], sent.arguments["hours"], sent.arguments["judge"]) == (7, 2, 5)


@pytest.mark.parametrize("sweep", [SweepSettings(trials=7, finals=2), SweepSettings(trials=7, beside=True)])
def test_a_recurring_sweep_that_trains_more_than_its_winners_is_refused(sweep: SweepSettings) -> None:
    with pytest.raises(UserError, match="leave out --seeds and tune"):
        asked(sweep=sweep, cron="0 3 * * *").with_recipes([])


def test_the_store_is_the_cluster_s_own_where_it_is_reached_through_a_port_of_this_machine() -> None:
    assert "store_endpoint" not in asked().arguments
    assert (
        asked(store_endpoint="http://seaweedfs.elsewhere:9000").arguments["store_endpoint"]
        == "http://seaweedfs.elsewhere:9000"
    )
    outside = StoreAddress(endpoint="https://s3.example", bucket="cells")
    assert asked(store=outside).arguments["store_endpoint"] == "https://s3.example"
    aws = asked(store=StoreAddress(bucket="cells", region="eu-west-1")).arguments
    assert (aws["store_endpoint"], aws["store_region"], aws["store_bucket"]) == ("", "eu-west-1", "cells")
    assert not [
        name for name in asked(store=None).arguments if name in ("store_endpoint", "store_bucket", "store_prefix")
    ]


def test_the_secret_is_named_once_and_never_in_the_cluster() -> None:
    for options, name in ((ClusterOptions(secret="mine"), "mine"), (ClusterOptions(secret=""), "none")):
        sent = asked(options)
        assert sent.arguments["store_secret"] == name
        assert "secret" not in sent.arguments["cluster"]


def test_images_lie_under_one_name_and_a_cluster_s_own_image_wins() -> None:
    assert asked(repository="registry.example:5000/lab:2").images == {
        "step": "registry.example:5000/lab/step:2",
        "ray": "registry.example:5000/lab/ray:2",
    }
    cuda = f"registry.example/ray{DIGEST}"
    sent = asked(ClusterOptions(image=cuda))
    assert (sent.images["ray"], sent.arguments["cluster"]["image"]) == (cuda, cuda)


def test_pinned_images_go_to_the_steps_and_to_ray() -> None:
    tagged = asked(ClusterOptions(image=f"ray{DIGEST}"))
    named = Submission(**{**tagged.__dict__, "images": {"step": f"step{DIGEST}", "ray": f"ray{DIGEST}"}})
    assert named.with_digests().arguments["cluster"]["image"] == f"ray{DIGEST}"


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"parameters": ["hours"]}, "write KEY=VALUE"),
        ({"parameters": ["hurs=1"]}, "no such parameter; it has .*tolerations"),
        ({"parameters": ["run_id=tuesday"]}, "no such parameter"),
        ({"parameters": ["trials=4"]}, "trials: is of a sweep; add --param tune=true"),
        ({"parameters": ["seeds=two"]}, "number integer, not 'two'"),
        ({"parameters": ["seeds=true"]}, "number integer"),
        ({"parameters": ["tolerations={"]}, "no YAML"),
        ({"parameters": ["node_selector=[1]"]}, "struct"),
        ({"cron": "every night"}, "five fields"),
        ({"repository": f"lab{DIGEST}"}, "names where the images"),
    ],
)
def test_what_does_not_fit_is_refused(choice: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        asked(**choice)


def test_parameters_win_and_are_read_as_yaml() -> None:
    sent = asked(parameters=["node_selector={pool: cells}", "store_prefix=0123", "seeds=2"], cron="0 3 * * 1-5")
    assert sent.arguments["node_selector"] == {"pool": "cells"}
    assert sent.arguments["store_prefix"] == "0123"
    assert sent.cron == "0 0 3 * * 1-5", "Kubeflow's form begins with the second"
    assert sent.arguments["run_id"] == "", "each run of a recurring one names itself"


def test_parameters_of_what_a_run_does_become_part_of_its_request() -> None:
    plain = asked(parameters=["seeds=2"])
    assert len(plain.request.models) == 2
    assert "seeds" not in plain.arguments
    tuned = asked(parameters=["tune=true", "trials=4", "seeds=2", "hours=1.5"])
    assert tuned.request.sweep == SweepSettings(trials=4, hours=1.5, finals=2, beside=True)
    assert tuned.request.pipeline == "reproduce"
    assert sorted(filter(None, tuned.request.models.values())) == ["coat-mini"] * 2, "the winner, under two seeds"
    assert len(tuned.request.models) == 4
    sweep = asked(sweep=SweepSettings(trials=7), parameters=["trials=4", "seeds=3", "judge=0"]).request.sweep
    assert sweep == SweepSettings(trials=4, finals=3, judge=0)


@pytest.mark.parametrize(
    "pipeline",
    [
        load_pipeline("reproduce"),
        load_pipeline("sweep"),
        unrolled("reproduce", {"a": "", "b": ""}),
        unrolled("sweep", {"a-tuned": "a"}),
    ],
)
def test_a_package_names_the_images_and_the_keys_that_the_cluster_has(pipeline: Any, tmp_path: Path) -> None:
    file = tmp_path / "fitted.yaml"
    compile_for_cluster(
        pipeline, {"step": "a/step:1", "ray": "a/ray:1"}, {"accesskey": "user", "secretkey": "password"}, file
    )
    text = file.read_text()
    assert set(re.findall(r"image: (\S+)", text)) == {"a/step:1", "a/ray:1"}
    assert set(re.findall(r"secretKey: (\S+)", text)) == {"user", "password"}
    assert text.count("envVar: AWS_ACCESS_KEY_ID") == text.count("secretKey: user")


def test_a_dry_run_prints_all_that_would_be_sent_and_asks_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "HEP2FLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HEP2FLOW_HOME", str(tmp_path / "home"))
    answer = hep2flow(
        "submit", "sweep", "--source", "cells.zip", "--queue", "gpu", "--gpus", "0.5", "--trials", "4", "--dry-run"
    )
    assert (answer.code, answer.err) == (0, "")
    told = answer.json()
    assert told["arguments"]["cluster"]["queue"] == "gpu"
    assert told["request"]["sweep"]["trials"] == 4
    assert {recipe["resources"]["gpus_per_worker"] for recipe in told["request"]["recipes"]} == {0.5}
    assert told["models"] == {"convnext-b-tuned": "convnext-b", "coat-mini-tuned": "coat-mini"}
    assert (told["pipeline"], told["looped"]) == ("sweep", False)
    assert not (tmp_path / "home").exists(), "no store was started"


def test_a_dry_run_tells_no_secret(store: Store) -> None:
    answer = hep2flow("submit", "reproduce", "--source", "cells.zip", "--dry-run")
    assert answer.code == 0
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in answer.out
    assert store.address.bucket in answer.out


def test_a_run_is_sent_with_its_images_arguments_and_account(store: Store, kubeflow: Double) -> None:
    answer = submit(kubeflow, store, "--image", "registry.example/lab:3", "--secret", "mine", "--experiment", "nightly")
    assert (answer.code, answer.err) == (0, "")
    assert f"run monday: {kubeflow.url}/#/runs/details/one" in answer.out
    assert f"hep2flow runs show monday --host {kubeflow.url}" in answer.out
    (_, experiment), (kind, run) = kubeflow.created
    assert (experiment["display_name"], kind, run["display_name"]) == ("nightly", "runs", RUN)
    assert run["service_account"] == "hep2flow-step"
    text = json.dumps(run)
    assert "registry.example/lab/step:3" in text
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in text
    arguments = run["runtime_config"]["parameters"]
    assert (arguments["source"], arguments["run_id"]) == (store.uri("cells"), RUN)
    assert (arguments["store_secret"], arguments["engine"]) == ("mine", "rayjob")
    assert arguments["cluster"] == {"image": "registry.example/lab/ray:3"}


@pytest.mark.parametrize("arguments", [("--run-id", RUN), ("--cron", "0 3 * * *")])
def test_kubeflow_may_never_answer_a_step_from_its_cache(
    store: Store, kubeflow: Double, arguments: tuple[str, ...]
) -> None:
    """What is there already a step knows from the store; a run answered wholly by the cache closes no record."""
    assert told(kubeflow, store, "reproduce", "--recipe", "coat-mini", *arguments).code == 0
    options = [one["cachingOptions"] for one in specs(kubeflow.created[-1][1]) if "cachingOptions" in one]
    assert len(options) >= 6, "of every task"
    assert not any(one.get("enableCache") for one in options)


def test_each_model_has_tasks_of_its_own_name(store: Store, kubeflow: Double) -> None:
    both = ("--recipe", "coat-mini", "--recipe", "convnext-b", "--run-id", RUN)
    assert told(kubeflow, store, "reproduce", *both, "--seeds", "2").code == 0
    models = read_run(store, RUN).models
    assert len(models) == 4
    (_, body) = kubeflow.created[-1]
    steps = {f"{stage}-{model}" for stage in ("train", "evaluate") for model in models}
    assert tasks(body) == {"ingest", "mask", "split", "report"} | steps


def test_with_too_many_models_for_tasks_of_their_own_one_task_in_a_loop_trains_them(
    store: Store, kubeflow: Double
) -> None:
    few, many = (("--recipe", "coat-mini", "--seeds", str(UNROLLED_MODELS + more)) for more in (0, 1))
    assert told(kubeflow, store, "reproduce", *few, "--run-id", "few").code == 0
    assert len([task for task in tasks(kubeflow.created[-1][1]) if task.startswith("train-")]) == UNROLLED_MODELS
    assert told(kubeflow, store, "reproduce", *many, "--run-id", "many").code == 0
    (_, body) = kubeflow.created[-1]
    assert {"begin", "ingest", "mask", "split", "report"} < tasks(body)
    assert not [task for task in tasks(body) if task.startswith("train-")]
    (recipe,) = body["runtime_config"]["parameters"]["recipes"]
    assert resolve_recipe(store, recipe, "laptop") == load_recipe("coat-mini", "laptop")
    assert body["runtime_config"]["parameters"]["seeds"] == UNROLLED_MODELS + 1


def test_a_run_is_known_from_before_kubeflow_is_told_and_its_page_after(store: Store, kubeflow: Double) -> None:
    before: list[RunView] = []
    kubeflow.before = lambda: before.append(show_run(store, RUN))
    assert submit(kubeflow, store).code == 0
    (first,) = before
    assert (first.status, first.run.attempt, first.run.kubeflow_run) == ("submitted", "", "")
    after = show_run(store, RUN)
    assert (after.status, after.run.attempt, after.run.kubeflow_run) == ("submitted", "one", "one")
    assert after.run.kubeflow_url == f"{kubeflow.url}/#/runs/details/one"
    assert after.run.ended is None
    shown = hep2flow("runs", "show", RUN).out
    assert "monday: submitted" in shown
    assert after.run.kubeflow_url in shown


@pytest.mark.parametrize("fault", [Fault(500, "Failed to compile the pipeline"), Fault(400, "unknown field"), AWAY])
def test_a_run_that_kubeflow_refuses_is_closed_and_its_words_are_told(
    store: Store, kubeflow: Double, fault: Fault
) -> None:
    kubeflow.refuses = fault
    answer = submit(kubeflow, store)
    assert answer.code == 2
    (line,) = answer.err.splitlines()
    assert (fault.message or "has become unreachable") in line
    view = show_run(store, RUN)
    assert (view.status, view.run.status) == ("failed", "failed")
    assert view.run.ended is not None


def test_a_run_that_is_submitted_again_is_another_attempt_and_one_with_other_parameters_is_not_sent(
    store: Store, kubeflow: Double
) -> None:
    assert submit(kubeflow, store).code == 0
    assert submit(kubeflow, store).code == 0
    record = read_run(store, RUN)
    assert (record.attempts, record.attempt, record.status) == (2, "two", "submitted")
    refused = submit(kubeflow, store, "--seeds", "2")
    assert refused.code == 2
    assert "belongs to a run with other parameters; choose another run id" in refused.err
    assert len(kubeflow.runs) == 2
    assert read_run(store, RUN) == record


def test_cells_of_this_machine_are_in_the_store_before_kubeflow_is_told(
    store: Store, kubeflow: Double, tmp_path: Path
) -> None:
    assert hep2flow("data", "synth", tmp_path / "cells", "--specimens", "12").code == 0
    answer = told(kubeflow, store, "reproduce", "--source", tmp_path / "cells")
    assert answer.code == 0, answer.err
    source = kubeflow.created[-1][1]["runtime_config"]["parameters"]["source"]
    assert find_published(store, store.key(source)) is not None
    assert hep2flow("ingest", "--source", source).code == 0, "the cluster's ingest takes it as it is"


def test_a_recurring_run_names_its_runs_itself_and_finds_its_recipes_in_the_store(
    store: Store, kubeflow: Double
) -> None:
    changed = ("--recipe", "coat-mini", "--set", "optim.lr=0.5")
    answer = told(kubeflow, store, "reproduce", *changed, "--cron", "0 3 * * *", "--param", "seeds=3")
    assert (answer.code, answer.err) == (0, "")
    kind, job = kubeflow.created[-1]
    assert kind == "recurringruns"
    assert job["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    arguments = job["runtime_config"]["parameters"]
    assert (arguments["run_id"], arguments["seeds"], arguments["profile"]) == ("", 3, "laptop")
    (recipe,) = arguments["recipes"]
    assert re.fullmatch(re.escape(store.uri("recipes/")) + r"[0-9a-f]{32}\.yaml", recipe)
    assert resolve_recipe(store, recipe, "laptop") == load_recipe("coat-mini", "laptop", ["optim.lr=0.5"])
    assert list(store.folders("runs")) == [], "none has begun"


def test_a_token_is_read_from_its_file_and_a_missing_one_is_named(
    store: Store, kubeflow: Double, tmp_path: Path
) -> None:
    kubeflow.token = "let-me-in"
    refused = submit(kubeflow, store)
    assert refused.code == 2
    assert "refuses access (401); give --token-file" in refused.err
    (tmp_path / "token").write_text("let-me-in\n")
    assert submit(kubeflow, store, "--token-file", tmp_path / "token").code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--host", "http://127.0.0.1:1"), "http://127.0.0.1:1 cannot be reached"),
        (("--host", "kubeflow.example"), "write it as a URL"),
        (("--cron", "0 3 * * *", "--run-id", "monday"), "leave out --run-id"),
        ((), "--host missing"),
        (("--host", "http://127.0.0.1:1", "--options", "no-such.json"), "no-such.json: cannot be read"),
        (("--host", "http://127.0.0.1:1", "--token-file", "no-such"), "no-such: cannot be read"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(store: Store, arguments: tuple[str, ...], told: str) -> None:
    answer = hep2flow("submit", "reproduce", "--source", store.uri("cells"), *arguments)
    assert answer.code == 2
    assert told in answer.err
    assert len(answer.err.splitlines()) == 1


def test_a_store_of_this_machine_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    answer = hep2flow("submit", "reproduce", "--source", "s3://cells/x", "--host", "http://127.0.0.1:1")
    assert answer.code == 2
    assert "set AWS_ENDPOINT_URL" in answer.err
