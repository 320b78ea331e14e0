"""Augmentation: per image, repeatable, and what the paper's Table 1 says; mixing: what its Table 2 says."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from timm.data.mixup import Mixup
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from hep2flow.data.augment import Augmentation, QuarterTurns, SquareHole, TimmRandAugment
from hep2flow.data.batch import Batch, BatchMixer
from hep2flow.data.seeding import seeded
from hep2flow.recipe import load_recipe
from hep2flow.recipe.schema import Augment
from tests.training.builders import batch_of, cell_set, unmixed

PLAIN = ["augment.random_resized_crop=null", "augment.horizontal_flip=0", "augment.vertical_flip=0"]
BARE = [
    *PLAIN,
    "augment.color_jitter=null",
    "augment.rand_augment=null",
    "augment.random_erasing=null",
    "augment.cutout=null",
]


@pytest.mark.parametrize("name", ["convnext-b", "coat-mini"])
def test_an_augmented_cell_depends_on_seed_epoch_and_cell_alone(name: str) -> None:
    cells = cell_set(load_recipe(name, "paper", ["model.image_size=64"]))
    first, *_ = cells[1, 3, 0]
    torch.rand(7)  # whatever was drawn in between
    np.random.random(5)
    again, *_ = cells[1, 3, 0]
    assert torch.equal(first, again)
    assert not torch.equal(first, cells[2, 3, 0][0]), "another epoch, another draw"
    assert not torch.equal(first, cells[1, 3, 1][0]), "shown again in the same epoch, another draw"
    assert first.shape == (3, 64, 64)
    assert first.dtype == torch.float32


def test_two_equal_cells_of_one_batch_are_augmented_each_for_itself() -> None:
    cells = cell_set(load_recipe("coat-mini", "paper", ["model.image_size=64"]))
    cells.images = [cells.images[0]] * len(cells)
    (batch,) = cells.batches([[(1, index, 0) for index in range(len(cells))]])
    for one, other in itertools.combinations(batch.images, 2):
        assert not torch.equal(one, other)


def kinds(name: str) -> list[type]:
    return [type(step) for step in Augmentation(load_recipe(name, "paper")).transform.transforms]


def test_the_steps_are_those_of_table_1_in_the_documented_order() -> None:
    assert kinds("convnext-b") == [
        v2.RandomHorizontalFlip,
        v2.RandomVerticalFlip,
        TimmRandAugment,
        v2.ToDtype,
        v2.Normalize,
        SquareHole,
    ]
    assert kinds("coat-mini") == [
        v2.RandomResizedCrop,
        v2.RandomHorizontalFlip,
        v2.RandomVerticalFlip,
        v2.ColorJitter,
        v2.ToDtype,
        v2.Normalize,
        v2.RandomErasing,
    ]


def test_all_steps_together_come_in_the_order_of_the_recipes_keys() -> None:
    recipe = load_recipe(
        "coat-mini", "paper", ["augment.rand_augment={}", "augment.quarter_turns=true", "augment.cutout={}"]
    )
    of_key = {
        "random_resized_crop": v2.RandomResizedCrop,
        "horizontal_flip": v2.RandomHorizontalFlip,
        "vertical_flip": v2.RandomVerticalFlip,
        "quarter_turns": QuarterTurns,
        "color_jitter": v2.ColorJitter,
        "rand_augment": TimmRandAugment,
        "random_erasing": v2.RandomErasing,
        "cutout": SquareHole,
    }
    applied = [type(step) for step in Augmentation(recipe).transform.transforms]
    assert [kind for kind in applied if kind in of_key.values()] == [of_key[key] for key in Augment.model_fields]
    assert applied[applied.index(TimmRandAugment) + 1 :][:2] == [v2.ToDtype, v2.Normalize], "holes are of the mean"


def test_the_parameters_are_those_of_table_1() -> None:
    coat: dict[type, Any] = {
        type(step): step for step in Augmentation(load_recipe("coat-mini", "paper")).transform.transforms
    }
    jitter = coat[v2.ColorJitter]
    assert tuple(jitter.brightness) == (0.3, 1.5)
    assert tuple(jitter.contrast) == (0.5, 1.5)
    assert tuple(jitter.saturation) == (0.7, 1.3)
    assert tuple(jitter.hue) == (-0.01, 0.01)
    erasing = coat[v2.RandomErasing]
    assert (erasing.p, tuple(erasing.scale), tuple(erasing.ratio), erasing.value) == (
        0.5,
        (0.02, 0.33),
        (0.3, 3.3),
        [0],
    )
    crop = coat[v2.RandomResizedCrop]
    assert (tuple(crop.size), tuple(crop.scale), tuple(crop.ratio)) == ((224, 224), (0.25, 1.0), (0.75, 1.33))
    assert crop.interpolation is v2.InterpolationMode.BICUBIC
    for flip in (v2.RandomHorizontalFlip, v2.RandomVerticalFlip):
        assert coat[flip].p == 0.5
    assert coat[v2.Normalize].mean == [0.5] * 3
    assert coat[v2.Normalize].std == [0.25] * 3
    convnext: dict[type, Any] = {
        type(step): step for step in Augmentation(load_recipe("convnext-b", "paper")).transform.transforms
    }
    random = convnext[TimmRandAugment].transform
    assert random.num_layers == 2
    assert {operation.magnitude for operation in random.ops} == {9}
    assert {operation.prob for operation in random.ops} == {0.5}
    assert [operation.name for operation in random.ops] == [
        "AutoContrast",
        "Equalize",
        "Invert",
        "Rotate",
        "Posterize",
        "Solarize",
        "SolarizeAdd",
        "Color",
        "Contrast",
        "Brightness",
        "Sharpness",
        "ShearX",
        "ShearY",
        "TranslateXRel",
        "TranslateYRel",
    ]


def test_flips_come_half_of_the_time() -> None:
    recipe = load_recipe(
        "convnext-b",
        "paper",
        [*BARE, "model.image_size=32", "augment.horizontal_flip=0.5", "augment.vertical_flip=0.5"],
    )
    augmentation = Augmentation(recipe)
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    image[:, 0, 0] = 255
    corners = []
    for seed in range(400):
        with seeded(seed):
            corners.append(int(augmentation(image)[0].flatten().argmax()))
    counts = [corners.count(corner) for corner in (0, 31, 31 * 32, 32 * 32 - 1)]
    assert sum(counts) == 400
    # 100 each expected; 60 is 4.6 standard deviations away.
    assert min(counts) > 60


def test_crops_are_of_a_quarter_to_the_whole_and_nearly_square() -> None:
    """Each pixel tells where it came from: red its column, green its row."""
    recipe = load_recipe(
        "coat-mini",
        "paper",
        [
            "model.image_size=64",
            "data.interpolation=bilinear",
            "augment.horizontal_flip=0",
            "augment.vertical_flip=0",
            "augment.color_jitter=null",
            "augment.random_erasing=null",
        ],
    )
    augmentation = Augmentation(recipe)
    ramp = torch.arange(250, dtype=torch.uint8)
    image = torch.stack(
        [ramp.expand(250, 250), ramp[:, None].expand(250, 250), torch.zeros(250, 250, dtype=torch.uint8)]
    )
    areas, ratios = [], []
    for seed in range(200):
        with seeded(seed):
            shown = (augmentation(image) * 0.25 + 0.5) * 255
        width = float(shown[0].max() - shown[0].min()) * 64 / 63
        height = float(shown[1].max() - shown[1].min()) * 64 / 63
        areas.append(width * height / 250**2)
        ratios.append(width / height)
    assert 0.24 < min(areas) < 0.3
    assert 0.9 < max(areas) < 1.03
    assert 0.73 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 1.36


def test_half_of_the_cells_lose_a_rectangle_of_2_to_33_percent() -> None:
    recipe = load_recipe("coat-mini", "paper", [*PLAIN, "model.image_size=64", "augment.color_jitter=null"])
    augmentation = Augmentation(recipe)
    white = torch.full((3, 64, 64), 255, dtype=torch.uint8)
    shares = []
    for seed in range(400):
        with seeded(seed):
            gone = augmentation(white)[0] == 0
        if gone.any():
            assert gone.sum() == gone.any(0).sum() * gone.any(1).sum(), "a rectangle"
            shares.append(float(gone.float().mean()))
    # 200 expected; 160 is four standard deviations away.
    assert 160 < len(shares) < 240
    assert 0.015 < min(shares) < 0.05
    assert 0.28 < max(shares) < 0.34


def test_colour_is_changed_as_on_any_picture_though_the_cells_are_green() -> None:
    recipe = load_recipe("coat-mini", "paper", [*PLAIN, "model.image_size=32", "augment.random_erasing=null"])
    green = torch.randint(0, 40, (3, 32, 32), dtype=torch.uint8)
    green[1] += 150
    for seed in range(10):
        with seeded(seed):
            ours = Augmentation(recipe)(green)
        with seeded(seed):
            jittered = v2.ColorJitter((0.3, 1.5), 0.5, 0.3, 0.01)(green)
        torch.testing.assert_close(ours, (jittered.float() / 255 - 0.5) / 0.25)


def test_quarter_turns_are_each_as_likely() -> None:
    image = torch.zeros(1, 4, 4)
    image[0, 0, 0] = 1
    turned = []
    for seed in range(400):
        with seeded(seed):
            turned.append(int(QuarterTurns()(image).flatten().argmax()))
    assert sorted(set(turned)) == [0, 3, 12, 15]
    assert min(turned.count(corner) for corner in set(turned)) > 60


def test_cutout_makes_one_hole_of_half_the_side() -> None:
    recipe = load_recipe("convnext-b", "paper", [*BARE, "model.image_size=64", "augment.cutout={}"])
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


def test_rand_augment_is_timms() -> None:
    from timm.data.auto_augment import rand_augment_transform

    recipe = load_recipe("convnext-b", "paper", [*BARE, "model.image_size=32", "augment.rand_augment={}"])
    image = torch.randint(0, 255, (3, 32, 32), dtype=torch.uint8)
    timms = rand_augment_transform("rand-m9-n2", {"img_mean": (128, 128, 128)})
    for seed in range(10):
        with seeded(seed):
            ours = Augmentation(recipe)(image)
        with seeded(seed):
            theirs = tv.pil_to_tensor(timms(tv.to_pil_image(image)))
        torch.testing.assert_close(ours, (theirs.float() / 255 - 0.5) / 0.25)


def test_an_even_batch_is_mixed_as_timm_mixes_it() -> None:
    batch = batch_of(8, 32)
    for seed in range(6):
        with seeded(seed):
            ours = BatchMixer(load_recipe("convnext-b"), 6)(unmixed(batch))
        with seeded(seed):
            timms = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, switch_prob=0.5, label_smoothing=0.1, num_classes=6)
            images, targets = timms(batch.images.clone(), batch.labels)
        assert torch.equal(ours.images, images)
        assert torch.equal(ours.labels, targets)


@pytest.mark.parametrize("size", [1, 2, 9, 32])
def test_mixup_targets_are_the_shares_of_both_cells(size: int) -> None:
    """361 cells are 11 batches of 32 and one of 9, which timm's own Mixup refuses."""
    mixer = BatchMixer(load_recipe("convnext-b", "paper", ["batch.cutmix=0"]), 6)
    batch = batch_of(size, 32, features=2)
    seen = set()
    for seed in range(10):
        with seeded(seed):
            mixed = mixer(unmixed(batch))
        with seeded(seed):
            np.random.rand()  # whether at all
            share = float(np.random.beta(0.8, 0.8))
        seen.add(share)
        one_hot = torch.full((size, 6), 0.1 / 6)
        one_hot[torch.arange(size), batch.labels] += 0.9
        torch.testing.assert_close(mixed.labels, one_hot * share + one_hot.flip(0) * (1 - share))
        torch.testing.assert_close(mixed.images, batch.images * share + batch.images.flip(0) * (1 - share))
        torch.testing.assert_close(
            mixed.measurements, batch.measurements * share + batch.measurements.flip(0) * (1 - share)
        )
        torch.testing.assert_close(mixed.labels.sum(1), torch.ones(size))
    assert len(seen) == 10


