"""Work on all cores: the same results in the same order, little in memory, and no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hep2flow import parallel
from hep2flow.errors import UserError
from hep2flow.parallel import CHUNK_BYTES, CHUNK_ITEMS, FEW, parallel_map

SECONDS = 60
# Works for ever on both cores, after telling the processes of both.
PROGRAM = """
from hep2flow import parallel
from tests.test_parallel import busy
if __name__ == "__main__":
    parallel.cpu_count = lambda: 2
    seen = set()
    for pid in parallel.parallel_map(busy, range(10**9), 10**9, lambda item: 2**20):
        seen.add(pid)
        if len(seen) == 2:
            print(*seen, flush=True)
            seen.add(None)
"""


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "cpu_count", lambda: 2)


def with_process(item: int) -> tuple[int, int]:
    return item, os.getpid()


def busy(item: int) -> int:
    time.sleep(0.01)
    return os.getpid()


def refuses(item: int) -> int:
    if item == 3000:
        raise UserError("item 3000 is bad")
    return item


def is_killed(item: int) -> int:
    if item == 3000:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize("size", [0, CHUNK_BYTES], ids=["small items", "large items"])
def test_many_items_come_in_order_and_few_are_under_way(size: int) -> None:
    count, taken = FEW if size == 0 else 40, 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(count):
            taken += 1
            yield item

    results = parallel_map(with_process, items(), FEW, lambda item: size)
    first = next(results)
    assert taken <= 5 * (CHUNK_ITEMS if size == 0 else 1)
    found = [first, *results]
    assert [item for item, _ in found] == list(range(count))
    assert os.getpid() not in {process for _, process in found}
    assert multiprocessing.active_children() == []


@pytest.mark.usefixtures("two_cores")
def test_few_items_start_no_process() -> None:
    found = list(parallel_map(with_process, range(FEW - 1), FEW - 1, lambda item: 1))
    assert found == [(item, os.getpid()) for item in range(FEW - 1)]


@pytest.mark.usefixtures("two_cores")
def test_an_error_and_a_killed_process_are_reported_and_leave_nothing() -> None:
    with pytest.raises(UserError, match="item 3000 is bad"):
        list(parallel_map(refuses, range(FEW), FEW, lambda item: 1))
    with pytest.raises(UserError, match=r"was killed.*more memory"):
        list(parallel_map(is_killed, range(FEW), FEW, lambda item: 1))
    assert multiprocessing.active_children() == []


def test_an_abandoned_generator_leaves_no_process(two_cores: None) -> None:
    results = parallel_map(with_process, range(10**9), 10**9, lambda item: 1)
    assert next(results)[0] == 0
    results.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_processes_end_with_their_parent(tmp_path: Path, number: signal.Signals) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, str(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert process.stdout is not None
    workers = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
    assert len(workers) == 2
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does: all of them get it
    else:
        process.kill()
    _, errors = process.communicate(timeout=SECONDS)
    assert psutil.wait_procs(workers, SECONDS)[1] == []
    assert errors.count("Traceback") == (number == signal.SIGINT), errors


@pytest.mark.parametrize(
    ("limit", "bound", "expected"),
    [("max 100000\n", 4, 4), ("200000 100000\n", 4, 2), ("150000 100000\n", 4, 2), ("900000 100000\n", 4, 4)],
)
def test_a_container_s_limit_counts(
    limit: str, bound: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "CPU_LIMIT", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(bound)))
    assert parallel.cpu_count() == bound
    (tmp_path / "cpu.max").write_text(limit)
    assert parallel.cpu_count() == expected
