from __future__ import annotations

import json
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from hep2flow.evaluation.bootstrap import CELL_BOOTSTRAP, SPECIMEN_BOOTSTRAP
from hep2flow.evaluation.paired_tests import DifferentCellsError, mcnemar, paired_difference, permutation_test
from tests.evaluation.predictions import LABELS, frames


def test_paired_difference_of_equal_predictions_is_nothing() -> None:
    predictions, cells = frames(list("aabbcc"), list("abbbca"), list("112233"))
    result = paired_difference([predictions], [predictions], cells)
    assert (result["difference"], result["ci95"]) == (0.0, [0.0, 0.0])


@pytest.mark.parametrize("specimens", [None, [str(i % 10) for i in range(100)]])
def test_paired_difference_is_tighter_than_two_intervals(specimens: list[str | None] | None) -> None:
    # Both fail on the same 40 cells; the second fails on ten more.
    truth = ["a"] * 100
    first, cells = frames(truth, ["b"] * 40 + ["a"] * 60, specimens)
    second, _ = frames(truth, ["b"] * 50 + ["a"] * 50, specimens)
    result = paired_difference([first], [second], cells)
    assert result["difference"] == pytest.approx(0.1)
    assert 0.04 <= result["ci95"][0] <= 0.1 <= result["ci95"][1] < 0.17


def test_paired_difference_needs_the_same_cells() -> None:
    predictions, cells = frames(list("abc"), list("abc"))
    with pytest.raises(DifferentCellsError, match="not all of the same cells"):
        paired_difference([predictions], [predictions.iloc[1:]], cells)


def test_paired_difference_over_seeds_by_hand() -> None:
    # First: 3, 1 and 2 of 4 right, so 6/12; second: 1 of 4 right with its only seed.
    truth = list("aabb")
    first = [frames(truth, list(predicted))[0] for predicted in ("aaba", "abaa", "aaaa")]
    second, cells = frames(truth, list("bbba"))
    result = paired_difference(first, [second], cells)
    assert result["difference"] == pytest.approx(1 / 4)
    assert (result["first"], result["second"]) == (1 / 2, 1 / 4)
    assert result["seeds"] == [3, 1]
    # Seeds at 3/4, 1/4 and 2/4: deviations 1/4, -1/4 and 0 from their mean, over n - 1 = 2.
    assert result["seed_sd"] == [pytest.approx(1 / 4), None]
    assert result["ci95_method"] == CELL_BOOTSTRAP
    # The gains of the cells are 1, 2/3, -2/3 and 0: no resample leaves their range.
    assert -2 / 3 <= result["ci95"][0] < 1 / 4 < result["ci95"][1] <= 1
    json.dumps(result, allow_nan=False)


def test_paired_difference_over_seeds_draws_specimens() -> None:
    # Two specimens; the first gains half a cell in each of two cells of one, loses one of two in the other.
    truth = list("aaaa")
    first = [frames(truth, list(predicted))[0] for predicted in ("abba", "baba")]
    second, cells = frames(truth, list("bbaa"), list("1122"))
    result = paired_difference(first, [second], cells)
    assert result["ci95_method"] == SPECIMEN_BOOTSTRAP
    assert (result["difference"], result["ci95"]) == (0.0, [-0.5, 0.5])


@st.composite
def two_sides(draw: st.DrawFn) -> tuple[list[pd.DataFrame], list[pd.DataFrame], pd.DataFrame]:
    n = draw(st.integers(1, 20))
    names = st.lists(st.sampled_from(LABELS), min_size=n, max_size=n)
    truth, specimens = draw(names), draw(st.none() | st.lists(st.sampled_from("1234"), min_size=n, max_size=n))
    cells = frames(truth, truth, specimens)[1]  # type: ignore[arg-type]
    first, second = ([frames(truth, draw(names))[0] for _ in range(draw(st.integers(1, 4)))] for _ in range(2))
    return first, second, cells


