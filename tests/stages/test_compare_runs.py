"""``hep2flow runs compare`` on evaluations that the test writes: no training, a real store, the real command."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest

from hep2flow.evaluation.metrics import evaluate_predictions
from hep2flow.recipe import Recipe, load_recipe
from hep2flow.stages.mask import mask
from hep2flow.stages.split import split
from hep2flow.store.runs import RunRecord, start_run
from hep2flow.store.s3 import Store
from hep2flow.store.stage_recorder import running_stage
from tests.stages.cells_in_store import publish
from tests.stages.test_report import published
from tests.test_cli import hep2flow

PATTERNS = ["centromere", "homogeneous"]
CONVNEXT, COAT = (load_recipe(name, "laptop") for name in ("convnext-b", "coat-mini"))
SPECIMENS, EACH = 8, 5  # of either subset; 40 test cells


def cells(training: int = SPECIMENS) -> pd.DataFrame:
    """Cells of so many training specimens, and of SPECIMENS test specimens."""
    rows = [
        (f"{subset}-{specimen}-{cell}", subset, PATTERNS[specimen % 2], f"{subset}{specimen}")
        for subset, specimens in (("train", training), ("test", SPECIMENS))
        for specimen in range(specimens)
        for cell in range(EACH)
    ]
    return pd.DataFrame(rows, columns=["cell_id", "official_split", "pattern", "specimen_id"]).assign(intensity=None)


class Made:
    """A store with runs whose models are right wherever the test says."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store, self._folder = store, folder
        self.dataset = self.publish("cells", cells())

    def publish(self, name: str, table: pd.DataFrame, grey: int = 0) -> str:
        return publish(self._store, self._folder / name, table, grey=grey)

    def masked(self) -> str:
        return mask(self._store, self.dataset).uri

    def run(
        self, run_id: str, models: Mapping[str, list[int]], recipes: Mapping[str, Recipe], dataset: str = ""
    ) -> None:
        """models: recipe's name -> how many of the five cells of each test specimen it has right; others have none"""
        dataset = dataset or self.dataset
        division = split(self._store, dataset, CONVNEXT.data.split).uri
        start_run(
            self._store,
            RunRecord(run_id=run_id, recipes={name: recipes[name].model_dump(mode="json") for name in models}),
        )
        for name, right in models.items():
            uri = self._evaluation(run_id, recipes[name], right, {"dataset": dataset, "split": division})
            with running_stage(self._store, run_id, "evaluate", name) as record:
                record.result = {"uri": uri}

    def _evaluation(self, run_id: str, recipe: Recipe, right: list[int], inputs: dict[str, str]) -> str:
        table = cells()
        test = table[table["official_split"] == "test"].head(EACH * len(right))
        hits = [cell < count for count in right for cell in range(EACH)]
        other = test["pattern"].map(dict(zip(PATTERNS, PATTERNS[::-1], strict=True)))
        predictions = pd.DataFrame(
            {"cell_id": test["cell_id"], "truth": test["pattern"], "predicted": test["pattern"].where(hits, other)}
        )
        for label in PATTERNS:
            predictions[f"p_{label}"] = (predictions["predicted"] == label) * 0.8 + 0.1
        metrics = evaluate_predictions(predictions, table, PATTERNS) | {
            "seed": recipe.train.seed,
            "network": recipe.model.network,
            "profile": "laptop",
            "paper_model": False,
            "subset": "test",
            "selected_on_test": False,
        }
        training = published(
            self._store, self._folder, f"trainings/{run_id}-{recipe.name}", {"metrics.jsonl": b""}, {"kind": "training"}
        )
        buffer = io.BytesIO()
        predictions.to_parquet(buffer, index=False)
        files = {"metrics.json": json.dumps(metrics).encode(), "predictions.parquet": buffer.getvalue()}
        facts = {"kind": "evaluation", "training": training, "recipe": recipe.model_dump(mode="json"), **inputs}
        return published(self._store, self._folder, f"evaluations/{run_id}-{recipe.name}", files, facts)


BOTH = {"convnext-b": CONVNEXT, "coat-mini": COAT}


@pytest.fixture
def made(store: Store, tmp_path: Path) -> Made:
    return Made(store, tmp_path)


