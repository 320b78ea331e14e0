"""Augmentation: per image, repeatable, and what the recipe says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from timm.data.mixup import Mixup

from hep2flow.cells import encode_png
from hep2flow.learning.augment import Augmentation, BatchMixer
from hep2flow.learning.data import CellSet, ordered_keys, to_rgb8, training_keys
from hep2flow.learning.randomness import seeded
from hep2flow.learning.tta import dihedral_views
from hep2flow.recipe import Recipe, load_recipe


def cell_set(recipe: Recipe, count: int = 12, *, training: bool = True) -> CellSet:
    random = np.random.default_rng(0)
    rows = [
        {
            "cell_id": f"c{index:03d}",
            "pattern": "ab"[index % 2],
            "image": encode_png(random.integers(0, 255, (50 + index, 60, 3), dtype=np.uint8)),
        }
        for index in range(count)
    ]
    return CellSet(rows, ["a", "b"], 8, recipe, training=training)


@pytest.mark.parametrize("name", ["convnext-b", "coat-mini"])
def test_an_augmented_cell_depends_on_seed_epoch_and_cell_alone(name: str) -> None:
    recipe = load_recipe(name, "paper", ["model.image_size=64"])
    cells = cell_set(recipe)
    first, _ = cells[1, 3]
    torch.rand(7)  # whatever was drawn in between
    np.random.random(5)
    again, _ = cells[1, 3]
    other_epoch, _ = cells[2, 3]
    assert torch.equal(first, again)
    assert not torch.equal(first, other_epoch)
    assert first.shape == (3, 64, 64)
    assert first.dtype == torch.float32


def test_loader_workers_do_not_change_a_single_pixel() -> None:
    recipe = load_recipe("coat-mini", "paper", ["model.image_size=64"])
    cells = cell_set(recipe)
    keys = training_keys(len(cells), epoch=1, batch_size=5, seed=0)
    alone = [images for images, _ in cells.batches(keys, workers=0)]
    beside = [images for images, _ in cells.batches(keys, workers=2)]
    assert [len(images) for images in alone] == [5, 5, 2]
    for one, other in zip(alone, beside, strict=True):
        assert torch.equal(one, other)


def test_drawing_leaves_the_global_generators_as_they_were() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    with seeded("anything"):
        torch.rand(100)
    assert torch.equal(torch.rand(1), expected)


def test_every_cell_once_per_epoch_in_another_order_each_time() -> None:
    first, second = (
        [index for batch in training_keys(361, epoch, 32, seed=0) for _, index in batch] for epoch in (1, 2)
    )
    assert sorted(first) == sorted(second) == list(range(361))
    assert first != second
    assert len(training_keys(361, 1, 32, 0)[-1]) == 9


def test_validation_images_are_resized_and_normalised_and_nothing_else() -> None:
    recipe = load_recipe("coat-mini", "paper", ["model.image_size=64"])
    grey = np.full((40, 30), 51, dtype=np.uint8)
    cells = CellSet([{"cell_id": "c", "pattern": "a", "image": encode_png(grey)}], ["a"], 8, recipe, training=False)
    image, label = cells[7, 0]
    assert label == 0
    torch.testing.assert_close(image, torch.full((3, 64, 64), (51 / 255 - 0.5) / 0.25))


def test_a_twelve_bit_camera_reaches_white() -> None:
    deep = np.array([[0, 4095]], dtype=np.uint16)
    assert to_rgb8(encode_png(deep), bits=12)[:, 0].tolist() == [[0, 255]] * 3


def test_cutout_makes_one_hole_of_half_the_side() -> None:
    recipe = load_recipe(
        "convnext-b",
        "paper",
        ["model.image_size=64", "augment.horizontal_flip=0", "augment.vertical_flip=0", "augment.rand_augment=null"],
    )
    augmentation = Augmentation(recipe)
    white = torch.full((3, 64, 64), 255, dtype=torch.uint8)
    holes = []
    for seed in range(40):
        with seeded(seed):
            image = augmentation(white)
        hole = image[0] == 0
        rows, columns = hole.any(1).sum(), hole.any(0).sum()
        assert hole.sum() == rows * columns, "the hole is a rectangle"
        holes.append((int(rows), int(columns)))
    assert max(holes) == (32, 32)
    assert min(min(hole) for hole in holes) >= 15


def test_an_even_batch_is_mixed_as_timm_mixes_it() -> None:
    recipe = load_recipe("convnext-b", "paper")
    images, labels = torch.rand(8, 3, 32, 32), torch.arange(8) % 6
    with seeded(1):
        ours, our_targets = BatchMixer(recipe, 6)(images.clone(), labels)
    with seeded(1):
        timms = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, switch_prob=0.5, label_smoothing=0.1, num_classes=6)
        theirs, their_targets = timms(images.clone(), labels)
    assert torch.equal(ours, theirs)
    assert torch.equal(our_targets, their_targets)


@pytest.mark.parametrize("size", [1, 9])
def test_odd_batches_are_mixed_and_their_targets_are_distributions(size: int) -> None:
    mixer = BatchMixer(load_recipe("convnext-b", "paper"), 6)
    for seed in range(10):
        with seeded(seed):
            images, targets = mixer(torch.rand(size, 3, 32, 32), torch.arange(size) % 6)
        assert images.shape == (size, 3, 32, 32)
        torch.testing.assert_close(targets.sum(1), torch.ones(size))


def test_without_mixing_the_targets_are_the_labels() -> None:
    images = torch.rand(3, 3, 8, 8)
    same, targets = BatchMixer(load_recipe("coat-mini", "paper"), 6)(images.clone(), torch.tensor([0, 5, 2]))
    assert torch.equal(same, images)
    assert targets.argmax(1).tolist() == [0, 5, 2]
    assert targets.sum() == 3


def test_the_eight_views_are_all_different_and_the_first_is_the_cell() -> None:
    image = torch.rand(1, 1, 5, 5)
    views = list(dihedral_views(image))
    assert len({tuple(view.flatten().tolist()) for view in views}) == 8
    assert torch.equal(views[0], image)


def test_ordered_keys_hold_every_cell_once() -> None:
    assert [index for batch in ordered_keys(10, 4) for _, index in batch] == list(range(10))
