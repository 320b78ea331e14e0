"""The sweep's section of the page: its figures, sentences and tables."""

from collections.abc import Mapping
from functools import reduce
from typing import Any

import pandas as pd
import yaml
from matplotlib.figure import Figure

from hep2flow.reporting import sweep_figures as plots
from hep2flow.reporting.formatting import duration, interval, percent, zero_in_interval
from hep2flow.reporting.report_content import SweepResult
from hep2flow.reporting.sweep_figures import OWN_VALUES
from hep2flow.reporting.table_markup import Entry, Table, number, percentage, table_row
from hep2flow.search.space import yaml_text

TRIALS_PER_BEST = 5  # one trial of so many is among the best
MIN_TRIALS = 10  # fewer say nothing about where in the space good values lie
NO_IMPORTANCE = "Which key matters most is not known: the trials are too few."


def sweep_section(sweep: SweepResult, file: str) -> dict[str, Any]:
    """Sentences and tables of one sweep; ``file`` is part of the names of its figures."""
    took = [effort(sweep), *([] if sweep.manifest["importance"] else [NO_IMPORTANCE])]
    tables = {"winner": winner(sweep), "trials": trials(sweep), "failures": failures(sweep)}
    return {"title": sweep.title, "file": file, "verdict": verdict(sweep), "effort": took, **tables}


def sweep_figures(sweep: SweepResult) -> dict[str, tuple[str, str, Figure]]:
    """Caption, sentence and figure by kind, in reading order; only those for which there are numbers."""
    ranked, keys, most = sweep.manifest["importance"], len(sweep.keys), plots.MAX_KEYS
    which = f", the {most} {'most important' if ranked else 'first'} of {keys} keys" if keys > most else ""
    figures = {
        "history": ("Score of each trial", history(sweep), plots.optimisation_history(sweep)),
        "curves": ("Learning curves of all trials", curves(sweep), plots.trial_curves(sweep)),
        "parallel": (f"Values of all trials{which}", parallel(sweep), plots.parallel_coordinates(sweep)),
    }
    if ranked:
        figures["importance"] = ("Importance of the keys", importance(sweep), plots.importance(sweep))
    if sweep.judgement and not sweep.judgement.get("same"):
        caption = "The winner against the recipe's own values, on cells that chose nothing"
        figures["judgement"] = (caption, f"{significance(sweep.judgement)}.", plots.judgement(sweep))
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


def verdict(sweep: SweepResult) -> list[str]:
    """What won, whether it is better beyond the noise, and why other cells judge that."""
    chosen, found = sweep.manifest["chosen_on"], [choice(sweep), judgement(sweep)]
    if sweep.manifest["best_trial"] == 0:
        return found
    optimistic = "the winner's score there is optimistic, which is why other cells have to judge it."
    chance = f"Choosing the best of {sweep.manifest['trials']} trials on {chosen['cells']:,} cells crowns noise too"
    found.append(f"{chance}: {optimistic}")
    # By specimen where they are known and enough: no specimen is then on both sides.
    if sweep.judgement and chosen["by"] == "cell":
        both = "Cells of one specimen may stand among both, those that chose and those that judge"
        found.append(f"{both}: that flatters the winner.")
    return found


def choice(sweep: SweepResult) -> str:
    """The winner's score beside that of the recipe's own values."""
    number, count, scores = sweep.manifest["best_trial"], sweep.manifest["trials"], sweep.scores
    name = f"validation {sweep.manifest['metric']}"
    cells = f"{sweep.manifest['chosen_on']['cells']:,} validation cells that chose"
    if number == 0:
        score = _score(sweep, scores[0])
        return f"The recipe's own values won against {count - 1} other trials: {name} {score} on the {cells}."
    own = f"came to {_score(sweep, scores[0])} there" if 0 in scores else "came to no score"
    won = f"Of {count} trials number {number} won: {name} {_score(sweep, scores[number])} on the {cells}"
    return f"{won}; {OWN_VALUES}, trial 0, {own}."


