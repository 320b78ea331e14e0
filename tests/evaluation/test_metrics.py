from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    classification_report,
    confusion_matrix,
    log_loss,
    recall_score,
    roc_auc_score,
)

from hep2flow.evaluation.bootstrap import CELL_BOOTSTRAP, SPECIMEN_BOOTSTRAP
from hep2flow.evaluation.metrics import evaluate_predictions, intervals_over_seeds
from tests.evaluation.predictions import LABELS, frames


def random_frames(n: int, specimens: int, seed: int, classes: int = 6) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    rng = np.random.default_rng(seed)
    labels = [f"k{i}" for i in range(classes)]
    specimen = rng.integers(specimens, size=n)
    truth = specimen % classes
    probabilities = rng.dirichlet(np.ones(classes), size=n)
    probabilities[np.arange(n), truth] += rng.random(n)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predictions = pd.DataFrame(probabilities, columns=[f"p_{label}" for label in labels])
    predictions.insert(0, "cell_id", [f"{i:06d}" for i in range(n)])
    predictions["truth"] = [labels[k] for k in truth]
    predictions["predicted"] = [labels[k] for k in probabilities.argmax(axis=1)]
    cells = pd.DataFrame(
        {
            "cell_id": predictions["cell_id"],
            "intensity": np.where(specimen % 2, "positive", "intermediate"),
            "specimen_id": specimen.astype(str),
        }
    )
    return predictions, cells, labels


def test_hand_worked_numbers() -> None:
    # a: 3 of 4 right, b: 1 of 2, c: 0 of 1 (called a).
    predictions, cells = frames(list("aaaabbc"), list("aaabbaa"))
    metrics = evaluate_predictions(predictions, cells, LABELS)
    assert metrics["n"] == 7
    assert metrics["confusion"] == [[3, 1, 0], [1, 1, 0], [1, 0, 0]]
    assert metrics["aca"] == pytest.approx(4 / 7)
    assert metrics["mca"] == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    # F1 = 2 hits / (support + called): a 6/9, b 2/4, c 0/1.
    assert metrics["macro_f1"] == pytest.approx((6 / 9 + 1 / 2 + 0) / 3)
    assert metrics["weighted_f1"] == pytest.approx((4 * 6 / 9 + 2 * 1 / 2 + 0) / 7)
    assert metrics["per_class"]["a"] == pytest.approx({"precision": 3 / 5, "recall": 3 / 4, "f1": 2 / 3, "support": 4})
    assert metrics["per_class"]["c"] == {"precision": None, "recall": 0.0, "f1": 0.0, "support": 1}
    assert metrics["nll"] == pytest.approx(-(4 * np.log(0.8) + 3 * np.log(0.1)) / 7)
    # One bin holds all cells: confidence .8, accuracy 4/7.
    assert metrics["ece"] == pytest.approx(0.8 - 4 / 7)
    assert len(metrics["reliability"]) == 15
    assert [b["n"] for b in metrics["reliability"] if b["n"]] == [7]
    # All cells are equally sure: they are accepted together, or not at all.
    assert metrics["reject_curve"] == [
        {"coverage": 1.0, "accuracy": pytest.approx(4 / 7), "threshold": pytest.approx(0.8)}
    ]
    assert metrics["reject_area"] == pytest.approx(4 / 7)
    # Even rows (a a b c) are intermediate: 2 of 4 right; odd rows (a a b): 2 of 3.
    assert metrics["by_intensity"]["intermediate"] == pytest.approx({"n": 4, "aca": 3 / 4, "mca": 2 / 3})
    assert metrics["by_intensity"]["positive"] == pytest.approx({"n": 3, "aca": 1 / 3, "mca": 1 / 4})


