"""What an evaluation leaves for the eye, and the report that shows it: real store, a tiny network."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hep2flow.cells import decode_png
from hep2flow.recipe import Recipe, load_recipe
from hep2flow.sources.synthetic import write_twin
from hep2flow.stages.evaluate import evaluate
from hep2flow.stages.evaluation_images import SHOWN, augmented_batch
from hep2flow.stages.ingest import ingest
from hep2flow.stages.mask import mask
from hep2flow.stages.report import report
from hep2flow.stages.split import split
from hep2flow.store import layout
from hep2flow.store.datasets import Dataset, open_dataset
from hep2flow.store.s3 import Store
from hep2flow.store.splits import Split, read_split
from hep2flow.training.checkpoint import Description

from .conftest import RUN, Finished


def read(store: Store, finished: Finished, name: str) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(store.get_bytes(f"{store.key(finished.evaluation)}/{name}.parquet")))


def test_an_evaluation_leaves_its_most_confident_mistakes(finished: Finished, finished_store: Store) -> None:
    mistakes = read(finished_store, finished, "mistakes")
    predictions = read(finished_store, finished, "predictions")
    wrong = predictions[predictions["truth"] != predictions["predicted"]]
    assert 0 < len(mistakes) <= 12
    assert list(mistakes) == ["cell_id", "truth", "predicted", "confidence", "seen", "heat"]
    assert mistakes["confidence"].iloc[0] == wrong[[name for name in wrong if name.startswith("p_")]].to_numpy().max()
    assert mistakes["confidence"].is_monotonic_decreasing
    size = finished.recipe.model.image_size
    for mistake in mistakes.to_dict("records"):
        heat, seen = decode_png(mistake["heat"]), decode_png(mistake["seen"])
        assert heat.shape == (size, size)
        assert heat.dtype == np.uint8
        assert seen.shape[:2] == (size, size)
        assert heat.max() in (0, 255)
    # Masked cells: the network never saw what lies outside.
    assert decode_png(mistakes["seen"].iloc[0])[0, 0].max() == 0


def test_the_same_evaluation_leaves_the_same_pictures(finished: Finished, finished_store: Store) -> None:
    prefix = finished_store.key(finished.evaluation)
    before = {name: finished_store.get_bytes(f"{prefix}/{name}.parquet") for name in ("mistakes", "batch")}
    key = prefix.rsplit("/", 1)[1]
    finished_store.delete([layout.cache_key("evaluate", key)])
    again = evaluate(finished_store, finished.recipe, finished.training, finished.masked, finished.split)
    assert not again.cached
    assert finished_store.key(again.uri) == prefix
    for name, data in before.items():
        assert finished_store.get_bytes(f"{prefix}/{name}.parquet") == data


def test_the_report_shows_them_and_does_without_them(finished: Finished, finished_store: Store) -> None:
    def page() -> str:
        finished_store.delete_folder("cache/report")  # one that is there is taken
        made = report(finished_store, RUN, [finished.evaluation])
        return finished_store.get_bytes(f"{finished_store.key(made.uri)}/index.html").decode()

    file = finished.recipe.family
    shown = page()
    assert f'id="figure-mistakes-{file}"' in shown
    assert f'id="figure-batch-{file}"' in shown
    prefix = finished_store.key(finished.evaluation)
    whole = {name: finished_store.get_bytes(f"{prefix}/{name}.parquet") for name in ("mistakes", "batch")}
    finished_store.delete(f"{prefix}/{name}.parquet" for name in whole)
    try:
        assert "figure-mistakes" not in page()
    finally:
        for name, data in whole.items():
            finished_store.put_bytes(f"{prefix}/{name}.parquet", data)


@pytest.fixture
def cells(store: Store, tmp_path: Path) -> tuple[Dataset, Split]:
    write_twin(tmp_path / "twin", seed=0, specimens=12)
    dataset = mask(store, ingest(store, str(tmp_path / "twin")).uri).uri
    division = split(store, dataset, load_recipe("convnext-b", "laptop").data.split).uri
    return open_dataset(store, dataset), read_split(store, division)


def batch_of(cells: tuple[Dataset, Split], *overrides: str) -> pd.DataFrame:
    off = ["augment.horizontal_flip=0", "augment.vertical_flip=0", "augment.quarter_turns=false"]
    recipe: Recipe = load_recipe("convnext-b", "laptop", [*off, *overrides])
    dataset, division = cells
    return augmented_batch(dataset, division, Description(recipe, dataset.manifest["labels"], dataset.manifest["bits"]))


def images(table: pd.DataFrame) -> np.ndarray:
    return np.stack([np.broadcast_to(decode_png(png).reshape(64, 64, -1), (64, 64, 3)) for png in table["image"]])


def test_a_batch_is_what_its_recipe_makes_of_training_cells(cells: tuple[Dataset, Split]) -> None:
    plain = batch_of(cells)
    assert len(plain) == SHOWN
    assert set(plain["cell_id"]) <= set(cells[1].ids("train"))
    assert plain["mixed_with"].isna().all()

    holed = batch_of(cells, "augment.cutout={side: 0.5}")
    assert holed["cell_id"].tolist() == plain["cell_id"].tolist()
    changed = images(holed) != images(plain)
    assert changed.any(axis=(1, 2, 3)).all()
    # A hole is filled with the mean, 0.5 before normalisation.
    assert set(np.unique(images(holed)[changed])) <= {127, 128}
    pd.testing.assert_frame_equal(batch_of(cells, "augment.cutout={side: 0.5}"), holed)

    mixed = batch_of(cells, "batch.mixup=0.8")
    assert mixed["mixed_with"].notna().all()
    assert (images(mixed) != images(plain)).any()
    other = batch_of(cells, "train.seed=5")
    assert other["cell_id"].tolist() != plain["cell_id"].tolist()
