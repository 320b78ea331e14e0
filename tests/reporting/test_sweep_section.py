from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hep2flow.reporting import figures, sweep_figures, sweep_section
from hep2flow.reporting.page import illustrations, inline_svg, render, summary, write
from hep2flow.reporting.report_content import ReportContent, SweepResult

from .content import make_content
from .sweep import SPACE, make_judgement, make_sweep
from .test_figures import texts
from .test_page import Text

CHOICES = {key: SPACE[key] for key in ("optim.name", "augment.color_jitter", "batch.mixup")}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "loss": {"metric": "loss"},
    "all failed but one": {"trials": 5, "fail": frozenset({1, 2, 3, 4})},
    "the recipe's own values failed": {"fail": frozenset({0})},
    "one key": {"space": {"optim.lr": SPACE["optim.lr"]}},
    "choices only": {"space": CHOICES},
    "not judged": {"judgement": None},
    "own values won": {
        "trials": 4,
        "fail": frozenset({1, 2, 3}),
        "judgement": {"same": True, "cells": 181, "by": "specimen", "updates": 360},
    },
    "no importance": {"importance": False},
    "200 trials": {"trials": 200, "epochs": 100},
}


@pytest.fixture(scope="module")
def without() -> ReportContent:
    """A report of little else."""
    content = make_content(shared_specimens=0, paper_model=True, profile="paper")
    return replace(content, models=content.models[:1], examples={})


@pytest.fixture(scope="module")
def both(without: ReportContent) -> ReportContent:
    """Two sweeps of recipes of one name."""
    return replace(without, sweeps=[make_sweep(), make_sweep(12, metric="loss", draw=1, importance=False)])


@pytest.fixture(scope="module")
def page(both: ReportContent) -> str:
    return render(both)


def part(page: str) -> str:
    return page[page.index('<section id="sweeps">') : page.index('<section id="specimens">')]


def kinds(sweep: SweepResult) -> set[str]:
    return set(sweep_section.sweep_figures(sweep))


@pytest.mark.parametrize("case", CASES)
def test_every_sweep_is_drawn_told_and_small(without: ReportContent, case: str) -> None:
    sweep = make_sweep(**CASES[case])
    section = part(render(replace(without, sweeps=[sweep])))
    drawn = re.findall(r"<svg.*?</svg>", section, flags=re.DOTALL)
    assert len(drawn) == len(kinds(sweep)) >= 3
    assert sum(map(len, drawn)) < 600_000
    for sentence in (*sweep_section.verdict(sweep), sweep_section.effort(sweep)):
        assert re.sub(r"\s", " ", sentence) in Text(section).text
    assert not re.search(r"\bnan\b", Text(section).text, flags=re.IGNORECASE)


def test_a_report_without_sweeps_does_not_speak_of_them(without: ReportContent) -> None:
    assert "weep" not in Text(render(without)).text
    assert "weep" not in summary(without)


def test_the_page_leads_to_the_sweeps_after_the_evidence(page: str) -> None:
    assert page.index('href="#evidence"') < page.index('href="#sweeps"') < page.index('href="#specimens"')
    assert page.index('<section id="evidence">') < page.index('<section id="sweeps">')


def test_ids_of_two_sweeps_of_one_name_are_unique_and_answered(page: str) -> None:
    text = Text(page)
    assert len(text.ids) == len(set(text.ids))
    assert set(text.references) | set(re.findall(r"url\(#([^)]+)\)", page)) <= set(text.ids)
    assert text.loads == []


def test_figures_of_sweeps_are_files_like_the_others(both: ReportContent, tmp_path: Path) -> None:
    write(both, tmp_path)
    names = {path.stem for path in (tmp_path / "figures").glob("sweep-*.svg")}
    first = {f"sweep-{kind}-convnext-b-1" for kind in ("history", "curves", "parallel", "importance", "judgement")}
    second = {f"sweep-{kind}-convnext-b-2" for kind in ("history", "curves", "parallel", "judgement")}
    assert names == first | second
    assert names == {path.stem for path in (tmp_path / "figures").glob("sweep-*.png")}
    written = (tmp_path / "summary.md").read_text(encoding="utf-8")
    for sweep in both.sweeps:
        assert " ".join(sweep_section.verdict(sweep)) in written


def test_hostile_texts_are_escaped(without: ReportContent) -> None:
    evil = '<script>alert("1")</script>'
    space = {"a.<b>&key": {"choice": [evil, "$x^2$"]}}
    sweep = make_sweep(12, space=space, title=f"{evil} | title")
    sweep = replace(sweep, manifest=sweep.manifest | {"failures": {"5": evil}})
    page = render(replace(without, sweeps=[sweep]))
    assert "<script>alert" not in page
    assert page.count("<script>") == 1
    assert evil in Text(page).text
    assert "a.<b>&key" in Text(page).text
    written = summary(replace(without, sweeps=[sweep]))
    assert "<script>" not in written
    assert "\\| title" in written


