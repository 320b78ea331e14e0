"""The report stage on evaluations that the test writes: no training, a real store."""

from __future__ import annotations

import io
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

from hep2flow.recipe import Recipe, load_recipe
from hep2flow.sources.synthetic import write_twin
from hep2flow.stages.ingest import ingest
from hep2flow.stages.report import report
from hep2flow.stages.split import split
from hep2flow.store.datasets import open_dataset
from hep2flow.store.publish import publish
from hep2flow.store.runs import RunRecord, start_run
from hep2flow.store.s3 import Store
from tests.reporting.content import make_model

WEIGHTS = {"origin": "timm/convnext_atto.d2_in1k@abc123", "sha256": "5e" * 32, "network": "convnext_atto.d2_in1k"}


def published(store: Store, folder: Path, prefix: str, files: dict[str, bytes], facts: dict[str, Any]) -> str:
    """A folder of files in the store with its manifest; returns its URI."""
    for name, data in files.items():
        (folder / prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / prefix / name).write_bytes(data)
    publish(store, folder / prefix, prefix, facts)
    return store.uri(prefix)


def evaluated(store: Store, folder: Path, recipe: Recipe, weights: dict[str, Any] | None, **inputs: str) -> str:
    """URI of an evaluation of invented predictions, as the evaluate stage leaves it."""
    seed = recipe.train.seed
    opened = open_dataset(store, inputs["dataset"])
    labels = opened.manifest["labels"]
    made = make_model(
        opened.table(), labels, recipe.name, recipe.model.network, 2.9, seed, seed=seed, protocol="stratified"
    )
    history = "\n".join(json.dumps(epoch) for epoch in made.history).encode()
    replaced = [] if weights is None else ["head.fc.weight", "head.fc.bias"]
    training = published(
        store,
        folder,
        f"trainings/{recipe.name}",
        {"metrics.jsonl": history},
        {"kind": "training", "weights": weights, "weights_replaced": replaced, "hardware": {"cpus": 2}},
    )
    buffer = io.BytesIO()
    made.predictions.to_parquet(buffer, index=False)
    files = {"metrics.json": json.dumps(made.metrics).encode(), "predictions.parquet": buffer.getvalue()}
    facts = {"kind": "evaluation", "training": training, "recipe": recipe.model_dump(mode="json"), **inputs}
    return published(store, folder, f"evaluations/{recipe.name}", files, facts)


def test_seeds_of_one_recipe_are_reported_together_and_each_by_its_beginning(store: Store, tmp_path: Path) -> None:
    recipes = [
        *load_recipe("convnext-b", "laptop").with_seeds(3),
        *load_recipe("coat-mini", "laptop").with_seeds(1),
    ]
    write_twin(tmp_path / "twin", seed=0, specimens=12)
    dataset = ingest(store, str(tmp_path / "twin")).uri
    division = split(store, dataset, recipes[0].data.split).uri
    start_run(
        store, RunRecord(run_id="seeds", recipes={recipe.name: recipe.model_dump(mode="json") for recipe in recipes})
    )
    evaluations = [
        evaluated(
            store,
            tmp_path,
            recipe,
            WEIGHTS if recipe.name == "convnext-b-seed-1" else None,
            dataset=dataset,
            split=division,
        )
        for recipe in recipes
    ]

    made = report(store, "seeds", evaluations)
    metrics = [store.get_json(f"{store.key(uri)}/metrics.json") for uri in evaluations]
    first, second = (recipes[index].model_copy(update={"name": recipes[index].family}).title for index in (0, 3))
    assert set(made.summary["models"]) == {first, second}
    assert "seed" not in first
    aca = [found["aca"] for found in metrics[:3]]
    assert made.summary["models"][first]["aca"] == pytest.approx(mean(aca))
    assert made.summary["models"][first]["aca_sd"] == pytest.approx(stdev(aca))
    assert made.summary["models"][first]["seeds"] == 3
    assert made.summary["models"][second] == {name: metrics[3][name] for name in ("aca", "mca", "macro_f1")}

    prefix = store.key(made.uri)
    manifest = store.get_json(f"{prefix}/manifest.json")
    assert manifest["evaluations"] == evaluations
    assert manifest["selected_on_test"] is False
    assert {"model-card-convnext-b.md", "model-card-coat-mini.md", "summary.md", "index.html"} <= set(manifest["files"])
    page = store.get_bytes(f"{prefix}/index.html").decode()
    provenance = page[page.index('<section id="provenance">') :]
    for words in (
        "convnext-b-seed-0 (",
        "random, trained from scratch",
        "timm/convnext_atto.d2_in1k@abc123",
        "head.fc.weight, head.fc.bias",
        "5e" * 32,
        "stratified",
    ):
        assert words in provenance


def test_a_report_of_the_same_evaluations_is_taken_and_tells_of_its_own_run(store: Store, tmp_path: Path) -> None:
    recipe = load_recipe("convnext-b", "laptop")
    write_twin(tmp_path / "twin", seed=0, specimens=12)
    dataset = ingest(store, str(tmp_path / "twin")).uri
    division = split(store, dataset, recipe.data.split).uri
    for run_id in ("former", "later"):
        start_run(store, RunRecord(run_id=run_id, recipes={recipe.name: recipe.model_dump(mode="json")}))
    evaluations = [evaluated(store, tmp_path, recipe, WEIGHTS, dataset=dataset, split=division)]

    def made(run_id: str) -> tuple[dict[str, Any], dict[str, bytes]]:
        result = report(store, run_id, evaluations)
        prefix = store.key(result.uri)
        names = store.get_json(f"{prefix}/manifest.json")["files"]
        return result.summary, {name: store.get_bytes(f"{prefix}/{name}") for name in names}

    former, taken = made("former"), made("later")
    (entry,) = [item.key for item in store.list_objects("cache/report")]
    assert store.get_json(entry)["output"]["uri"].endswith("runs/former/report")
    store.delete([entry])
    assert taken == made("later"), "as one that is made anew"
    assert taken[0] == former[0]
    different = {name for name, data in taken[1].items() if data != former[1][name]}
    assert different == {"index.html", f"model-card-{recipe.family}.md"}
    for name in different:
        assert b"later" in taken[1][name]
        assert b"former" not in taken[1][name]
