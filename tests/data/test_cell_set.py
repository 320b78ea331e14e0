"""Cells in memory: what a network is shown, and that loader workers change nothing of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from hep2flow.cells import encode_png
from hep2flow.data import cell_set as module
from hep2flow.data.batch import BatchMixer
from hep2flow.data.cell_set import CellSet, required_columns, to_rgb8
from hep2flow.data.sampling import training_keys
from hep2flow.recipe import load_recipe
from tests.training.builders import cell_set, tiny


@pytest.mark.parametrize("name", ["convnext-b", "coat-mini"])
@pytest.mark.parametrize("workers", [1, 2])
def test_loader_workers_do_not_change_a_single_pixel(name: str, workers: int) -> None:
    cells = cell_set(load_recipe(name, "paper", ["model.image_size=64", "model.aux_features=[radius]"]))
    keys = training_keys(cells.labels, epoch=1, batch_size=5, seed=0, sampler="none")
    alone, beside = list(cells.batches(keys, workers=0)), list(cells.batches(keys, workers=workers))
    assert [len(batch.images) for batch in alone] == [5, 5, 2]
    for one, other in zip(alone, beside, strict=True):
        for ours, theirs in zip(one, other, strict=True):
            assert torch.equal(ours, theirs)


def test_validation_images_are_resized_and_normalised_and_nothing_else() -> None:
    recipe = load_recipe("coat-mini", "paper", ["model.image_size=64"])
    grey = np.full((40, 30), 51, dtype=np.uint8)
    cells = CellSet([{"cell_id": "c", "pattern": "a", "image": encode_png(grey)}], ["a"], 8, recipe, training=False)
    image, features, label = cells[7, 0, 0]
    assert label == 0
    assert features.shape == (0,)
    torch.testing.assert_close(image, torch.full((3, 64, 64), (51 / 255 - 0.5) / 0.25))


@pytest.mark.parametrize(
    ("name", "filter_"), [("bicubic", Image.Resampling.BICUBIC), ("bilinear", Image.Resampling.BILINEAR)]
)
def test_cells_are_resized_as_pillow_resizes_them(name: str, filter_: Image.Resampling) -> None:
    recipe = load_recipe("coat-mini", "paper", ["model.image_size=64", f"data.interpolation={name}"])
    # Far from black and white, where Pillow clips between its two passes.
    pixels = np.random.default_rng(0).integers(64, 192, (90, 70, 3), dtype=np.uint8)
    cells = CellSet([{"cell_id": "c", "pattern": "a", "image": encode_png(pixels)}], ["a"], 8, recipe, training=False)
    shown = cells[1, 0, 0][0].permute(1, 2, 0).numpy() * 0.25 + 0.5
    expected = np.asarray(Image.fromarray(pixels).resize((64, 64), filter_)) / 255
    # Both round weights to integers of their own.
    assert np.abs(shown - expected).max() < 1.5 / 255


@pytest.mark.parametrize("name", ["convnext-b", "coat-mini"])
def test_a_grey_cell_stays_grey_whatever_is_drawn(name: str) -> None:
    grey = np.random.default_rng(0).integers(0, 255, (40, 30), dtype=np.uint8)
    recipe = load_recipe(name, "paper", ["model.image_size=32"])
    cells = CellSet([{"cell_id": "c", "pattern": "a", "image": encode_png(grey)}], ["a"], 8, recipe, training=True)
    for epoch in range(1, 21):
        image, _, _ = cells[epoch, 0, 0]
        torch.testing.assert_close(image, image[:1].expand(3, -1, -1), rtol=0, atol=2.1 / 255 / 0.25)


def test_grey_becomes_three_equal_channels() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    image = to_rgb8(encode_png(grey), bits=8)
    assert image.shape == (3, 3, 4)
    assert all(np.array_equal(channel, grey) for channel in image.numpy())


def test_a_twelve_bit_camera_reaches_white() -> None:
    deep = np.array([[0, 4095]], dtype=np.uint16)
    assert to_rgb8(encode_png(deep), bits=12)[:, 0].tolist() == [[0, 255]] * 3


def test_masks_are_read_only_where_they_are_measured() -> None:
    assert "mask" not in required_columns(tiny())
    assert "mask" in required_columns(tiny("model.aux_features=[area]"))


META = torch.device("meta")
"""Knows shapes and places, and has no pixel to be asked for: what runs on it never waits for a GPU."""


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["convnext-b", "coat-mini"])
def test_on_a_gpu_every_operation_runs_there_and_asks_for_no_pixel(name: str, training: bool) -> None:
    keys = ["model.image_size=64", "train.loader_workers=0", "augment.quarter_turns=true", "augment.cutout={}"]
    recipe = load_recipe(name, "paper", [*keys, "augment.rand_augment=null", "batch.mixup=0.8"])
    cells = cell_set(recipe, training=training)
    cells.to(META)
    for epoch in range(1, 9):  # each draws otherwise
        for batch in cells.batches(training_keys(cells.labels, epoch, 5, 0, "none")):
            mixed = BatchMixer(recipe, 2)(batch)
            assert (mixed.images.device, mixed.images.dtype) == (META, torch.float32)
            assert mixed.images.shape[1:] == (3, 64, 64)
            assert mixed.labels.device.type == "cpu"


@pytest.mark.parametrize("keys", [["train.loader_workers=1"], ["augment.rand_augment={}"]])
def test_pixels_that_are_augmented_elsewhere_stay_in_memory(keys: list[str]) -> None:
    recipe = load_recipe("coat-mini", "paper", ["model.image_size=64", "train.loader_workers=0", *keys])
    training, validation = cell_set(recipe), cell_set(recipe, training=False)
    training.to(META)
    validation.to(META)
    assert {image.device.type for image in training.images} == {"cpu"}
    assert {image.device.type for image in validation.images} == {"meta"}


def test_more_pixels_than_memory_is_lent_for_stay_in_their_file(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = cell_set(load_recipe("coat-mini", "paper", ["train.loader_workers=0"]), training=False)
    monkeypatch.setattr(module, "MAX_BYTES_IN_MEMORY", 12 * 3 * 224 * 224 - 1)
    cells.to(META)
    assert {image.device.type for image in cells.images} == {"cpu"}
