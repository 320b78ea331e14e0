"""Training and evaluation as stages: real Ray Train, real store, a tiny network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hep2flow.errors import UserError
from hep2flow.recipe import Recipe, load_recipe
from hep2flow.sources.synthetic import write_twin
from hep2flow.stages.artifacts import read_history
from hep2flow.stages.evaluate import evaluate
from hep2flow.stages.ingest import ingest
from hep2flow.stages.split import split
from hep2flow.stages.train import train
from hep2flow.store import layout
from hep2flow.store.datasets import open_dataset
from hep2flow.store.s3 import Store
from hep2flow.training.trainer import Epoch

pytestmark = pytest.mark.usefixtures("ray_cluster")


def tiny(*overrides: str) -> Recipe:
    small = ["model.network=test_convnext", "model.layer_scale=null", "train.max_updates=6", "eval.tta=none"]
    return load_recipe("convnext-b", "laptop", [*small, *overrides])


def prepared(store: Store, folder: Path, recipe: Recipe) -> tuple[str, str]:
    write_twin(folder / "twin", seed=0, specimens=12)
    dataset = ingest(store, str(folder / "twin")).uri
    return dataset, split(store, dataset, recipe.data.split).uri


def test_training_never_reads_a_test_cell_and_is_remembered(store: Store, tmp_path: Path) -> None:
    recipe = tiny()
    dataset, division = prepared(store, tmp_path, recipe)
    opened = open_dataset(store, dataset)
    whole: dict[str, bytes] = {}
    for part in opened.manifest["parts"]:
        if part["official_split"] == "test":
            key = f"{store.key(dataset)}/{part['file']}"
            whole[key] = store.get_bytes(key)
            store.put_bytes(key, b"\0" * len(whole[key]))  # whoever reads it is told
    announced: list[str] = []
    trained = train(store, recipe, dataset, division, announced.append)
    assert not trained.cached
    assert announced == [trained.key]
    assert trained.uri == store.uri(layout.output_prefix("train", trained.key))

    history = read_history(store, trained.uri)
    assert [Epoch(**epoch).updates for epoch in history][-1] == 6
    manifest = store.get_json(f"{store.key(trained.uri)}/manifest.json")
    assert manifest["best"] == [epoch for epoch in history if epoch["best"]][-1]
    assert set(manifest["files"]) == {
        "best.safetensors",
        "metrics.jsonl",
        "recipe.yaml",
        "tensorboard/events.out.tfevents.hep2flow",
    }
    assert not [item.key for item in store.list_objects(store.key(trained.uri)) if "/live/" in item.key]

    again = train(store, recipe, dataset, division, announced.append)
    assert again.cached
    assert again.uri == trained.uri
    assert len(announced) == 1

    with pytest.raises(UserError):
        evaluate(store, recipe, trained.uri, dataset, division)
    for key, data in whole.items():
        store.put_bytes(key, data)
    evaluated = evaluate(store, recipe, trained.uri, dataset, division)
    metrics = json.loads(store.get_bytes(f"{store.key(evaluated.uri)}/metrics.json"))
    assert metrics["subset"] == "test"
    assert metrics["n"] == sum(opened.manifest["counts"]["test"].values())


def test_what_ray_cannot_give_is_refused_with_the_recipes_key(store: Store, tmp_path: Path) -> None:
    recipe = tiny("resources.gpus_per_worker=64")
    dataset, division = prepared(store, tmp_path, recipe)
    with pytest.raises(UserError, match=r"resources\.gpus_per_worker: the recipe asks for 64 GPUs"):
        train(store, recipe, dataset, division)
    assert not [item.key for item in store.list_objects("trainings")]


def test_weights_that_cannot_be_had_are_refused_before_any_data(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    recipe = tiny(f"model.weights={tmp_path / 'none.safetensors'}")
    with pytest.raises(UserError, match="there is no file"):
        train(store, recipe, "s3://nowhere/datasets/x/y", "s3://nowhere/splits/z.parquet")
    with pytest.raises(UserError, match=r"timm's hub|has no pre-trained weights"):
        train(store, load_recipe("coat-mini", "paper"), "s3://nowhere/datasets/x/y", "s3://nowhere/splits/z.parquet")