@pytest.mark.parametrize(
    ("difference", "ci95", "words", "other"),
    [
        (
            0.021,
            (-0.006, 0.047),
            ("2.1 points better", "-0.6 to 4.7 points, holds 0: inside the noise"),
            "does not hold",
        ),
        (0.021, (0.004, 0.039), ("2.1 points better", "0.4 to 3.9 points, does not hold 0"), "inside the noise"),
        (-0.031, (-0.05, -0.01), ("3.1 points worse", "-5.0 to -1.0 points, does not hold 0"), "inside the noise"),
        (0.0, (0.0, 0.0), ("exactly as good as", "holds 0: inside the noise"), "does not hold"),
    ],
)
def test_the_verdict_says_whether_the_winner_is_better_beyond_the_noise(
    difference: float, ci95: tuple[float, float], words: tuple[str, str], other: str
) -> None:
    sweep = make_sweep(judgement=make_judgement(difference, ci95))
    told = " ".join(sweep_section.verdict(sweep))
    for expected in (*words, "On 181 validation cells that chose nothing", "360 updates each"):
        assert expected in told
    assert other not in told
    assert "Choosing the best of 40 trials on 180 cells crowns noise too" in told
    assert words[1] in sweep_section.sweep_figures(sweep)["judgement"][1]


def test_what_was_not_judged_is_not_called_better(without: ReportContent) -> None:
    sweep = make_sweep(judgement=None)
    assert "nobody knows yet whether it is better" in " ".join(sweep_section.verdict(sweep))
    assert "judgement" not in kinds(sweep)


def test_the_recipe_that_won_itself_has_nothing_to_be_judged_and_no_changes() -> None:
    sweep = make_sweep(**CASES["own values won"])
    told = " ".join(sweep_section.verdict(sweep))
    assert "The recipe's own values won against 3 other trials" in told
    assert "There is nothing to judge" in told
    assert "crowns noise" not in told
    assert sweep_section.winner(sweep).rows == []
    assert sweep_section.history(sweep) == "No other trial came to a score."


def test_halves_that_share_specimens_are_told() -> None:
    sweep = make_sweep()
    apart = " ".join(sweep_section.verdict(sweep))
    chosen = {"cells": 180, "by": "cell"}
    together = " ".join(sweep_section.verdict(replace(sweep, manifest=sweep.manifest | {"chosen_on": chosen})))
    assert "Cells of one specimen may stand among both" not in apart
    assert "Cells of one specimen may stand among both" in together


def test_the_score_is_always_of_the_cells_that_chose() -> None:
    for metric in ("accuracy", "loss"):
        sweep = make_sweep(metric=metric)
        assert f"validation {metric}" in sweep_section.choice(sweep)
        assert "on the 180 validation cells that chose" in sweep_section.choice(sweep)
        drawn = sweep_section.sweep_figures(sweep)
        for kind in ("history", "curves"):
            assert "(cells that chose)" in texts(figures.to_svg(drawn[kind][2]))


def test_the_best_so_far_and_the_winner_are_right_for_either_metric() -> None:
    for metric, best in (("accuracy", np.maximum), ("loss", np.minimum)):
        sweep = make_sweep(metric=metric)
        axes = sweep_section.sweep_figures(sweep)["history"][2].axes[0]
        line = next(line for line in axes.lines if line.get_label() == "best so far")
        shown = (100 if metric == "accuracy" else 1) * sweep.scores.to_numpy()
        assert list(line.get_ydata())[:-1] == pytest.approx(list(best.accumulate(shown)))
        winner = next(line for line in axes.lines if str(line.get_label()).startswith("the winner"))
        assert winner.get_ydata()[0] == pytest.approx(best.reduce(shown))
        assert f"trial {sweep.manifest['best_trial']}," in str(winner.get_label())


def test_failed_trials_are_marked_and_never_win() -> None:
    sweep = make_sweep()
    status = sweep.trials["status"].where(sweep.trials["trial"] != sweep.manifest["best_trial"], "failed")
    failed = replace(sweep, trials=sweep.trials.assign(status=status))
    assert sweep.manifest["best_trial"] not in failed.scores
    assert "failed (2)" in texts(figures.to_svg(sweep_section.sweep_figures(sweep)["history"][2]))
    assert "failed (3)" in texts(figures.to_svg(sweep_figures.optimisation_history(failed)))


def test_parallel_coordinates_name_the_most_important_keys_their_ends_and_choices() -> None:
    sweep = make_sweep()
    shown = texts(figures.to_svg(sweep_section.sweep_figures(sweep)["parallel"][2]))
    least = sweep.keys[-1]
    assert len(sweep.keys) == 9
    for key in sweep.keys[:-1]:
        assert key.split(".")[1] in shown
    assert least.split(".")[1] not in shown
    assert {"1e-06", "1e-05", "0.0001", "adam", "adamw", "balanced", "null", "not tried"} <= set(shown)
    assert "the 8 most important of 9 keys" in sweep_section.sweep_figures(sweep)["parallel"][0]


