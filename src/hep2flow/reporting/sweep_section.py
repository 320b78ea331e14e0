"""The sweep's section of the page: its figures, sentences and tables."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import pandas as pd
import yaml
from matplotlib.figure import Figure

from hep2flow.reporting import sweep_figures, sweep_sentences
from hep2flow.reporting.parallel_coordinates import MOST_KEYS, parallel_coordinates
from hep2flow.reporting.report_content import SweepResult
from hep2flow.reporting.report_tables import number, share
from hep2flow.reporting.table import Entry, Table
from hep2flow.search.space import written


@dataclass(frozen=True)
class Section:
    """One sweep as the page shows it.

    file: part of the names of its figures; failures: without rows where no trial failed
    """

    title: str
    file: str
    verdict: list[str]
    effort: list[str]
    winner: Table
    trials: Table
    failures: Table


def section(sweep: SweepResult, file: str) -> Section:
    """Sentences and tables of one sweep."""
    spent = [sweep_sentences.effort(sweep), *([] if sweep.manifest["importance"] else [sweep_sentences.NO_IMPORTANCE])]
    return Section(
        sweep.title, file, sweep_sentences.verdict(sweep), spent, winner(sweep), trials(sweep), failures(sweep)
    )


def drawings(sweep: SweepResult) -> dict[str, tuple[str, str, Figure]]:
    """Caption, the sentence that reads it, and figure, by kind in reading order; only what there is to draw."""
    shown = {
        "history": (
            f"Score of each trial: {sweep.title}",
            sweep_sentences.history(sweep),
            sweep_figures.optimisation_history(sweep),
        ),
        "curves": (
            f"Learning curves of all trials: {sweep.title}",
            sweep_sentences.curves(sweep),
            sweep_figures.trial_curves(sweep),
        ),
        "parallel": (_keys_shown(sweep), sweep_sentences.parallel(sweep), parallel_coordinates(sweep)),
    }
    if sweep.manifest["importance"]:
        caption = f"Importance of the keys: {sweep.title}"
        shown["importance"] = (caption, sweep_sentences.importance(sweep), sweep_figures.importance(sweep))
    if sweep.judgement and not sweep.judgement.get("same"):
        caption = f"The winner against the recipe's own values, on cells that chose nothing: {sweep.title}"
        shown["judgement"] = (caption, f"{sweep_sentences.noise(sweep.judgement)}.", sweep_figures.judgement(sweep))
    return shown


def _keys_shown(sweep: SweepResult) -> str:
    which, keys = "most important" if sweep.manifest["importance"] else "first", len(sweep.keys)
    shown = f", the {MOST_KEYS} {which} of {keys} keys" if keys > MOST_KEYS else ""
    return f"Values of all trials{shown}: {sweep.title}"


def winner(sweep: SweepResult) -> Table:
    """The keys whose values differ from the recipe's: no rows where the recipe's own values won."""
    changes = {key: yaml.safe_load(text) for key, text in sweep.manifest["best"].items()}
    rows = [
        [Entry(key), Entry(_brief(_own(sweep, key))), Entry(_brief(value))]
        for key, value in changes.items()
        if value != _own(sweep, key)
    ]
    caption = f"What the winner, trial {sweep.manifest['best_trial']}, changed"
    return Table(caption, ["Key", "Own value", "Winner's value"], rows, sortable=False)


def trials(sweep: SweepResult) -> Table:
    """Every trial: how it ended, its score, what it took and its values."""
    winner = sweep.manifest["best_trial"]
    names = {0: ", own values", winner: ", winner"} if winner else {0: ", winner, own values"}
    best, keys = sweep.best_epochs, list(sweep.recipe["search"]["space"])
    rows = []
    for trial in sweep.trials.to_dict("records"):
        n = int(trial["trial"])
        scored = best.loc[n] if n in best.index else None
        rows.append(
            [
                number(n, f"{n}{names.get(n, '')}"),
                Entry(trial["status"]),
                share(None if scored is None else scored["val_accuracy"], bar=True),
                Entry("–") if scored is None else number(scored["val_loss"], f"{scored['val_loss']:.3f}"),
                Entry("–") if scored is None else number(int(scored["epoch"])),
                number(int(trial["epochs"])),
                _value(trial["seconds"], ",.0f"),
                *(_value(trial[key], ".4g") for key in keys),
            ]
        )
    header = ["Trial", "Status", "Validation accuracy, %", "Validation loss", "Best epoch", "Epochs", "Seconds", *keys]
    caption = "All trials; accuracy and loss at the best epoch, on the validation cells that chose"
    return Table(caption, header, rows)


def failures(sweep: SweepResult) -> Table:
    """Trials that failed, and why."""
    rows = [[number(int(n), n), Entry(reason)] for n, reason in sweep.manifest["failures"].items()]
    return Table("Failed trials", ["Trial", "Reason"], rows)


def _value(value: Any, form: str) -> Entry:
    if pd.isna(value):
        return Entry("–")
    return Entry(value) if isinstance(value, str) else number(value, f"{value:{form}}")


def _brief(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else written(value)


def _own(sweep: SweepResult, key: str) -> Any:
    """The recipe's value of a dotted key; None below a section that is null."""
    return reduce(lambda tree, part: None if tree is None else tree[part], key.split("."), sweep.recipe)
