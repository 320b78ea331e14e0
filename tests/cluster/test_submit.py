"""What a submission tells Kubeflow and how it ends, against an HTTP double of its API: no Kubeflow can run here."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from hep2flow.components.images import RAY, STEP

from hep2flow.cluster import kubeflow
from hep2flow.cluster.options import ClusterOptions
from hep2flow.cluster.package import package
from hep2flow.cluster.request import Request, Sweep
from hep2flow.cluster.submission import Submission, parameters_of, submission
from hep2flow.errors import UserError
from hep2flow.recipe import load_recipe
from hep2flow.store import layout
from hep2flow.store.runs import RunRecord, StageRecord
from hep2flow.store.s3 import Store, StoreAddress
from tests.test_cli import Answer, hep2flow

STORE = StoreAddress(endpoint="http://127.0.0.1:9000", bucket="mlpipeline", prefix="hep2flow")
DIGEST = "@sha256:" + 64 * "0"


class Double(ThreadingHTTPServer):
    """Kubeflow Pipelines: what it was told, and how its one run goes.

    states: of the run, at each look the next; at_end: called before the last of them is told
    token:  without which nobody is let in; empty for everybody
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.states = ["RUNNING", "SUCCEEDED"]
        self.error = ""
        self.token = ""
        self.created: list[tuple[str, dict[str, Any]]] = []
        self.at_end = lambda: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Double

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self._answer(401, {})
        elif self.path.endswith("/healthz"):
            self._answer(200, {"multi_user": False})
        elif "/experiments" in self.path:
            self._answer(200, {"experiments": []})
        else:
            state = self.server.states.pop(0)
            if not self.server.states:
                self.server.at_end()
            error = {"error": {"code": 1, "message": self.server.error}} if self.server.error else {}
            self._answer(200, {"run_id": "one", "state": state, **error})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kind = self.path.rpartition("/")[2]
        self.server.created.append((kind, body))
        self._answer(
            200,
            {"experiments": {"experiment_id": "e"}, "runs": {"run_id": "one"}}.get(kind, {"recurring_run_id": "again"}),
        )

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    monkeypatch.setattr(kubeflow, "PAUSE_SECONDS", 0.05)
    server = Double()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def asked(options: ClusterOptions | None = None, **choices: Any) -> Submission:
    recipes = [load_recipe("coat-mini", "laptop")]
    request = Request("s3://mlpipeline/cells", recipes, sweep=choices.pop("sweep", None))
    return submission(
        choices.pop("store", STORE),
        request=request,
        options=options or ClusterOptions(),
        **{
            "run_id": "monday",
            "experiment": "hep2flow",
            "service_account": "hep2flow-step",
            "repository": "hep2flow",
            "store_endpoint": None,
            "cron": "",
            "parameters": [],
            **choices,
        },
    )


def submit(double: Double, store: Store, *arguments: str | Path) -> Answer:
    source = store.uri("cells")
    return hep2flow(
        "submit", "reproduce", "--host", double.url, "--source", source, "--recipe", "coat-mini", "--profile", "laptop",
        "--keep-tags", "--run-id", "monday", *arguments,
    )  # fmt: skip


def end_of_run(store: Store, status: str, error: str = "") -> None:
    """What the exit task, and a stage that failed, leave in the store."""
    record = RunRecord(run_id="monday", status=status)  # type: ignore[arg-type]
    store.put_json(layout.run_record("monday"), record.model_dump(mode="json"))
    if error:
        stage = StageRecord(run_id="monday", stage="ingest", status="failed", error=error, mendable=True, seconds=1.0)
        store.put_json(layout.stage_record("monday", "ingest", None), stage.model_dump(mode="json"))


@pytest.mark.parametrize("sweep", [None, Sweep(trials=7, hours=2, finals=3)])
def test_every_argument_is_a_parameter_of_the_pipeline_and_of_its_kind(sweep: Sweep | None) -> None:
    sent = asked(sweep=sweep, options=ClusterOptions(queue="gpu"))
    kinds = parameters_of(sent.pipeline)
    assert set(sent.arguments) <= set(kinds)
    assert sent.pipeline == ("reproduce" if sweep is None else "sweep")
    if sweep is not None:
        assert (sent.arguments["trials"], sent.arguments["hours"], sent.arguments["seeds"]) == (7, 2, 3)


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


def test_pinned_images_go_to_the_steps_and_to_ray_and_only_they_may_be_cached() -> None:
    tagged = asked(ClusterOptions(image=f"ray{DIGEST}"))
    named = Submission(**{**tagged.__dict__, "images": {"step": f"step{DIGEST}", "ray": f"ray{DIGEST}"}})
    assert not tagged.caching
    assert named.pinned().caching
    assert named.pinned().arguments["cluster"]["image"] == f"ray{DIGEST}"


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"parameters": ["hours"]}, "write KEY=VALUE"),
        ({"parameters": ["hurs=1"]}, "no such parameter; it has .*source"),
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
    assert sent.arguments["seeds"] == 2
    assert sent.cron == "0 0 3 * * 1-5", "Kubeflow's form begins with the second"
    assert sent.arguments["run_id"] == "", "each run of a recurring one names itself"