def test_two_runs_are_compared_recipe_by_recipe(made: Made, tmp_path: Path) -> None:
    faster = load_recipe("convnext-b", "laptop", ["optim.lr=0.5"])
    # Six of eight specimens gain a cell, one loses one: of 128 ways, 7 or 5 and their opposites are 2 * (1 + 7).
    made.run("before", {"convnext-b": [3, 3, 3, 3, 3, 3, 3, 3], "coat-mini": [5] * 8}, BOTH)
    made.run("after", {"convnext-b": [4, 4, 4, 4, 4, 4, 2, 3]}, {"convnext-b": faster}, made.masked())

    compared = hep2flow("runs", "compare", "after", "before", "--json").json()
    assert compared["runs"] == ["after", "before"]
    assert compared["each_best"] is False
    assert compared["unpaired"] == {"before": ["coat-mini"]}
    (found,) = compared["comparisons"]
    assert found["n"] == 40
    assert (found["first"]["run"], found["second"]["run"]) == ("after", "before")
    assert (found["first"]["aca"], found["second"]["aca"]) == (29 / 40, 24 / 40)
    assert found["difference"] == pytest.approx(5 / 40)
    assert found["permutation"]["p"] == 16 / 128
    assert (found["mcnemar"]["first_only"], found["mcnemar"]["second_only"]) == (6, 1)
    assert found["recipes"] == {"optim.lr": ["0.5", f"{CONVNEXT.optim.lr:.6g}"]}
    assert found["first"]["dataset"] != found["second"]["dataset"]

    answer = hep2flow("runs", "compare", "after", "before", "--out", tmp_path / "new" / "compared.md")
    assert (answer.code, answer.err) == (0, "")
    assert (tmp_path / "new" / "compared.md").read_text(encoding="utf-8") == answer.out
    low, high = found["ci95"]
    for words in (
        "# after against before",
        "Only in before: coat-mini.",
        "| 72.5 % (",
        f"+12.5 [{100 * low:.1f}, {100 * high:.1f}]",
        f"- The difference of 12.5 points is inside the noise: p = 0.12, interval [{100 * low:.1f}, {100 * high:.1f}].",
        "8 specimens, 7 of them not 0",
        "optim.lr",
        found["first"]["dataset"],
        found["second"]["split"],
    ):
        assert words in answer.out
    turned = hep2flow("runs", "compare", "before", "after", "--json").json()["comparisons"][0]
    assert (turned["difference"], turned["permutation"]) == (pytest.approx(-5 / 40), found["permutation"])


def test_runs_without_a_recipe_in_common_send_their_best(made: Made) -> None:
    made.run("one", {"convnext-b": [3] * 8}, BOTH)
    made.run(
        "other", {"coat-mini": [4] * 8, "third": [2] * 8}, {**BOTH, "third": COAT.model_copy(update={"name": "third"})}
    )
    compared = hep2flow("runs", "compare", "one", "other", "--json").json()
    (found,) = compared["comparisons"]
    assert compared["each_best"] is True
    assert (found["first"]["recipe"], found["second"]["recipe"]) == ("convnext-b", "coat-mini")
    assert found["outside_noise"] is True
    text = hep2flow("runs", "compare", "one", "other").out
    assert "share no recipe's name: the best of each is compared" in text
    assert "The difference of -20.0 points is outside the noise: p = 0.0078, interval [-20.0, -20.0]." in text


def test_a_run_is_compared_with_itself_model_by_model(made: Made) -> None:
    seeds = {f"convnext-b-seed-{seed}": recipe for seed, recipe in enumerate(CONVNEXT.with_seeds(2))}
    recipes = {**seeds, "coat-mini": COAT}
    made.run("run", {"convnext-b-seed-0": [4] * 8, "convnext-b-seed-1": [5] * 8, "coat-mini": [3] * 8}, recipes)
    (found,) = hep2flow("runs", "compare", "run", "run", "--json").json()["comparisons"]
    assert (found["first"]["recipe"], found["first"]["seeds"]) == ("convnext-b", [0, 1])
    assert found["difference"] == pytest.approx((4.5 - 3) / 5)
    assert found["mcnemar"]["seeds"][0] == 0  # of two seeds the worse stands for both
    assert found["mcnemar"]["first_only"] == 8
    assert found["recipes"]["train.seed"][0] == "0, 1"


def test_what_cannot_be_compared_is_refused_in_one_line(store: Store, made: Made, tmp_path: Path) -> None:
    made.run("whole", {"convnext-b": [3] * 8}, BOTH)
    made.run("part", {"convnext-b": [3] * 7}, BOTH)
    made.run("others", {"convnext-b": [3] * 8}, BOTH, made.publish("grey", cells(), grey=9))
    start_run(store, RunRecord(run_id="begun"))
    for arguments, words in {
        ("whole", "part"): "runs whole and part: were evaluated on different cells (40 and 35, 35 in common)",
        ("whole", "others"): "different cells (40 of 40 with the same id are other images)",
        ("whole", "begun"): "run begun: has no finished evaluation",
        ("whole", "nobody"): "there is no such run",
        ("whole", "whole"): "run whole: has one model only, so there is nothing to compare",
    }.items():
        answer = hep2flow("runs", "compare", *arguments)
        assert (answer.code, answer.out) == (2, "")
        (line,) = answer.err.splitlines()
        assert words in line
    made.run("again", {"convnext-b": [3] * 8}, BOTH)
    answer = hep2flow("runs", "compare", "whole", "again", "--out", tmp_path)
    assert (answer.code, answer.out) == (2, "")
    assert f"--out {tmp_path}: cannot be written (Is a directory)" in answer.err


def test_equal_images_are_the_same_cells_in_another_data_set(made: Made) -> None:
    # More cells for training, the same ones for the test.
    made.run("few", {"convnext-b": [3] * 8}, BOTH)
    made.run("many", {"convnext-b": [3] * 8}, BOTH, made.publish("more", cells(training=12)))
    (found,) = hep2flow("runs", "compare", "few", "many", "--json").json()["comparisons"]
    assert found["sentence"] == "The difference of 0.0 points is inside the noise: p = 1, interval [0.0, 0.0]."
    assert found["recipes"] == {}