@pytest.mark.parametrize("size", [1, 2, 8, 9])
def test_cutmix_targets_are_the_shares_of_the_area(size: int) -> None:
    mixer = BatchMixer(load_recipe("convnext-b", "paper", ["batch.mixup=0", "batch.label_smoothing=0"]), size)
    images = torch.arange(size, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, 32, 32).clone()
    for seed in range(10):
        with seeded(seed):
            mixed = mixer(Batch(images.clone(), torch.arange(float(size))[:, None], torch.arange(size)))
        assert torch.equal(mixed.labels.sum(1), torch.ones(size))
        for index in range(size):
            other = size - 1 - index
            if index != other:
                from_other = float((mixed.images[index, 0] == other).float().mean())
                assert mixed.labels[index, other] == pytest.approx(from_other, abs=1e-6)
                assert mixed.labels[index, index] == pytest.approx(1 - from_other, abs=1e-6)
                mean = index * (1 - from_other) + other * from_other
                assert float(mixed.measurements[index]) == pytest.approx(mean, abs=1e-5), (
                    "measurements in the same shares"
                )


def test_without_mixing_the_targets_are_the_labels() -> None:
    batch = batch_of(3, 32)
    mixed = BatchMixer(load_recipe("coat-mini", "paper"), 6)(batch)
    assert torch.equal(mixed.images, batch.images)
    assert torch.equal(mixed.labels, torch.eye(6)[batch.labels])
