"""What the benchmarks share: a store of their own, the measurement of one command, one JSON object as the result."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil

MEBIBYTE = 2**20
POLL_SECONDS = 1.0  # between two readings of the memory of all processes, each of which stops them for a moment
RUNS = 5  # of which the median counts


@dataclass(frozen=True)
class Command:
    """One finished command of hep2flow.

    Attributes:
        seconds: Wall time from start to exit.
        cpu_seconds: User and system, of the process and of the children it waited for.
        peak_mib: Peak memory of all those processes together, without the store's.
        stdout: Its standard output.
    """

    seconds: float
    cpu_seconds: float
    peak_mib: float
    stdout: str

    def json(self) -> Any:
        """Parse the output of a command with ``--json``."""
        return json.loads(self.stdout)

    def figures(self) -> dict[str, float]:
        """The measured values, rounded."""
        return {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds, "peak_mib": self.peak_mib}


@contextmanager
def own_store() -> Iterator[Path]:
    """Let commands use a fresh embedded store in a temporary folder, which is yielded, and remove both at the end."""
    from hep2flow.store import embedded_server  # here: a machine with a GPU may have no client of S3

    with tempfile.TemporaryDirectory(prefix="hep2flow-bench-") as folder:
        for name in list(os.environ):
            if name.startswith(("AWS_", "HEP2FLOW_", "RAY_")) and name != "HEP2FLOW_I3A":
                del os.environ[name]
        os.environ["HEP2FLOW_HOME"] = f"{folder}/home"
        try:
            yield Path(folder)
        finally:
            embedded_server.down()


def hep2flow(*arguments: str) -> Command:
    """Run ``hep2flow ARGUMENTS`` as a user does; its standard error passes through.

    A command that fails ends the benchmark.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([sys.executable, "-m", "hep2flow.cli", *arguments], stdout=output)
        with Peak(process.pid) as peak:
            # Not Popen.wait: only wait4 returns the usage of this one child, and of the children it waited for.
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        printed = output.read().decode()
    if process.returncode:
        sys.exit(f"hep2flow {' '.join(arguments)}: exit code {process.returncode}")
    return Command(round(seconds, 2), round(usage.ru_utime + usage.ru_stime, 2), peak.mib, printed)


class Peak:
    """Peak memory, in MiB, of a process and its descendants together, while the block runs.

    A page that several share counts once (Linux: the proportional set size). Processes with a session of their own, as the
    embedded store, are not counted.
    """

    def __init__(self, pid: int) -> None:
        self.mib = 0.0
        self._process, self._stop = psutil.Process(pid), threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            try:
                processes = [self._process, *self._process.children(recursive=True)]
            except psutil.Error:  # it has just ended
                return
            self.mib = max(self.mib, round(sum(map(_memory, processes)) / MEBIBYTE, 1))


def _memory(process: psutil.Process) -> int:
    try:
        if os.getsid(process.pid) != os.getsid(0):
            return 0
        facts = process.memory_full_info()
    except (psutil.Error, OSError):  # it has just ended
        return 0
    return int(getattr(facts, "pss", facts.uss))


def median_of(runs: list[dict[str, Any]], name: str) -> float:
    """The median of one figure over all runs."""
    return round(statistics.median(run[name] for run in runs), 3)


def store_peak_mib() -> float | None:
    """Peak resident memory of the running embedded store; None on other systems than Linux."""
    from hep2flow.store import embedded_server

    status = Path(f"/proc/{embedded_server.status()['pid']}/status")
    if not status.exists():
        return None
    peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return round(int(peak.split()[1]) * 1024 / MEBIBYTE, 1)


def machine() -> dict[str, Any]:
    """The machine, its load at this moment (1 minute mean; a quiet one is near 0) and the time, UTC."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        for line in facts.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def print_result(
    benchmark: str, figure: float, limit: float | None, within: bool, at: dict[str, Any], sentence: str, **details: Any
) -> None:
    """Print one JSON object on standard output and one line for a person on standard error.

    Args:
        benchmark: Its name.
        figure: Seconds, or what the benchmark says.
        limit: Of the figure; None where others are compared with it.
        within: Whether this limit and those among the details are met.
        at: :func:`machine`, called before the measurement, so that its load is not the benchmark's own.
        sentence: For a person.
        details: More keys of the JSON object.
    """
    result = {"benchmark": benchmark, "figure": figure, "limit": limit, "within": within, "machine": at, **details}
    print(f"{benchmark}: {'within' if within else 'OVER'} its limits: {sentence}", file=sys.stderr)
    print(json.dumps(result))