def test_roc_areas_by_hand() -> None:
    # p(a) of the a cells is 0.8 and 0.3, of the others 0.5 and 0.1: three of the four pairs are in order. p(b) of the b
    # cells is 0.4 and 0.9, of the others 0.1 and 0.4: three pairs are in order and one is a tie, which counts half.
    predictions, cells = frames(list("aabb"), list("aaab"))
    predictions[["p_a", "p_b", "p_c"]] = [[0.8, 0.1, 0.1], [0.3, 0.4, 0.3], [0.5, 0.4, 0.1], [0.1, 0.9, 0.0]]
    areas = evaluate_predictions(predictions, cells, LABELS)["roc_auc"]
    assert areas == {"per_class": {"a": 3 / 4, "b": 7 / 8, "c": None}, "macro": pytest.approx((3 / 4 + 7 / 8) / 2)}


def test_the_calibration_error_by_hand() -> None:
    # Two cells at 0.9, one right: off by 0.4. Two at 0.5, both right: off by 0.5. Half the cells each.
    predictions, cells = frames(list("aaaa"), list("abaa"), confidence=0.9)
    predictions.loc[2:, ["p_a", "p_b", "p_c"]] = [0.5, 0.3, 0.2]
    metrics = evaluate_predictions(predictions, cells, LABELS)
    assert metrics["ece"] == pytest.approx((0.4 + 0.5) / 2)
    lower, upper = (bin_ for bin_ in metrics["reliability"] if bin_["n"])
    assert (lower["n"], lower["confidence"], lower["accuracy"]) == (2, pytest.approx(0.5), 1.0)
    assert (upper["n"], upper["confidence"], upper["accuracy"]) == (2, pytest.approx(0.9), 0.5)


def test_specimens_vote_and_ties_go_to_the_likelier_class() -> None:
    predictions, cells = frames(list("aaabb"), list("aabab"), ["10", "10", "10", "9", "9"])
    predictions.loc[3, ["p_a", "p_b", "p_c"]] = [0.5, 0.45, 0.05]
    metrics = evaluate_predictions(predictions, cells, LABELS)
    nine, ten = metrics["by_specimen"]
    assert (nine["specimen_id"], nine["vote"], nine["vote_correct"], nine["accuracy"]) == ("9", "b", True, 0.5)
    assert (ten["specimen_id"], ten["n"], ten["correct"], ten["vote"]) == ("10", 3, 2, "a")
    assert metrics["specimen_vote_accuracy"] == 1.0
    assert metrics["ci95_method"] == SPECIMEN_BOOTSTRAP


def test_unknown_specimens_are_said_to_be_unknown() -> None:
    metrics = evaluate_predictions(*frames(list("aabbc"), list("aabbc")), LABELS)
    assert metrics["ci95_method"] == CELL_BOOTSTRAP
    assert metrics["by_specimen"] == []
    assert metrics["specimen_vote_accuracy"] is None


def test_classes_of_one_specimen_are_named_where_specimens_are_drawn() -> None:
    truth = list("aabbbb")
    for specimens, alone in (
        (list("112233"), ["a"]),
        (list("112222"), ["a", "b"]),
        (list("122233"), []),  # b's second specimen holds cells of a too
        (list("111111"), []),  # cells are drawn
        ([None, *"12233"], []),  # cells are drawn
    ):
        metrics = evaluate_predictions(*frames(truth, truth, specimens), LABELS)
        assert metrics["ci95_one_specimen"] == alone


def test_a_single_specimen_does_not_claim_certainty() -> None:
    metrics = evaluate_predictions(*frames(["a", "b"] * 20, ["a", "a"] * 20, ["7"] * 40), LABELS)
    low, high = metrics["ci95"]["aca"]
    assert low < 0.5 < high
    assert metrics["ci95_method"] == "cell bootstrap: only one specimen"