def test_own_values_outside_of_the_space_are_drawn_inside_of_the_figure() -> None:
    space = {
        "optim.lr": {"loguniform": [1.0e-4, 1.0e-3]},
        "optim.weight_decay": {"uniform": [0.1, 0.3]},
        "optim.name": {"choice": ["adamw", "sgd"]},
    }
    axes = sweep_section.sweep_figures(make_sweep(space=space))["parallel"][2].axes[0]
    own = next(line for line in axes.lines if str(line.get_label()).startswith("the recipe's own"))
    assert np.min(own.get_xdata()) >= 0
    assert "adam" in {text.get_text() for text in axes.texts}


def test_choices_that_differ_at_their_end_are_told_apart() -> None:
    options = [None, {"operations": 2, "magnitude": 5.0}, {"operations": 2, "magnitude": 9.0}]
    shown = texts(
        figures.to_svg(
            sweep_section.sweep_figures(make_sweep(space={"augment.rand_augment": {"choice": options}}))["parallel"][2]
        )
    )
    assert {"5.0}", "9.0}"} <= {line for text in shown for line in text.splitlines()}


def test_where_the_best_trials_lie_is_told() -> None:
    rates = make_sweep()
    best = rates.scores.sort_values(ascending=False).index[:7]
    tried = rates.trials.set_index("trial").loc[best, "optim.lr"]
    assert (
        sweep_section.parallel(rates)
        == f"Of the 7 best of 38 trials, optim.lr lies between {tried.min():.3g} and {tried.max():.3g}."
    )
    assert re.fullmatch(
        r"\d of the 7 best of 38 trials have optim.name = adamw?\.", sweep_section.parallel(make_sweep(space=CHOICES))
    )
    assert "too few" in sweep_section.parallel(make_sweep(6, fail=frozenset()))


def test_importance_is_drawn_or_its_absence_is_told(without: ReportContent, page: str) -> None:
    sweep = make_sweep()
    assert f"{100 * sweep.manifest['importance']['optim.lr']:.1f}" in texts(
        figures.to_svg(sweep_section.sweep_figures(sweep)["importance"][2])
    )
    assert "optim.lr says most" in sweep_section.importance(sweep)
    assert Text(part(page)).text.count("the trials are too few") == 1


def test_the_table_of_trials_sorts_by_numbers_and_shows_what_is_missing_as_a_dash() -> None:
    sweep = make_sweep()
    table = sweep_section.trials(sweep)
    assert len(table.rows) == 40
    assert table.sortable
    for name in (
        "Trial",
        "Validation accuracy, %",
        "Best epoch",
        "Epochs",
        "Seconds",
        "optim.lr",
        "optim.weight_decay",
    ):
        assert table.numeric(table.header.index(name)), name
    assert not table.numeric(table.header.index("batch.mixup"))
    assert [entry.text for entry in table.rows[5]][1:7] == ["failed", "–", "–", "–", "0", "–"]
    assert table.rows[0][0].text == "0, own values"
    assert table.rows[sweep.manifest["best_trial"]][0].text.endswith(", winner")


def test_the_winners_table_holds_what_differs_from_the_recipe() -> None:
    sweep = make_sweep()
    best = {"optim.lr": "7.893499243917037e-05", "optim.name": "adam", "augment.color_jitter": "{brightness: 0.3}"}
    rows = sweep_section.winner(replace(sweep, manifest=sweep.manifest | {"best": best})).rows
    assert [[entry.text for entry in row] for row in rows] == [
        ["optim.lr", "4e-06", "7.893e-05"],
        ["augment.color_jitter", "null", "{brightness: 0.3}"],
    ]


def test_failures_and_what_early_stopping_saved_are_told() -> None:
    sweep = make_sweep()
    rows = [[entry.text for entry in row] for row in sweep_section.failures(sweep).rows]
    assert rows == [[n, "out of memory: 2.1 GiB more were asked for"] for n in ("5", "11")]
    stopped = sweep.manifest["stopped"]
    assert f"early stopping ended {stopped} of 40 trials and saved about 388 epochs and 92 min" in sweep_section.effort(
        sweep
    )
    kept = replace(sweep, manifest=sweep.manifest | {"stopped": 0})
    assert "no trial was stopped early" in sweep_section.effort(kept)


def test_equal_sweeps_give_equal_pages_in_the_pages_colours(both: ReportContent, page: str) -> None:
    assert render(both) == page
    drawn = illustrations(both)["sweep-parallel-convnext-b-1"].document
    assert figures.PAGE in drawn
    assert figures.PAGE not in inline_svg(drawn, "f")
    assert "var(--page)" in inline_svg(drawn, "f")
