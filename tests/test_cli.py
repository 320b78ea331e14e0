"""The command line: what it prints, what it exits with, and what it loads for that."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from hep2flow import __version__
from hep2flow.cli import main
from hep2flow.sources.synthetic import choose_specimens
from hep2flow.store import embedded_server
from hep2flow.store.runs import RunRecord, finish_run, start_run
from hep2flow.store.s3 import Store
from hep2flow.store.splits import read_split
from hep2flow.store.stage_recorder import running_stage
from tests.sources import builders

HEAVY = {"torch", "ray", "kfp", "boto3", "matplotlib", "pandas", "sklearn", "pyarrow"}


@dataclass(frozen=True)
class Answer:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Standard output, which is one JSON object and nothing else."""
        assert self.code == 0, self.err
        return json.loads(self.out)


def hep2flow(*arguments: str | Path) -> Answer:
    """The command in this process, through its entry point; a process of its own takes 2 s to import."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", ["hep2flow", *map(str, arguments)]),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return Answer(int(ended.value.code or 0), out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic twin of 12 specimens, made by the command."""
    folder = tmp_path_factory.mktemp("twin") / "cells"
    answer = hep2flow("data", "synth", folder, "--specimens", "12")
    assert answer.code == 0, answer.err
    assert "say nothing about real ones" in answer.out
    return folder


