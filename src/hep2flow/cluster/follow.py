"""A run as it happens: stage by stage on a terminal, plain lines elsewhere, JSON lines where asked for."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from hep2flow.errors import UserError
from hep2flow.store import layout
from hep2flow.store.live import Live
from hep2flow.store.runs import StageRecord, show_run
from hep2flow.store.s3 import Store

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
    """What a training tells whoever shows it."""

    def __init__(self, name: str, display: _Display) -> None:
        self.name, self.key = name, ""
        self._display = display

    def announce(self, key: str) -> None:
        """The training's key, before it starts."""
        self.key = key

    def tell(self, text: str) -> None:
        """One line about it, from its driver."""
        self._display.notice(self.name, text)


@contextmanager
def followed_training(store: Store, name: str) -> Iterator[Following]:
    """Show one training while the block runs."""
    with _display() as display:
        stop, following = threading.Event(), Following(f"train {name}", display)

        def watch() -> None:
            while not stop.wait(POLL_SECONDS):
                if following.key:
                    _look_at_training(store, following.key, following.name, display)

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


def _look(store: Store, run_id: str, display: _Display) -> None:
    try:
        view = show_run(store, run_id)
    except UserError:  # not begun yet, or the store is away for a moment
        return
    for record in view.stages:
        name = layout.stage_name(record.stage, record.model).replace("-", " ", 1)
        display.stage(name, record)
        if record.stage == "train" and record.status == "running" and record.key:
            _look_at_training(store, record.key, name, display)


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


class _Display:
    """Plain lines: one when a stage changes, one for each notice, and one about each training every 20 s.

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
    """A terminal: one line per stage, a bar for each training."""

    def __init__(self, out: TextIO, progress: Progress) -> None:
        super().__init__(out)
        self.progress = progress
        self.rows: dict[str, TaskID] = {}

    def _row(self, name: str) -> TaskID:
        if name not in self.rows:
            self.rows[name] = self.progress.add_task(name, total=None, state="")
        return self.rows[name]

    def stage(self, name: str, record: StageRecord) -> None:
        row = self._row(name)
        if record.status != "running":
            self.progress.update(row, total=1, completed=1, state=describe(record))

    def _say(self, fields: dict[str, Any], text: str) -> None:
        self.progress.console.print(text, markup=False, highlight=False)

    def training(self, name: str, progress: dict[str, Any] | None) -> None:
        if progress is not None:
            self.progress.update(
                self._row(name),
                total=progress["updates"],
                completed=progress["update"],
                state=describe_training(progress),
            )


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
    with Progress(*columns, console=Console(file=out)) as progress:
        yield _Bars(out, progress)
