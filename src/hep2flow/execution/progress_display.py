"""A run as it happens: stage by stage on a terminal, plain lines elsewhere, JSON lines where asked for."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live as LiveScreen
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Table

from hep2flow.errors import UserError
from hep2flow.store import layout
from hep2flow.store.runs import StageRecord, show_run
from hep2flow.store.s3 import Store
from hep2flow.store.training_status import Live

POLL_SECONDS = 1.0
PLAIN_SECONDS = 20.0  # between two lines about the same training where there is no terminal


@contextmanager
def followed(store: Store, run_id: str) -> Iterator[None]:
    """Show the run's stages on standard error while the block runs."""
    with _display() as display:
        stop = threading.Event()

        def watch() -> None:
            while True:
                last = stop.is_set()
                _look(store, run_id, display)
                if last:
                    return
                stop.wait(POLL_SECONDS)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join(10)


class Following:
    """What a training, or a sweep, tells whoever shows it."""

    def __init__(self, name: str, display: _Display) -> None:
        self.name, self.key = name, ""
        self._display = display

    def announce(self, key: str) -> None:
        """Its key, before it starts."""
        self.key = key

    def tell(self, text: str) -> None:
        """One line about it, from its driver."""
        self._display.notice(self.name, text)


@contextmanager
def followed_training(store: Store, name: str) -> Iterator[Following]:
    """Show one training while the block runs."""
    with _following(store, f"train {name}", _look_at_training) as following:
        yield following


@contextmanager
def followed_sweep(store: Store, name: str) -> Iterator[Following]:
    """Show one sweep while the block runs."""
    with _following(store, f"tune {name}", _look_at_sweep) as following:
        yield following


@contextmanager
def _following(store: Store, name: str, look: Callable[[Store, str, str, _Display], None]) -> Iterator[Following]:
    with _display() as display:
        stop, following = threading.Event(), Following(name, display)

        def watch() -> None:
            while not stop.wait(POLL_SECONDS):
                if following.key:
                    look(store, following.key, following.name, display)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield following
        finally:
            stop.set()
            watcher.join(10)


def _look_at_training(store: Store, key: str, name: str, display: _Display) -> None:
    live = Live(store, layout.training_prefix(key))
    try:
        for note in live.notices(after=display.seen[name]):
            display.seen[name] += 1
            display.notice(name, note["text"])
        display.training(name, live.progress())
    except UserError:  # the store is away for a moment, or the training has just ended
        return


def _look_at_sweep(store: Store, key: str, name: str, display: _Display) -> None:
    try:
        display.sweep(name, Live(store, layout.sweep_prefix(key)).progress())
    except UserError:  # the store is away for a moment
        return


def _look(store: Store, run_id: str, display: _Display) -> None:
    try:
        view = show_run(store, run_id)
    except UserError:  # not begun yet, or the store is away for a moment
        return
    for record in view.stages:
        name = layout.stage_name(record.stage, record.model).replace("-", " ", 1)
        display.stage(name, record)
        if record.status == "running" and record.key and record.stage in FOLLOWED:
            FOLLOWED[record.stage](store, record.key, name, display)


FOLLOWED = {"train": _look_at_training, "tune": _look_at_sweep}


def describe(record: StageRecord) -> str:
    """A stage's state as a person reads it."""
    if record.status == "running":
        return "running"
    seconds = f"{record.seconds:.1f} s" if record.seconds is not None else ""
    if record.status != "succeeded":
        return f"{record.status} after {seconds}"
    return "there already, nothing to do" if record.cached else f"done in {seconds}"


def describe_training(progress: dict[str, Any]) -> str:
    """A training's progress as a person reads it."""
    accuracy = progress["val_accuracy"]
    left = int(progress["seconds_left"])
    return (
        f"epoch {progress['epoch']}/{progress['epochs']}, loss {progress['train_loss']:.3f}, "
        + (f"validation accuracy {accuracy:.1%}, " if accuracy is not None else "")
        + f"{progress['images_per_second']:.0f} images/s, {left // 60}:{left % 60:02d} left"
    )


def describe_sweep(progress: dict[str, Any]) -> str:
    """A sweep's progress as a person reads it."""
    if "judging" in progress:
        return f"judging the winner, {progress['judging']} of {progress['trainings']} trainings done"
    parts = [f"{progress['ended']} of {progress['trials']} trials"]
    parts += [f"{progress[status]} {status}" for status in ("stopped", "failed") if progress[status]]
    if (best := progress["best"]) is not None:
        parts.append(f"best {best['val_accuracy']:.1%} (trial {best['trial']})")
    if (left := progress["seconds_left"]) is not None:
        parts.append(f"about {int(left) // 60}:{int(left) % 60:02d} left")
    return ", ".join(parts)