def test_clustered_intervals_are_wider_when_specimens_differ() -> None:
    # Ten specimens, each wholly right or wholly wrong: ten facts, not a hundred.
    truth, predicted = ["a", "b"] * 50, (["a", "b"] * 25) + (["b", "a"] * 25)
    known = evaluate_predictions(*frames(truth, predicted, [str(i // 10) for i in range(100)]), LABELS)["ci95"]["aca"]
    unknown = evaluate_predictions(*frames(truth, predicted), LABELS)["ci95"]["aca"]
    # Binomial 95 % intervals of 5 of 10 and of 50 of 100.
    assert known == pytest.approx([0.2, 0.8], abs=0.05)
    assert unknown == pytest.approx([0.4, 0.6], abs=0.03)


def test_agrees_with_scikit_learn() -> None:
    predictions, cells, labels = random_frames(500, 20, seed=3)
    metrics = evaluate_predictions(predictions, cells, labels)
    truth, predicted = predictions["truth"], predictions["predicted"]
    report = classification_report(truth, predicted, labels=labels, output_dict=True)
    for label in labels:
        theirs = {"precision": "precision", "recall": "recall", "f1": "f1-score", "support": "support"}
        for ours, name in theirs.items():
            assert metrics["per_class"][label][ours] == pytest.approx(report[label][name])
    assert metrics["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"])
    assert metrics["weighted_f1"] == pytest.approx(report["weighted avg"]["f1-score"])
    assert metrics["mca"] == pytest.approx(balanced_accuracy_score(truth, predicted))
    columns = predictions[[f"p_{label}" for label in labels]].to_numpy()
    assert metrics["nll"] == pytest.approx(log_loss(truth, columns, labels=labels))
    assert metrics["roc_auc"]["macro"] == pytest.approx(
        roc_auc_score(truth, columns, multi_class="ovr", average="macro", labels=labels)
    )
    assert metrics["roc_auc"]["per_class"] == pytest.approx(
        dict(zip(labels, roc_auc_score(truth, columns, multi_class="ovr", average=None, labels=labels), strict=True))
    )
    assert metrics["aca"] == pytest.approx(accuracy_score(truth, predicted))
    assert metrics["confusion"] == confusion_matrix(truth, predicted, labels=labels).tolist()
    accuracies, confidences = calibration_curve(truth == predicted, columns.max(axis=1), n_bins=15)
    filled = [bin_ for bin_ in metrics["reliability"] if bin_["n"]]
    assert [bin_["accuracy"] for bin_ in filled] == pytest.approx(accuracies)
    assert [bin_["confidence"] for bin_ in filled] == pytest.approx(confidences)
    for level, group in predictions.groupby(cells["intensity"]):
        assert metrics["by_intensity"][level] == pytest.approx(
            {
                "n": len(group),
                "aca": accuracy_score(group["truth"], group["predicted"]),
                "mca": recall_score(
                    group["truth"], group["predicted"], labels=group["truth"].unique(), average="macro"
                ),
            }
        )


def test_a_class_without_cells_is_null_and_outside_the_means() -> None:
    metrics = evaluate_predictions(*frames(list("aabb"), list("aabb")), LABELS)
    assert metrics["per_class"]["c"] == {"precision": None, "recall": None, "f1": None, "support": 0}
    assert metrics["mca"] == metrics["macro_f1"] == 1.0
    assert metrics["roc_auc"]["per_class"]["c"] is None
    json.dumps(metrics, allow_nan=False)


@pytest.mark.parametrize(("n", "specimens"), [(1455, 28), (11_000, 83)])
def test_a_thousand_resamples_take_less_than_two_seconds(n: int, specimens: int) -> None:
    predictions, cells, labels = random_frames(n, specimens, seed=1)
    started = time.perf_counter()
    evaluate_predictions(predictions, cells, labels)
    assert time.perf_counter() - started < 2


def break_labels(p: pd.DataFrame, c: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return p.assign(predicted="z"), c


def break_probabilities(p: pd.DataFrame, c: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return p.assign(p_a=np.nan), c


def break_cells(p: pd.DataFrame, c: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return p, c.iloc[1:]


def break_uniqueness(p: pd.DataFrame, c: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return pd.concat([p, p]), c


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (break_labels, "'z'"),
        (break_probabilities, "probabilities"),
        (break_cells, "not in the cell table"),
        (break_uniqueness, "not a one-to-one"),
    ],
)
def test_a_broken_contract_is_a_value_error(broken: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_predictions(*broken(*frames(list("abc"), list("abc"))), LABELS)


@st.composite
def predictions_and_cells(draw: st.DrawFn) -> tuple[pd.DataFrame, pd.DataFrame]:
    n = draw(st.integers(1, 40))
    names = st.lists(st.sampled_from(LABELS), min_size=n, max_size=n)
    specimens = draw(st.none() | st.lists(st.sampled_from(["1", "2", "3", "4"]), min_size=n, max_size=n))
    return frames(draw(names), draw(names), specimens, draw(st.floats(0.34, 1.0)))  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(predictions_and_cells())
def test_properties_of_any_predictions(pair: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    predictions, cells = pair
    metrics = evaluate_predictions(predictions, cells, LABELS, bootstrap=100)
    json.dumps(metrics, allow_nan=False)
    confusion = np.array(metrics["confusion"])
    assert metrics["aca"] == pytest.approx(np.trace(confusion) / confusion.sum())
    assert confusion.sum() == metrics["n"] == sum(entry["n"] for entry in metrics["reliability"])
    for name, (low, high) in metrics["ci95"].items():
        assert 0 <= low <= metrics[name] <= high <= 1
    assert 0 <= metrics["ece"] <= 1
    assert 0 <= metrics["reject_area"] <= 1
    assert metrics["reject_curve"][-1]["coverage"] == 1
    assert metrics["reject_curve"][-1]["accuracy"] == pytest.approx(metrics["aca"])


@settings(max_examples=30, deadline=None)
@given(predictions_and_cells(), st.randoms(use_true_random=False))
def test_the_order_of_the_cells_changes_nothing(pair: tuple[pd.DataFrame, pd.DataFrame], random: Any) -> None:
    predictions, cells = pair
    order = list(range(len(predictions)))
    random.shuffle(order)
    shuffled = evaluate_predictions(predictions.iloc[order], cells.iloc[order[::-1]], LABELS, bootstrap=50)
    assert shuffled == evaluate_predictions(predictions, cells, LABELS, bootstrap=50)


@pytest.mark.parametrize("specimens", [None, [str(i // 10) for i in range(100)]])
def test_intervals_over_equal_seeds_are_those_of_one(specimens: list[str | None] | None) -> None:
    predictions, cells = frames(["a", "b"] * 50, (["a", "b"] * 25) + (["b", "a"] * 25), specimens)
    one = evaluate_predictions(predictions, cells, LABELS)
    several = intervals_over_seeds([predictions] * 3, cells, LABELS)
    assert several["ci95_method"] == one["ci95_method"]
    for name, bounds in several["ci95"].items():
        assert bounds == pytest.approx(one["ci95"][name])


def test_intervals_over_seeds_hold_the_means_and_are_of_the_same_cells() -> None:
    # One seed right on the one half of the specimens, one on the other: their mean is 1/2 whatever is drawn.
    truth, right = ["a", "b"] * 50, [True] * 50 + [False] * 50
    wrong = {"a": "b", "b": "a"}
    seeds = [
        frames(truth, [t if hit == chosen else wrong[t] for t, hit in zip(truth, right, strict=True)])[0]
        for chosen in (True, False)
    ]
    cells = frames(truth, truth, [str(i // 10) for i in range(100)])[1]
    assert intervals_over_seeds(seeds, cells, LABELS)["ci95"]["aca"] == pytest.approx([0.5, 0.5])
    with pytest.raises(ValueError, match="not all of the same cells"):
        intervals_over_seeds([seeds[0], seeds[1].iloc[1:]], cells, LABELS)
