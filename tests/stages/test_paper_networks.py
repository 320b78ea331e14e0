"""The paper's two networks at full size through the real train stage, from safetensors that the test writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from hep2flow.recipe import load_recipe
from hep2flow.stages.ingest import ingest
from hep2flow.stages.split import split
from hep2flow.stages.train import train
from hep2flow.store.s3 import Store

pytestmark = pytest.mark.usefixtures("ray_cluster")


def few_cells(store: Store, folder: Path) -> tuple[str, str]:
    """A data set of four drawn cells of two patterns, two to train on and two to validate."""
    random = np.random.default_rng(0)
    for pattern in ("homogeneous", "nucleolar"):
        for number in range(2):
            path = folder / "cells" / pattern / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 255, (70, 60), dtype=np.uint8)).save(path)
    dataset = ingest(store, str(folder / "cells")).uri
    return dataset, split(store, dataset, load_recipe("convnext-b").data.split).uri


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "network", "head", "rate"),
    [("convnext-b", "convnext_base", "head.fc", 4e-6), ("coat-mini", "coat_mini", "head", 1e-5)],
)
def test_one_update_at_224_pixels_from_local_weights(
    name: str, network: str, head: str, rate: float, store: Store, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    given = timm.create_model(network, num_classes=1000).state_dict()
    weights = tmp_path / "given.safetensors"
    save_file({key: tensor.clone().contiguous() for key, tensor in given.items()}, weights)
    recipe = load_recipe(
        name,
        overrides=[
            f"model.weights={weights}",
            "train.max_updates=1",
            "train.loader_workers=0",
            "resources.gpus_per_worker=0",
            "resources.cpus_per_worker=2",
        ],
    )
    dataset, division = few_cells(store, tmp_path)
    trained = train(store, recipe, dataset, division)

    manifest = store.get_json(f"{store.key(trained.uri)}/manifest.json")
    assert manifest["updates"] == 1
    assert manifest["weights_replaced"] == [f"{head}.weight", f"{head}.bias"]
    assert manifest["weights"]["origin"] == "given.safetensors"
    kept = tmp_path / "best.safetensors"
    store.get_file(f"{store.key(trained.uri)}/best.safetensors", kept)
    best = load_file(kept)
    assert best[f"{head}.weight"].shape[0] == 2
    moved = {
        key: float((tensor - given[key]).abs().max()) for key, tensor in best.items() if not key.startswith(f"{head}.")
    }
    # Adam's first step moves a weight by the rate at most, AdamP's by a little more where it decays; float32 rounds.
    assert max(moved.values()) < 2 * rate
    assert sum(change > 0 for change in moved.values()) > 0.8 * len(moved)