class _Display:
    """Plain lines: one when a stage changes, one for each notice, one about each training and sweep every 20 s.

    seen: training -> how many of its notices in the store were read
    """

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.as_json = os.environ.get("HEP2FLOW_LOG") == "json"
        self.states: dict[str, str] = {}
        self.told: dict[str, float] = {}
        self.seen: Counter[str] = Counter()
        self.noticed: dict[tuple[str, str], float] = {}

    def stage(self, name: str, record: StageRecord) -> None:
        if self.states.get(name) != record.status:
            self.states[name] = record.status
            self._say(
                {"stage": name, **record.model_dump(mode="json", include={"status", "seconds", "cached", "key"})},
                f"{name}: {describe(record)}",
            )

    def training(self, name: str, progress: dict[str, Any] | None) -> None:
        if progress is not None and time.monotonic() - self.told.get(name, 0.0) >= PLAIN_SECONDS:
            self.told[name] = time.monotonic()
            self._say({"stage": name, **progress}, f"{name}: {describe_training(progress)}")

    def sweep(self, name: str, progress: dict[str, Any] | None) -> None:
        if progress is not None and time.monotonic() - self.told.get(name, 0.0) >= PLAIN_SECONDS:
            self.told[name] = time.monotonic()
            self._say({"stage": name, **progress}, f"{name}: {describe_sweep(progress)}")

    def notice(self, name: str, text: str) -> None:
        """Shown once, though it may come from a driver, from its workers and from the store."""
        now = time.monotonic()
        if now - self.noticed.get((name, text), -PLAIN_SECONDS) >= PLAIN_SECONDS:
            self.noticed[name, text] = now
            self._say({"stage": name, "notice": text}, f"{name}: {text}")

    def _say(self, fields: dict[str, Any], text: str) -> None:
        # Not print: the local runner replaces it while tasks run.
        self.out.write((json.dumps(fields) if self.as_json else text) + "\n")
        self.out.flush()


class _Bars(_Display):
    """A terminal: one line per stage, a bar for each training and sweep, a table of each sweep's trials."""

    def __init__(self, out: TextIO, progress: Progress, live: LiveScreen) -> None:
        super().__init__(out)
        self.progress, self.live = progress, live
        self.rows: dict[str, TaskID] = {}
        self.sweeps: dict[str, Table] = {}

    def _row(self, name: str) -> TaskID:
        if name not in self.rows:
            self.rows[name] = self.progress.add_task(name, total=None, state="")
        return self.rows[name]

    def stage(self, name: str, record: StageRecord) -> None:
        row = self._row(name)
        if record.status != "running":
            self.progress.update(row, total=1, completed=1, state=describe(record))
            if self.sweeps.pop(name, None) is not None:
                self._draw()

    def _say(self, fields: dict[str, Any], text: str) -> None:
        self.live.console.print(text, markup=False, highlight=False)

    def training(self, name: str, progress: dict[str, Any] | None) -> None:
        if progress is not None:
            self.progress.update(
                self._row(name),
                total=progress["updates"],
                completed=progress["update"],
                state=describe_training(progress),
            )

    def sweep(self, name: str, progress: dict[str, Any] | None) -> None:
        if progress is None:
            return
        done, count = (
            (progress["judging"], progress["trainings"])
            if "judging" in progress
            else (progress["ended"], progress["trials"])
        )
        self.progress.update(self._row(name), total=count, completed=done, state=describe_sweep(progress))
        if "judging" in progress:
            self.sweeps.pop(name, None)
        else:
            self.sweeps[name] = sweep_table(name, progress)
        self._draw()

    def _draw(self) -> None:
        self.live.update(Group(self.progress, *self.sweeps.values()))


@contextmanager
def _display() -> Iterator[_Display]:
    # The true standard error: the local runner's noise is redirected elsewhere meanwhile.
    out = sys.__stderr__
    assert out is not None
    if os.environ.get("HEP2FLOW_LOG") == "json" or not out.isatty():
        yield _Display(out)
        return
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[state]}"),
    )
    progress = Progress(*columns, console=Console(file=out))
    with LiveScreen(progress, console=progress.console, refresh_per_second=4) as live:
        yield _Bars(out, progress, live)


def sweep_table(name: str, progress: dict[str, Any]) -> Table:
    """The best trial so far, and those that run.

    progress: as :func:`hep2flow.search.results.progress` tells it
    """
    table = Table(title=name, title_justify="left", box=None, pad_edge=False, expand=True)
    for heading in ("trial", "", "epoch", "accuracy"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "" else "right")
    table.add_column("values", no_wrap=True, overflow="ellipsis", ratio=1)  # gives way where a terminal is narrow
    best = progress["best"]
    shown = [*([("best", best)] if best is not None else []), *(("running", trial) for trial in progress["running"])]
    for state, trial in shown:
        accuracy = "–" if trial["val_accuracy"] is None else f"{trial['val_accuracy']:.1%}"
        table.add_row(
            str(trial["trial"]),
            state,
            str(trial["epoch"]),
            accuracy,
            _values(trial["changes"]),
            style="bold" if state == "best" else None,
        )
    return table


def _values(changes: dict[str, str]) -> str:
    """Changed keys by their last word: a terminal is narrow."""
    if not changes:
        return "the recipe's own"
    return ", ".join(f"{key.rpartition('.')[2]}={_short(value)}" for key, value in changes.items())


def _short(value: str) -> str:
    try:
        return f"{float(value):.3g}"
    except ValueError:
        return value