@settings(max_examples=50, deadline=None)
@given(two_sides(), st.randoms(use_true_random=False))
def test_neither_the_order_of_cells_nor_of_seeds_changes_a_paired_difference(sides: Any, random: Any) -> None:
    first, second, cells = sides

    def shuffled(tables: list[pd.DataFrame]) -> list[pd.DataFrame]:
        tables = [table.sample(frac=1, random_state=random.randrange(2**32)) for table in tables]
        random.shuffle(tables)
        return tables

    expected = paired_difference(first, second, cells)
    again = paired_difference(shuffled(first), shuffled(second), shuffled([cells])[0])
    assert again["ci95"] == pytest.approx(expected["ci95"])
    assert again["difference"] == pytest.approx(expected["difference"])
    assert (again["first"], again["second"]) == pytest.approx((expected["first"], expected["second"]))
    for ours, theirs in zip(again["seed_sd"], expected["seed_sd"], strict=True):
        assert ours == (None if theirs is None else pytest.approx(theirs))


@settings(max_examples=50, deadline=None)
@given(two_sides())
def test_a_paired_difference_turns_round_with_its_sides(sides: Any) -> None:
    first, second, cells = sides
    there = paired_difference(first, second, cells)
    back = paired_difference(second, first, cells)
    assert back["difference"] == pytest.approx(-there["difference"])
    assert (back["first"], back["second"]) == (there["second"], there["first"])
    assert back["ci95"] == pytest.approx([-bound for bound in reversed(there["ci95"])])
    for name in ("seeds", "seed_sd"):
        assert back[name] == there[name][::-1]
    assert there["difference"] == pytest.approx(there["first"] - there["second"])


