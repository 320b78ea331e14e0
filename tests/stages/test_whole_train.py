"""Protocol whole-train (the paper's Appendix A), from split to report: nothing leaves it without saying what it is."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors import safe_open

from hep2flow.recipe import load_recipe
from hep2flow.selected_on_test import OPTIMISTIC_WARNING
from hep2flow.sources.synthetic import write_twin
from hep2flow.stages.evaluate import evaluate
from hep2flow.stages.ingest import ingest
from hep2flow.stages.report import report
from hep2flow.stages.split import split
from hep2flow.stages.train import train
from hep2flow.store.runs import RunRecord, start_run
from hep2flow.store.s3 import Store

SMALL = ["model.network=test_convnext", "model.layer_scale=null", "train.max_updates=2", "eval.tta=none"]


pytestmark = pytest.mark.usefixtures("ray_cluster")


def text(data: bytes) -> str:
    """What a reader reads of a page, a figure or a text, in small letters and on one line."""
    return " ".join(re.sub(r"<[^>]+>", " ", data.decode()).split()).lower()


@pytest.mark.parametrize("protocol", ["whole-train", "stratified"])
def test_every_artifact_says_whether_it_was_selected_on_the_test_set(
    protocol: str, store: Store, tmp_path: Path
) -> None:
    on_test = protocol == "whole-train"
    recipe = load_recipe("convnext-b", "laptop", [*SMALL, f"data.split.protocol={protocol}"])
    write_twin(tmp_path / "twin", seed=0, specimens=12)
    dataset = ingest(store, str(tmp_path / "twin")).uri
    division = split(store, dataset, recipe.data.split).uri
    trained = train(store, recipe, dataset, division)
    evaluated = evaluate(store, recipe, trained.uri, dataset, division)
    start_run(store, RunRecord(run_id="run", recipes={recipe.name: recipe.model_dump(mode="json")}))
    reported = report(store, "run", [evaluated.uri])

    told = {}
    for result in (trained, evaluated, reported):
        told[f"{result.stage} manifest"] = store.get_json(f"{store.key(result.uri)}/manifest.json")
    told["metrics"] = store.get_json(f"{store.key(evaluated.uri)}/metrics.json")
    for name, key in {
        "split": store.key(division),
        "predictions": f"{store.key(evaluated.uri)}/predictions.parquet",
    }.items():
        metadata = pq.read_schema(io.BytesIO(store.get_bytes(key))).metadata
        told[name] = {
            key: json.loads(metadata[key.encode()])
            for key in ("selected_on_test", "warning")
            if key.encode() in metadata
        }
    store.get_file(f"{store.key(trained.uri)}/best.safetensors", tmp_path / "best.safetensors")
    with safe_open(tmp_path / "best.safetensors", framework="pt") as file:
        told["checkpoint"] = json.loads(file.metadata()["hep2flow"])
    for name, facts in told.items():
        assert facts["selected_on_test"] is on_test, name
        assert facts.get("warning") == (OPTIMISTIC_WARNING if on_test else None), name
    for result in (evaluated, reported):
        assert result.summary["selected_on_test"] is on_test

    read = [
        item.key
        for uri in (evaluated.uri, reported.uri)
        for item in store.list_objects(store.key(uri))
        if item.key.endswith((".svg", ".md", ".html"))
    ]
    assert {key.rsplit("/", 1)[1] for key in read} >= {
        "confusion_matrix.svg", "learning_curves.svg", "scores.svg", "masking.svg", "summary.md", "index.html",
        "model-card-convnext-b.md",
    }  # fmt: skip
    for key in read:
        assert (OPTIMISTIC_WARNING in text(store.get_bytes(key))) is on_test, key
    # In the heading, above everything that could be scrolled to.
    page = store.get_bytes(f"{store.key(reported.uri)}/index.html").decode()
    assert (OPTIMISTIC_WARNING in text(page[page.index("<h1>") : page.index("</h1>")].encode())) is on_test
