"""The sweep's section of the page: its figures, sentences and tables."""

from functools import reduce
from typing import Any

import pandas as pd
import yaml
from matplotlib.figure import Figure

from hep2flow.reporting import sweep_figures as plots
from hep2flow.reporting import sweep_sentences as sentences
from hep2flow.reporting.report_content import SweepResult
from hep2flow.reporting.table_markup import Entry, Table, number, percentage, table_row
from hep2flow.search.space import yaml_text


def sweep_section(sweep: SweepResult, file: str) -> dict[str, Any]:
    """Sentences and tables of one sweep; ``file`` is part of the names of its figures."""
    effort = [sentences.effort(sweep), *([] if sweep.manifest["importance"] else [sentences.NO_IMPORTANCE])]
    tables = {"winner": winner(sweep), "trials": trials(sweep), "failures": failures(sweep)}
    return {"title": sweep.title, "file": file, "verdict": sentences.verdict(sweep), "effort": effort, **tables}


def sweep_figures(sweep: SweepResult) -> dict[str, tuple[str, str, Figure]]:
    """Caption, sentence and figure by kind, in reading order; only those for which there are numbers."""
    importance, keys, most = sweep.manifest["importance"], len(sweep.keys), plots.MAX_KEYS
    which = (
        f", the {most} {'most important' if importance else 'first'} of {keys} keys" if keys > plots.MAX_KEYS else ""
    )
    figures = {
        "history": ("Score of each trial", sentences.history(sweep), plots.optimisation_history(sweep)),
        "curves": ("Learning curves of all trials", sentences.curves(sweep), plots.trial_curves(sweep)),
        "parallel": (f"Values of all trials{which}", sentences.parallel(sweep), plots.parallel_coordinates(sweep)),
    }
    if importance:
        figures["importance"] = ("Importance of the keys", sentences.importance(sweep), plots.importance(sweep))
    if sweep.judgement and not sweep.judgement.get("same"):
        caption = "The winner against the recipe's own values, on cells that chose nothing"
        figures["judgement"] = (caption, f"{sentences.significance(sweep.judgement)}.", plots.judgement(sweep))
    return {kind: (f"{caption}: {sweep.title}", text, plot) for kind, (caption, text, plot) in figures.items()}


def winner(sweep: SweepResult) -> Table:
    """The keys whose values differ from the recipe's: no rows where the recipe's own values won."""
    rows = []
    for key, text in sweep.manifest["best"].items():
        # None below a section that is null.
        own = reduce(lambda tree, part: None if tree is None else tree[part], key.split("."), sweep.recipe)
        if (value := yaml.safe_load(text)) != own:
            rows.append(table_row(key, _yaml_or_rounded(own), _yaml_or_rounded(value)))
    caption = f"What the winner, trial {sweep.manifest['best_trial']}, changed"
    return Table(caption, ["Key", "Own value", "Winner's value"], rows, sortable=False)


def trials(sweep: SweepResult) -> Table:
    """Every trial: how it ended, its score, what it took and its values."""
    winner = sweep.manifest["best_trial"]
    names = {0: ", own values", winner: ", winner"} if winner else {0: ", winner, own values"}
    keys = list(sweep.recipe["search"]["space"])
    rows = []
    for trial in sweep.trials.to_dict("records"):
        n, best = int(trial["trial"]), [Entry("–")] * 3
        if n in sweep.best_epochs.index:
            accuracy, loss, epoch = sweep.best_epochs.loc[n, ["val_accuracy", "val_loss", "epoch"]]
            best = [percentage(accuracy, bar=True), number(loss, f"{loss:.3f}"), number(int(epoch))]
        took = number(int(trial["epochs"])), _value(trial["seconds"], ",.0f")
        values = [_value(trial[key], ".4g") for key in keys]
        rows.append(table_row(number(n, f"{n}{names.get(n, '')}"), trial["status"], *best, *took, *values))
    header = ["Trial", "Status", "Validation accuracy, %", "Validation loss", "Best epoch", "Epochs", "Seconds", *keys]
    caption = "All trials; accuracy and loss at the best epoch, on the validation cells that chose"
    return Table(caption, header, rows)


def failures(sweep: SweepResult) -> Table:
    """Trials that failed, and why."""
    rows = [table_row(number(int(n), n), reason) for n, reason in sweep.manifest["failures"].items()]
    return Table("Failed trials", ["Trial", "Reason"], rows)


def _value(value: Any, form: str) -> Entry:
    if pd.isna(value):
        return Entry("–")
    return Entry(value) if isinstance(value, str) else number(value, f"{value:{form}}")


def _yaml_or_rounded(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else yaml_text(value)