def sides(gains: list[int], size: int = 4) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Two trainings on specimens of so many cells, the first of which has so many more right in each (or fewer)."""
    first, second, specimens = list[str](), list[str](), list[str | None]()
    for specimen, gain in enumerate(gains):
        first += ["a"] * max(gain, 0) + ["b"] * (size - max(gain, 0))
        second += ["a"] * max(-gain, 0) + ["b"] * (size - max(-gain, 0))
        specimens += [str(specimen)] * size
    truth = ["a"] * len(first)
    ours, cells = frames(truth, first, specimens)
    return ours, frames(truth, second)[0], cells


def test_a_permutation_test_by_hand() -> None:
    # The gains are 3, 1, -1 and 0: 3 in all. Of the eight ways to set three signs, those that come to 3 or more, or -3 or
    # less, are +3+1+1, +3+1-1, +3-1+1 and their opposites: six of eight. The specimen without a gain changes nothing.
    first, second, cells = sides([3, 1, -1, 0])
    found = permutation_test([first], [second], cells)
    assert found == {
        "p": 6 / 8,
        "lowest_p": 2 / 8,
        "unit": "specimen",
        "units": 4,
        "moved": 3,
        "ways": 8,
        "exact": True,
    }
    # All on one side: only the observed signs and their opposite come as far.
    first, second, cells = sides([2, 1, 3, 1])
    assert permutation_test([first], [second], cells)["p"] == 2 / 16


def test_a_permutation_test_averages_seeds_first() -> None:
    # Over two seeds the gains of the specimens are 1, 1/2 and -1/2, 1 in all. +1+1/2+1/2 and +1+1/2-1/2, +1-1/2+1/2 come
    # as far, and their opposites: six of eight. Thirds and halves are not of binary fractions: equals stay equals.
    truth, specimens = list("aaa"), list("123")
    second, cells = frames(truth, list("bba"), specimens)  # type: ignore[arg-type]
    first = [frames(truth, list(predicted))[0] for predicted in ("aab", "aba")]
    assert permutation_test(first, [second], cells)["p"] == 6 / 8
    assert permutation_test(first * 3, [second] * 7, cells)["p"] == 6 / 8


def test_a_permutation_test_by_cells_says_so() -> None:
    # One cell gained, none lost: both signs come as far.
    truth = list("aab")
    first, cells = frames(truth, list("aab"))
    found = permutation_test([first], [frames(truth, list("abb"))[0]], cells)
    assert found == {"p": 1.0, "lowest_p": 1.0, "unit": "cell", "units": 3, "moved": 1, "ways": 2, "exact": True}
    # The signs of a single specimen say nothing either way.
    found = permutation_test([first], [frames(truth, list("abb"))[0]], cells.assign(specimen_id="7"))
    assert found["unit"] == "cell"


def test_equal_predictions_are_no_evidence_of_anything() -> None:
    predictions, cells = frames(list("aabb"), list("abab"), list("1122"))
    found = permutation_test([predictions], [predictions], cells)
    assert (found["p"], found["lowest_p"], found["ways"]) == (1.0, 1.0, 1)
    assert mcnemar(predictions, predictions) == {"first_only": 0, "second_only": 0, "p": 1.0}


def test_more_specimens_than_can_be_tried_are_drawn_and_come_near_the_exact_p() -> None:
    gains = [3, -1, 2, 1, -2, 1, 4, -1, 2, 1, -3, 2, 1, 1, 2]
    first, second, cells = sides(gains)
    drawn = permutation_test([first], [second], cells)
    assert (drawn["exact"], drawn["ways"], drawn["lowest_p"]) == (False, 10_000, 1 / 10_001)
    sums = np.abs([np.dot(signs, gains) for signs in product((1, -1), repeat=len(gains))])
    exact = (sums >= abs(sum(gains))).mean()
    # Four standard deviations of a share of 10,000 draws.
    assert drawn["p"] == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 10_000) ** 0.5)
    assert permutation_test([first], [second], cells) == drawn
    assert permutation_test([first], [second], cells, seed=1)["p"] != drawn["p"]


def test_a_drawn_p_is_never_zero() -> None:
    first, second, cells = sides([4] * 40)
    assert permutation_test([first], [second], cells, draws=99)["p"] == 1 / 100


def test_single_cells_are_flipped_as_mcnemar_counts_them() -> None:
    # Twelve gained, three lost. With a sign for each cell, the signs are a binomial: the two tests are one.
    first, cells = frames(["a"] * 60, ["a"] * 12 + ["b"] * 48)
    second = frames(["a"] * 60, ["b"] * 12 + ["a"] * 2 + ["b"] * 46)[0]
    assert permutation_test([first], [second], cells)["p"] == pytest.approx(mcnemar(first, second)["p"])


def test_mcnemar_by_hand() -> None:
    # Cells 0 to 3 are right in the first only, cell 4 in the second only, 5 in both, 6 in neither. Five tosses fall at
    # least as unevenly as 4 : 1 in 1 + 5 + 5 + 1 of 32 ways.
    first, _ = frames(list("aaaaaab"), list("aaaabaa"))
    second, _ = frames(list("aaaaaab"), list("bbbbaac"))
    assert mcnemar(first, second) == {"first_only": 4, "second_only": 1, "p": pytest.approx(12 / 32)}
    assert mcnemar(second, first) == {"first_only": 1, "second_only": 4, "p": pytest.approx(12 / 32)}
    with pytest.raises(DifferentCellsError):
        mcnemar(first, second.iloc[1:])


def test_mcnemar_comes_near_its_textbook_approximation() -> None:
    # Chi-squared with Edwards' correction: (|60 - 40| - 1)^2 / (60 + 40).
    first, _ = frames(["a"] * 200, ["a"] * 60 + ["b"] * 140)
    second, _ = frames(["a"] * 200, ["b"] * 60 + ["a"] * 40 + ["b"] * 100)
    assert mcnemar(first, second)["p"] == pytest.approx(chi2.sf(19**2 / 100, 1), abs=2e-3)


@settings(max_examples=50, deadline=None)
@given(two_sides(), st.randoms(use_true_random=False))
def test_a_permutation_test_knows_no_order_and_no_side(sides: Any, random: Any) -> None:
    first, second, cells = sides
    found = permutation_test(first, second, cells, draws=50)
    assert found["lowest_p"] <= found["p"] <= 1
    assert permutation_test(second, first, cells, draws=50) == found
    shuffled = [table.sample(frac=1, random_state=random.randrange(2**32)) for table in first[::-1]]
    assert permutation_test(shuffled, second[::-1], cells.iloc[::-1], draws=50) == found
    json.dumps(found, allow_nan=False)
