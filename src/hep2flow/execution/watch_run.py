"""Watches a run, a training or a sweep through its records in the store, and shows it on standard error."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal

from hep2flow.errors import RunFailedError, UserError
from hep2flow.execution.progress_display import Display, open_display
from hep2flow.process import in_background
from hep2flow.store import layout
from hep2flow.store.outage import Log
from hep2flow.store.runs import RunView, show_run
from hep2flow.store.s3 import Store
from hep2flow.store.training_status import TrainingStatus

POLL_SECONDS = 1.0


@contextmanager
def show_run_progress(store: Store, run_id: str) -> Iterator[None]:
    """Show the run's stages while the block runs."""
    with open_display() as display:

        def poll() -> None:
            try:
                view = show_run(store, run_id)
            except UserError:  # not started yet, or the store is unreachable for a moment
                return
            for record in view.stages:
                name = layout.stage_name(record.stage, record.model).replace("-", " ", 1)
                display.stage(name, record)
                if record.status == "running" and record.key and record.stage in ("train", "tune"):
                    _poll_stage(store, record.stage, record.key, name, display)

        with _polling(poll, once_more=True):
            yield


@contextmanager
def show_stage_progress(store: Store, stage: Literal["train", "tune"], model: str) -> Iterator[tuple[Log, Log]]:
    """Show one training or one sweep while the block runs.

    Yields:
        What takes the stage's key before it starts, from where its status is read, and what takes its driver's log lines.
    """
    name, keys = f"{stage} {model}", list[str]()
    with open_display() as display:

        def poll() -> None:
            for key in keys[-1:]:
                _poll_stage(store, stage, key, name, display)

        with _polling(poll):
            yield keys.append, partial(display.notice, name)


@contextmanager
def _polling(poll: Callable[[], None], once_more: bool = False) -> Iterator[None]:
    """Poll in a thread while the block runs, and with ``once_more`` after its end too."""

    def watch(over: threading.Event) -> None:
        poll()
        while not over.wait(POLL_SECONDS):
            poll()
        if once_more:
            poll()

    with in_background(watch, "watch-run", 10):
        yield


def _poll_stage(store: Store, stage: str, key: str, name: str, display: Display) -> None:
    live = TrainingStatus(store, layout.output_prefix(stage, key))
    try:
        if stage == "train":
            for notice in live.notices(after=display.notices_read[name]):
                display.notices_read[name] += 1
                display.notice(name, notice["text"])
        if (progress := live.progress()) is not None:
            display.progress(name, progress)
    except UserError:  # the store is unreachable for a moment, or the training has just ended
        return


def run_failure(view: RunView, details: str, reason: str = "") -> Exception:
    """Why a run did not succeed, in the words of its failed step.

    ``details`` is where the complete log is, ``reason`` what else is known: added where no step recorded an error.
    """
    failed = [record for record in view.stages if record.status == "failed"]
    if mendable := [record for record in failed if record.mendable]:
        return UserError(str(mendable[0].error))
    if failed:
        what = f"{layout.stage_name(failed[0].stage, failed[0].model)}: {failed[0].error}"
    else:
        silent = [name for name, status in view.stage_status.items() if status in ("running", "lost", "interrupted")]
        what = f"{silent[0]}: ended before it was done, as if it had been killed" if silent else "no step told why"
        what += f" ({reason})" if reason else ""
    return RunFailedError(f"run {view.run.run_id} failed, {what}; the whole story is in {details}")
