"""Pulling a run: what is fetched, what is not fetched again, and what is refused."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from hep2flow.errors import UserError
from hep2flow.store.publish import publish
from hep2flow.store.pull import pull
from hep2flow.store.runs import RunRecord, finish_run, start_run
from hep2flow.store.s3 import Store
from hep2flow.store.stage_recorder import running_stage
from tests.test_cli import hep2flow

TRAINING, EVALUATION = "1" * 32, "2" * 32
LARGE = random.Random(0).randbytes(5 * 2**20 + 17)
FILES = {
    f"trainings/{TRAINING}": {"best.safetensors": LARGE, "tensorboard/events": b"e", "empty": b""},
    f"evaluations/{EVALUATION}": {"metrics.json": b"{}", "figure.svg": b"<svg/>"},
    "runs/first/report": {"index.html": b"<p>"},
}
NAMES = {
    f"trainings/{TRAINING}": "trainings/atto",
    f"evaluations/{EVALUATION}": "evaluations/atto",
    "runs/first/report": "report",
}


@pytest.fixture
def published(store: Store, tmp_path: Path) -> Store:
    """A store with the run ``first``: a training of one large file, an evaluation and a report."""
    for prefix, files in FILES.items():
        folder = tmp_path / "made" / prefix
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        publish(store, folder, prefix, {"kind": "made"})
    start_run(store, RunRecord(run_id="first"))
    for stage, key in (("train", TRAINING), ("evaluate", EVALUATION)):
        with running_stage(store, "first", stage, "atto") as record:
            record.key = key
    finish_run(store, "first", "succeeded")
    return store


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


EXPECTED = {f"{NAMES[prefix]}/{name}": data for prefix, files in FILES.items() for name, data in files.items()}


def test_everything_comes_and_is_named_by_its_model(published: Store, tmp_path: Path) -> None:
    messages: list[tuple[str, int, int]] = []
    pulled = pull(published, "first", tmp_path / "out", progress=lambda *seen: messages.append(seen))
    found = contents(tmp_path / "out")
    assert {name: found[name] for name in EXPECTED} == EXPECTED
    assert found.keys() - EXPECTED.keys() == {"run.json", *(f"{name}/manifest.json" for name in NAMES.values())}
    assert (len(pulled.files), pulled.fetched) == (len(found), len(EXPECTED))
    total = sum(map(len, EXPECTED.values()))
    assert messages[-1][1:] == (total, total)
    assert [done for _, done, _ in messages] == sorted(done for _, done, _ in messages)


def test_existing_files_are_not_fetched_again(published: Store, tmp_path: Path) -> None:
    pull(published, "first", tmp_path)
    kept = tmp_path / "trainings" / "atto" / "best.safetensors"
    before = kept.stat()
    (tmp_path / "evaluations" / "atto" / "metrics.json").write_bytes(b"[]")  # of the right size, but other bytes
    assert pull(published, "first", tmp_path).fetched == 1
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert (tmp_path / "evaluations" / "atto" / "metrics.json").read_bytes() == b"{}"


def test_an_interrupted_file_is_resumed_and_has_no_name_before_it_is_complete(published: Store, tmp_path: Path) -> None:
    class InterruptError(Exception):
        pass

    def interrupt(name: str, done: int, total: int) -> None:
        if name.endswith("best.safetensors") and done > 3 * 2**20:
            raise InterruptError

    folder = tmp_path / "trainings" / "atto"
    with pytest.raises(InterruptError):
        pull(published, "first", tmp_path, "checkpoints", interrupt)
    (partial,) = folder.iterdir()
    assert partial.name.startswith(".")
    there = partial.stat().st_size
    assert LARGE.startswith(partial.read_bytes())

    seen: list[int] = []
    pull(published, "first", tmp_path, "checkpoints", lambda _name, done, _total: seen.append(done))
    assert min(seen) > there > 3 * 2**20
    assert (folder / "best.safetensors").read_bytes() == LARGE
    assert not partial.exists()


@pytest.mark.parametrize("bytes_instead", [b"[]", b"{", b"{ }"])
def test_a_damaged_object_is_reported_and_leaves_no_file(
    published: Store, tmp_path: Path, bytes_instead: bytes
) -> None:
    key = f"evaluations/{EVALUATION}/metrics.json"
    published.put_bytes(key, bytes_instead)
    with pytest.raises(UserError) as messages:
        pull(published, "first", tmp_path / "out", "metrics")
    assert published.uri(key) in str(messages.value)
    assert "not those that its manifest names" in str(messages.value)
    assert "give the command of run first again" in str(messages.value)
    assert "evaluations/atto/metrics.json" not in contents(tmp_path / "out")
    assert not list((tmp_path / "out").rglob(".*"))


def test_a_missing_object_is_reported(published: Store, tmp_path: Path) -> None:
    published.delete([f"trainings/{TRAINING}/best.safetensors"])
    with pytest.raises(UserError, match=r"best\.safetensors: not there; delete that object in the store"):
        pull(published, "first", tmp_path)


@pytest.mark.parametrize(
    ("only", "part"),
    [("report", "report/"), ("metrics", "evaluations/atto/"), ("checkpoints", "trainings/atto/")],
)
def test_the_command_pulls_a_part_and_says_how_far_it_is(
    published: Store, tmp_path: Path, only: str, part: str
) -> None:
    answer = hep2flow("pull", "first", "--to", tmp_path / "out", "--only", only)
    assert answer.code == 0, answer.err
    assert {name for name in contents(tmp_path / "out") if not name.startswith(part)} == set()
    assert answer.err.splitlines()[-1].startswith("pull: 100 % of ")
    wanted = [name for name in EXPECTED if name.startswith(part)]
    assert f"{len(wanted) + 1} files in {tmp_path / 'out'}, {len(wanted)} fetched" in answer.out
    assert ", 0 fetched" in hep2flow("pull", "first", "--to", tmp_path / "out", "--only", only).out


def test_progress_is_json_for_programs(published: Store, tmp_path: Path) -> None:
    os.environ["HEP2FLOW_LOG"] = "json"
    answer = hep2flow("pull", "first", "--to", tmp_path / "out")
    last = json.loads(answer.err.splitlines()[-1])
    assert last["bytes"] == last["total"] == sum(map(len, EXPECTED.values()))


def test_a_folder_that_cannot_be_written_is_reported_in_one_line(published: Store, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    answer = hep2flow("pull", "first", "--to", tmp_path / "out")
    assert (answer.code, answer.out) == (2, "")
    (line,) = [line for line in answer.err.splitlines() if line.startswith("hep2flow: ")]
    assert str(tmp_path / "out") in line
