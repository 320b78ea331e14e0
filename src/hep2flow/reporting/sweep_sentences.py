"""Sentences on a sweep's numbers."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from hep2flow.reporting.formatting import duration, interval, percent, zero_in_interval
from hep2flow.reporting.report_content import SweepResult
from hep2flow.reporting.sweep_figures import OWN_VALUES

TRIALS_PER_BEST = 5  # one trial of so many is among the best
MIN_TRIALS = 10  # fewer say nothing about where in the space good values lie
NO_IMPORTANCE = "Which key matters most is not known: the trials are too few."


def verdict(sweep: SweepResult) -> list[str]:
    """What won, whether it is better beyond the noise, and why other cells judge that."""
    return [choice(sweep), judgement(sweep), *_why_separate_cells(sweep)]


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
    tuned, default = (
        f"{percent(judged[side])}{'' if deviation is None else f' ± {100 * deviation:.1f}'}"
        for side, deviation in zip(("first", "second"), judged["seed_sd"], strict=True)
    )
    seeds, cells = judged["seeds"][0], f"{judged['cells']:,} validation cells that chose nothing"
    return (
        f"On {cells} the winner {compared} {OWN_VALUES}: ACA {tuned} against {default} over {seeds} "
        f"seed{'' if seeds == 1 else 's'} each, {judged['updates']:,} updates each. {significance(judged)} "
        f"({judged['ci95_method']}; seeds are not drawn)."
    )


def significance(judged: Mapping[str, Any]) -> str:
    """Whether the interval of the difference holds 0."""
    return f"The 95 % interval of the difference, {interval(judged['ci95'])} points, {zero_in_interval(judged['ci95'])}"


def _why_separate_cells(sweep: SweepResult) -> list[str]:
    if sweep.manifest["best_trial"] == 0:
        return []
    chosen = sweep.manifest["chosen_on"]
    sentences = [
        f"Choosing the best of {sweep.manifest['trials']} trials on {chosen['cells']:,} cells crowns noise too: the "
        "winner's score there is optimistic, which is why other cells have to judge it."
    ]
    if sweep.judgement and chosen["by"] == "cell":
        # By specimen where they are known and enough: no specimen is then on both sides.
        sentences.append(
            "Cells of one specimen may stand among both, those that chose and those that judge: that flatters the winner."
        )
    return sentences


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
    if len(stopped):
        early += f", in the median after {stopped.median():.0f} epochs"
    text = f"{early}; the winner was best in epoch {best} of {last}"
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
    return (
        f"{took}; early stopping ended {sweep.manifest['stopped']} of {sweep.manifest['trials']} trials and saved about "
        f"{facts['epochs_saved']:,.0f} epochs and {duration(facts['seconds_saved'])} (estimated from each trial's speed)."
    )


def _score(sweep: SweepResult, score: float) -> str:
    return percent(score) if sweep.by_accuracy else f"{score:.3f}"