@pytest.mark.parametrize("name", ["reproduce", "sweep"])
def test_a_package_names_the_images_and_the_keys_that_the_cluster_has(name: str, tmp_path: Path) -> None:
    file = tmp_path / "fitted.yaml"
    package(name, {STEP: "a/step:1", RAY: "a/ray:1"}, {"accesskey": "user", "secretkey": "password"}, file)
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
    told = json.loads(answer.out)
    assert told["arguments"]["cluster"]["queue"] == "gpu"
    assert told["arguments"]["trials"] == 4
    assert {yaml.safe_load(text)["resources"]["gpus_per_worker"] for text in told["arguments"]["recipes"]} == {0.5}
    assert not (tmp_path / "home").exists(), "no store was started"


def test_a_dry_run_tells_no_secret(store: Store) -> None:
    answer = hep2flow("submit", "reproduce", "--source", "cells.zip", "--dry-run")
    assert answer.code == 0
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in answer.out
    assert store.address.bucket in answer.out


def test_a_run_is_sent_with_its_images_arguments_and_account(store: Store, double: Double) -> None:
    answer = submit(double, store, "--image", "registry.example/lab:3", "--secret", "mine", "--experiment", "nightly")
    assert (answer.code, answer.err) == (0, "")
    assert f"run monday: {double.url}/#/runs/details/one" in answer.out
    (_, experiment), (kind, run) = double.created
    assert (experiment["display_name"], kind, run["display_name"]) == ("nightly", "runs", "monday")
    assert run["service_account"] == "hep2flow-step"
    text = json.dumps(run)
    assert "registry.example/lab/step:3" in text
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in text
    arguments = run["runtime_config"]["parameters"]
    assert arguments["source"] == store.uri("cells")
    assert (arguments["store_secret"], arguments["engine"]) == ("mine", "rayjob")
    assert arguments["cluster"] == {"image": "registry.example/lab/ray:3"}


def test_cells_of_this_machine_are_in_the_store_before_kubeflow_is_told(
    store: Store, double: Double, tmp_path: Path
) -> None:
    assert hep2flow("data", "synth", tmp_path / "cells", "--specimens", "12").code == 0
    answer = hep2flow(
        "submit",
        "reproduce",
        "--host",
        double.url,
        "--source",
        tmp_path / "cells",
        "--profile",
        "laptop",
        "--keep-tags",
    )
    assert answer.code == 0, answer.err
    source = double.created[-1][1]["runtime_config"]["parameters"]["source"]
    assert store.published(store.key(source)) is not None
    assert hep2flow("ingest", "--source", source).code == 0, "the cluster's ingest takes it as it is"


def test_a_recurring_run_names_its_runs_itself(store: Store, double: Double) -> None:
    answer = hep2flow(
        "submit",
        "reproduce",
        "--host",
        double.url,
        "--source",
        store.uri("cells"),
        "--keep-tags",
        "--cron",
        "0 3 * * *",
    )
    assert (answer.code, answer.err) == (0, "")
    kind, job = double.created[-1]
    assert kind == "recurringruns"
    assert job["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    assert job["runtime_config"]["parameters"]["run_id"] == ""


def test_waiting_ends_well_where_the_run_itself_succeeded(store: Store, double: Double) -> None:
    double.at_end = lambda: end_of_run(store, "succeeded")  # type: ignore[assignment]
    answer = submit(double, store, "--wait")
    assert answer.code == 0, answer.err
    assert "hep2flow pull monday" in answer.out


def test_waiting_ends_as_the_run_itself_though_kubeflow_calls_it_succeeded(store: Store, double: Double) -> None:
    double.at_end = lambda: end_of_run(store, "failed", "cells.csv:3: no such pattern")  # type: ignore[assignment]
    answer = submit(double, store, "--wait")
    assert answer.code == 2
    assert answer.err.splitlines()[-1] == "hep2flow: cells.csv:3: no such pattern"


def test_waiting_tells_a_run_that_never_began_in_kubeflow_s_words(store: Store, double: Double) -> None:
    double.states, double.error = ["PENDING", "FAILED"], "no such service account"
    answer = submit(double, store, "--wait")
    assert answer.code == 2
    assert f"never began (no such service account); look at {double.url}/#/runs/details/one" in answer.err


def test_waiting_tells_a_run_that_was_cancelled(store: Store, double: Double) -> None:
    double.states = ["CANCELED"]
    double.at_end = lambda: end_of_run(store, "failed")  # type: ignore[assignment]
    answer = submit(double, store, "--wait")
    assert answer.code == 2
    assert "ended by somebody; submit it again with --run-id monday" in answer.err


def test_a_token_is_read_from_its_file_and_a_missing_one_is_named(store: Store, double: Double, tmp_path: Path) -> None:
    double.token = "let-me-in"
    refused = submit(double, store)
    assert refused.code == 2
    assert "does not let us in (401); give --token-file" in refused.err
    (tmp_path / "token").write_text("let-me-in\n")
    assert submit(double, store, "--token-file", tmp_path / "token").code == 0


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
