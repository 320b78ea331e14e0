"""A running sweep as a table on a terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table


def sweep_table(name: str, progress: dict[str, Any]) -> Table:
    """The best trial so far, and those that run.

    progress: as :func:`hep2flow.tuning.progress.progress` tells it
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