LOADED = f"""
import sys
from hep2flow.cli import main
try:
    main()
finally:
    print("LOADED", sorted({HEAVY} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--help"], "HEp-2 cell classification as a workflow"),
        (["--version"], f"hep2flow {__version__}"),
        (["run", "--help"], "ingest, mask, split, train and evaluate each recipe"),
    ],
)
def test_help_loads_nothing_heavy(arguments: list[str], answer: str) -> None:
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, env=environment, check=True
    )
    assert answer in done.stdout
    assert done.stdout.splitlines()[-1] == "LOADED []"


@pytest.mark.parametrize(("group", "commands"), [([], "run data storage pull"), (["storage"], "up down status path")])
def test_without_a_command_help_is_shown(group: list[str], commands: str) -> None:
    answer = hep2flow(*group)
    assert answer.code == 2
    assert all(f" {command} " in answer.out for command in commands.split())
    assert answer.err == ""


def test_check_counts_the_twin(twin: Path) -> None:
    answer = hep2flow("data", "check", twin)
    specimens = choose_specimens(12)
    assert answer.code == 0
    assert "synthetic, not real cells" in answer.out
    assert "different from the published counts" in answer.out
    report = hep2flow("data", "check", twin, "--json").json()
    assert report["cells"] == report["masks"] == sum(specimen.cells for specimen in specimens)
    assert {(one["specimen_id"], one["cells"]) for one in report["specimens"]} == {
        (specimen.specimen_id, specimen.cells) for specimen in specimens
    }
    assert {split: len(patterns) for split, patterns in report["counts"].items()} == {"train": 6, "test": 6}
    assert report["faults"] == []


def test_the_complete_twin_has_the_published_counts(tmp_path: Path) -> None:
    assert hep2flow("data", "synth", tmp_path / "cells", "--seed", "7").code == 0
    answer = hep2flow("data", "check", tmp_path / "cells")
    assert answer.code == 0
    assert "1455 cells, 1455 with a mask" in answer.out
    assert "counts are equal to the published ones" in answer.out


def test_check_exits_with_2_where_it_finds_faults(tmp_path: Path) -> None:
    answer = hep2flow("data", "check", builders.write(tmp_path, builders.i3a() | {"00002.png": b"no picture"}))
    assert answer.code == 2
    assert "1 fault:\n  00002.png: is not a PNG, BMP or TIFF image" in answer.out


def test_the_twin_never_overwrites(twin: Path) -> None:
    before = sorted(twin.rglob("*"))
    answer = hep2flow("data", "synth", twin)
    assert (answer.code, answer.err) == (2, f"hep2flow: {twin}: is not empty; give a new folder\n")
    assert sorted(twin.rglob("*")) == before


def test_an_interrupt_ends_with_130_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hep2flow.cli", "data", "synth", str(tmp_path / "cells")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(tmp_path.glob(".cells-*/training")):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "hep2flow: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_stages_one_by_one_answer_in_json(store: Store, twin: Path) -> None:
    ingested = hep2flow("ingest", "--source", twin, "--json").json()
    assert ingested["uri"].startswith(store.uri("datasets/icpr2012-synthetic/"))
    masked = hep2flow("mask", "--dataset", ingested["uri"], "--json").json()
    assert masked["uri"] != ingested["uri"]
    assert (masked["summary"]["cells"], masked["summary"]["derived"]) == (ingested["summary"]["cells"], 0)
    divided = hep2flow(
        "split", "--dataset", masked["uri"], "--protocol", "stratified", "--train-fraction", "0.25", "--json"
    ).json()
    counts = divided["summary"]["counts"]
    assert sum(counts.values()) == ingested["summary"]["cells"]
    assert counts["train"] == -(-(counts["train"] + counts["val"]) // 4)
    assert read_split(store, divided["uri"]).ratio == 0.25
    assert [result["stage"] for result in (ingested, masked, divided)] == ["ingest", "mask", "split"]

    again = hep2flow("ingest", "--source", twin)
    assert again.out.splitlines()[0] == f"ingest: cached  {ingested['uri']}"


def test_the_store_comes_up_and_goes_down(tmp_path: Path) -> None:
    os.environ["HEP2FLOW_HOME"] = str(tmp_path)
    assert hep2flow("storage", "path").out == f"{tmp_path / 'storage' / 'data'}\n"
    assert hep2flow("storage", "status", "--json").json()["running"] is False
    try:
        up = hep2flow("storage", "up")
        status = hep2flow("storage", "status", "--json").json()
        assert (up.code, status["running"]) == (0, True)
        assert status["endpoint"] in up.out
        assert json.loads((tmp_path / "storage" / "credentials.json").read_text())["secret_key"] not in up.out
    finally:
        down = hep2flow("storage", "down")
    assert (down.code, down.out) == (0, "stopped\n")
    assert embedded_server.status()["running"] is False
    assert hep2flow("storage", "down").out == "was not running\n"


def test_recipes_are_listed_and_shown_completely(tmp_path: Path) -> None:
    everything = [line.split()[:3] for line in hep2flow("recipe", "list").out.splitlines()]
    assert ["paper", "convnext-b", "convnext_base.fb_in22k"] in everything
    laptop = [line.split()[:3] for line in hep2flow("recipe", "list", "--profile", "laptop").out.splitlines()]
    assert laptop == [row for row in everything if row[0] == "laptop"]
    for profile, name, _ in everything:
        assert hep2flow("recipe", "show", name, "--profile", profile).code == 0

    file = tmp_path / "mine.yaml"
    file.write_text(hep2flow("recipe", "show", "coat-mini", "--set", "optim.lr=2e-5").out)
    assert yaml.safe_load(file.read_text())["optim"]["lr"] == 2e-5
    assert hep2flow("recipe", "show", file).out == file.read_text()


def test_a_store_without_mirrored_weights_lists_none(store: Store) -> None:
    answer = hep2flow("weights", "list")
    assert (answer.code, answer.out) == (0, "")
    assert hep2flow("weights", "list", "--json").json() == []


def test_a_pipeline_is_compiled(tmp_path: Path) -> None:
    answer = hep2flow("compile", "reproduce", "-o", tmp_path / "reproduce.yaml")
    assert (answer.code, answer.out) == (0, f"{tmp_path / 'reproduce.yaml'}\n")
    specification = next(yaml.safe_load_all((tmp_path / "reproduce.yaml").read_text()))
    assert specification["pipelineInfo"]["name"] == "hep2flow-reproduce"
    assert {"source", "recipes", "run_id"} <= specification["root"]["inputDefinitions"]["parameters"].keys()


def test_runs_are_listed_and_shown(store: Store) -> None:
    assert hep2flow("runs", "list", "--json").json() == []
    start_run(store, RunRecord(run_id="first", recipes={"convnext-b": {}}))
    with running_stage(store, "first", "ingest") as record:
        record.key = "0" * 32
    with pytest.raises(RuntimeError), running_stage(store, "first", "train", "convnext-b"):
        raise RuntimeError("out of memory")
    finish_run(store, "first", "failed")

    listed = hep2flow("runs", "list")
    assert listed.code == 0
    (line,) = listed.out.splitlines()
    assert line.split()[:2] == ["first", "failed"]
    assert line.endswith("convnext-b")
    assert [view["run"]["run_id"] for view in hep2flow("runs", "list", "--json").json()] == ["first"]

    shown = hep2flow("runs", "show", "first").out
    assert shown.startswith("first: failed, started ")
    assert "0" * 32 in shown
    assert "    RuntimeError: out of memory\n" in shown
    view = hep2flow("runs", "show", "first", "--json").json()
    assert view["stage_status"] == {"ingest": "succeeded", "train-convnext-b": "failed"}


@pytest.mark.parametrize(
    "arguments",
    [["pull", "nobody"], ["runs", "show", "nobody"], ["report", "--run", "nobody"], ["runs", "show", "No Body"]],
)
def test_an_unknown_run_is_reported_in_one_line(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = hep2flow(*arguments)
    assert (answer.code, answer.out) == (2, "")
    (line,) = answer.err.splitlines()
    assert arguments[-1] in line
    assert "`hep2flow runs list` names them" in line or "use at most 40 characters" in line
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_results_is_reported(store: Store, tmp_path: Path) -> None:
    start_run(store, RunRecord(run_id="first"))
    answer = hep2flow("pull", "first", "--to", tmp_path / "first")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == "hep2flow: run first (running): has no results yet; `hep2flow runs show first`\n"
    assert not (tmp_path / "first").exists()


def test_debug_shows_where_it_went_wrong(store: Store) -> None:
    answer = hep2flow("--debug", "runs", "show", "nobody")
    assert answer.code == 2
    assert answer.err.startswith("Traceback")
    assert "no such run" in answer.err.splitlines()[-1]