def judgement(sweep: SweepResult) -> str:
    """Whether the winner is better on cells that chose nothing."""
    judged = sweep.judgement
    if judged is None:
        return "The winner was not judged on cells that chose nothing: nobody knows yet whether it is better."
    if judged.get("same"):
        return "There is nothing to judge: the winner is the recipe itself."
    points = 100 * judged["difference"]
    side = "better" if points > 0 else "worse"
    compared = f"is {abs(points):.1f} points {side} than" if points else "is exactly as good as"
    means = zip((judged["first"], judged["second"]), judged["seed_sd"], strict=True)
    tuned, default = (f"{percent(aca)}{'' if sd is None else f' ± {100 * sd:.1f}'}" for aca, sd in means)
    seeds, cells = judged["seeds"][0], f"{judged['cells']:,} validation cells that chose nothing"
    return (
        f"On {cells} the winner {compared} {OWN_VALUES}: ACA {tuned} against {default} over {seeds} "
        f"seed{'' if seeds == 1 else 's'} each, {judged['updates']:,} updates each. {significance(judged)} "
        f"({judged['ci95_method']}; seeds are not drawn)."
    )


def significance(judged: Mapping[str, Any]) -> str:
    """Whether the interval of the difference holds 0."""
    return f"The 95 % interval of the difference, {interval(judged['ci95'])} points, {zero_in_interval(judged['ci95'])}"


def history(sweep: SweepResult) -> str:
    """How many trials were better than the recipe's own values."""
    scores, best = sweep.scores, sweep.manifest["best_trial"]
    if 0 not in scores:
        return "The recipe's own values came to no score."
    others = len(scores) - 1
    if not others:
        return "No other trial came to a score."
    if best == 0:
        return f"None of {others} other trials with a score was better than {OWN_VALUES}."
    better = int((scores > scores[0]).sum() if sweep.by_accuracy else (scores < scores[0]).sum())
    were = "was" if better == 1 else "were"
    return f"{better} of {others} other trials with a score {were} better than {OWN_VALUES}, none better than trial {best}."


def curves(sweep: SweepResult) -> str:
    """How many trials were stopped early, and whether the winner should have been trained for longer."""
    winner, epochs = sweep.manifest["best_trial"], sweep.trials.set_index("trial")["epochs"]
    best, last = sweep.best_epochs.loc[winner, "epoch"], epochs[winner]
    stopped = sweep.trials.loc[sweep.trials["status"] == "stopped", "epochs"]
    early = f"{len(stopped)} of {len(sweep.trials)} trials were stopped early"
    after = f", in the median after {stopped.median():.0f} epochs" if len(stopped) else ""
    text = f"{early}{after}; the winner was best in epoch {best} of {last}"
    return f"{text}, its last: training for longer may help." if best == last else f"{text}."


def parallel(sweep: SweepResult) -> str:
    """Where the best trials lie on the first axis."""
    if len(sweep.scores) < MIN_TRIALS:
        return f"{len(sweep.scores)} trials with a score are too few to show where the good values lie."
    ranked = sweep.scores.sort_values(ascending=not sweep.by_accuracy, kind="stable")
    best = ranked.index[: len(ranked) // TRIALS_PER_BEST]
    key = sweep.keys[0]
    values = sweep.trials.set_index("trial")[key].reindex(best).dropna()
    of = f"the {len(best)} best of {len(ranked)} trials"
    if values.empty:
        return f"None of {of} tried {key}."
    if sweep.recipe["search"]["space"][key].get("choice"):
        value, count = values.value_counts().index[0], values.value_counts().iloc[0]
        return f"{count} of {of} have {key} = {value}."
    numbers = pd.to_numeric(values)
    return f"Of {of}, {key} lies between {numbers.min():.3g} and {numbers.max():.3g}."


def importance(sweep: SweepResult) -> str:
    """The most important key."""
    key = sweep.keys[0]
    return (
        f"{key} says most about whether a trial is among the better ones, {percent(sweep.manifest['importance'][key])} "
        "of what all keys say: an estimate from these trials, which ranks keys and proves nothing."
    )


def effort(sweep: SweepResult) -> str:
    """What the trials took, and what early stopping saved."""
    facts = sweep.manifest["early_stopping"]
    took = f"All trials together ran {facts['epochs_run']:,.0f} epochs in {duration(facts['seconds_run'])}"
    if not sweep.manifest["stopped"]:
        return f"{took}; no trial was stopped early."
    saved = f"{facts['epochs_saved']:,.0f} epochs and {duration(facts['seconds_saved'])} (estimated from each trial's speed)"
    ended = f"early stopping ended {sweep.manifest['stopped']} of {sweep.manifest['trials']} trials"
    return f"{took}; {ended} and saved about {saved}."


def _score(sweep: SweepResult, score: float) -> str:
    return percent(score) if sweep.by_accuracy else f"{score:.3f}"
