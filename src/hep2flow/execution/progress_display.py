"""Displays of a run: progress bars on a terminal, plain lines elsewhere, JSON lines with ``HEP2FLOW_LOG=json``."""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Table

from hep2flow.store.runs import StageRecord

PLAIN_SECONDS = 20.0  # between two lines about the same training where there is no terminal
# Keys of what is done and of the total in the progress of a training, of a judging and of a sweep.
COUNTS = (("update", "updates"), ("judging", "trainings"), ("ended", "trials"))


def describe_stage(record: StageRecord) -> str:
    """A stage's state in words."""
    if record.status == "running":
        return "running"
    seconds = f"{record.seconds:.1f} s" if record.seconds is not None else ""
    if record.status != "succeeded":
        return f"{record.status} after {seconds}"
    return "cached, nothing to do" if record.cached else f"done in {seconds}"


def describe_progress(progress: dict[str, Any]) -> str:
    """A training's or a sweep's progress in words."""
    if "epoch" in progress:
        parts = [f"epoch {progress['epoch']}/{progress['epochs']}", f"loss {progress['train_loss']:.3f}"]
        if (accuracy := progress["val_accuracy"]) is not None:
            parts.append(f"validation accuracy {accuracy:.1%}")
        parts += [f"{progress['images_per_second']:.0f} images/s", f"{_minutes(progress['seconds_left'])} left"]
        return ", ".join(parts)
    if "judging" in progress:
        return f"judging the winner, {progress['judging']} of {progress['trainings']} trainings done"
    parts = [f"{progress['ended']} of {progress['trials']} trials"]
    parts += [f"{progress[status]} {status}" for status in ("stopped", "failed") if progress[status]]
    if (best := progress["best"]) is not None:
        parts.append(f"best {best['val_accuracy']:.1%} (trial {best['trial']})")
    if progress["seconds_left"] is not None:
        parts.append(f"about {_minutes(progress['seconds_left'])} left")
    return ", ".join(parts)


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class Display:
    """Plain or JSON lines: one when a stage changes, one for each notice, one about each training and sweep every 20 s."""

    def __init__(self, out: TextIO) -> None:
        self.notices_read: Counter[str] = Counter()  # training -> how many of its notices in the store were read
        self._out = out
        self._as_json = os.environ.get("HEP2FLOW_LOG") == "json"
        self._states: dict[str, str] = {}
        self._last_line: dict[str, float] = {}
        self._last_notice: dict[tuple[str, str], float] = {}

    def stage(self, name: str, record: StageRecord) -> None:
        """Show a stage's state, where it is new."""
        if self._states.get(name) != record.status:
            self._states[name] = record.status
            fields = record.model_dump(mode="json", include={"status", "seconds", "cached", "key"})
            self._write({"stage": name, **fields}, f"{name}: {describe_stage(record)}")

    def progress(self, name: str, progress: dict[str, Any]) -> None:
        """Show where a training or a sweep is."""
        if time.monotonic() - self._last_line.get(name, 0.0) >= PLAIN_SECONDS:
            self._last_line[name] = time.monotonic()
            self._write({"stage": name, **progress}, f"{name}: {describe_progress(progress)}")

    def notice(self, name: str, text: str) -> None:
        """Show a line once, though it may come from a driver, from its workers and from the store."""
        now = time.monotonic()
        if now - self._last_notice.get((name, text), -PLAIN_SECONDS) >= PLAIN_SECONDS:
            self._last_notice[name, text] = now
            self._write({"stage": name, "notice": text}, f"{name}: {text}")

    def _write(self, fields: dict[str, Any], text: str) -> None:
        # Not print: KFP's local runner replaces it while tasks run.
        self._out.write((json.dumps(fields) if self._as_json else text) + "\n")
        self._out.flush()


class _TerminalDisplay(Display):
    """One line per stage, a bar for each training and sweep, a table of each sweep's trials."""

    def __init__(self, out: TextIO, bars: Progress, screen: Live) -> None:
        super().__init__(out)
        self._bars, self._screen = bars, screen
        self._tasks: dict[str, TaskID] = {}
        self._tables: dict[str, Table] = {}

    def stage(self, name: str, record: StageRecord) -> None:
        task = self._task(name)
        if record.status != "running":
            self._bars.update(task, total=1, completed=1, state=describe_stage(record))
            self._show_table(name, None)

    def progress(self, name: str, progress: dict[str, Any]) -> None:
        done, total = next(counts for counts in COUNTS if counts[0] in progress)
        state = describe_progress(progress)
        self._bars.update(self._task(name), total=progress[total], completed=progress[done], state=state)
        self._show_table(name, sweep_table(name, progress) if "trials" in progress else None)

    def _task(self, name: str) -> TaskID:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=None, state="")
        return self._tasks[name]

    def _show_table(self, name: str, table: Table | None) -> None:
        before = self._tables.pop(name, None)
        if table is not None:
            self._tables[name] = table
        if table is not before:
            self._screen.update(Group(self._bars, *self._tables.values()))

    def _write(self, fields: dict[str, Any], text: str) -> None:
        self._screen.console.print(text, markup=False, highlight=False)


@contextmanager
def open_display() -> Iterator[Display]:
    """The display that fits standard error."""
    # The true standard error: that of the local runner is redirected into the run's log.
    out = sys.__stderr__
    assert out is not None
    if os.environ.get("HEP2FLOW_LOG") == "json" or not out.isatty():
        yield Display(out)
        return
    texts = TextColumn("{task.description:<22}"), TextColumn("{task.fields[state]}")
    columns = SpinnerColumn(finished_text="[green]✓"), texts[0], BarColumn(bar_width=24), texts[1]
    bars = Progress(*columns, console=Console(file=out))
    with Live(bars, console=bars.console, refresh_per_second=4) as screen:
        yield _TerminalDisplay(out, bars, screen)


def sweep_table(name: str, progress: dict[str, Any]) -> Table:
    """The best trial so far and the running ones, from a sweep's progress (:mod:`hep2flow.search.results`)."""
    table = Table(title=name, title_justify="left", box=None, pad_edge=False, expand=True)
    for heading in ("trial", "", "epoch", "accuracy"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "" else "right")
    table.add_column("values", no_wrap=True, overflow="ellipsis", ratio=1)  # gives way where a terminal is narrow
    best = progress["best"]
    rows = [*([("best", best)] if best is not None else []), *(("running", trial) for trial in progress["running"])]
    for state, trial in rows:
        accuracy = "–" if trial["val_accuracy"] is None else f"{trial['val_accuracy']:.1%}"
        # Keys by their last word: a terminal is narrow.
        changes = ", ".join(f"{key.rpartition('.')[2]}={_rounded(value)}" for key, value in trial["changes"].items())
        cells = (str(trial["trial"]), state, str(trial["epoch"]), accuracy, changes or "the recipe's own")
        table.add_row(*cells, style="bold" if state == "best" else None)
    return table


def _rounded(value: str) -> str:
    try:
        return f"{float(value):.3g}"
    except ValueError:
        return value
