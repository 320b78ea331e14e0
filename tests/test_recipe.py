"""Recipes: what is accepted, what is refused and how, and the paper's values."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hep2flow.errors import UserError
from hep2flow.recipe import Recipe, load_recipe, parse_recipe, shipped_names

TREE = {"name": "tiny", "model": {"network": "convnext_atto"}, "optim": {"lr": 1e-3}}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.lrr=1", "optim.lrr: unknown key, did you mean lr?"),
        ("augmnt.cutout=null", "augmnt: unknown key, did you mean augment?"),
        ("data.mask=blur", "'apply', 'crop' or 'none'"),
        ("train.epochs=many", "train.epochs"),
        ("train.epochs=0", "greater than or equal to 1"),
        ("optim.lr=nan", "optim.lr"),
        ("train.batch_size=30.5", "train.batch_size"),
        ("schedule.warmup_updates=5", "warmup_epochs or warmup_updates"),
        ("optim.lr", "write key=value"),
        ("name.first=x", "is a value, not a section"),
    ],
)
def test_a_wrong_override_is_refused_with_its_key(override: str, said: str) -> None:
    with pytest.raises(UserError, match=r"coat-mini|--set") as refusal:
        load_recipe("coat-mini", "paper", [override])
    assert said in str(refusal.value)


def test_overrides_reach_any_leaf_in_their_own_type() -> None:
    recipe = load_recipe(
        "convnext-b", "paper", ["optim.lr=2e-5", "augment.cutout=null", "augment.color_jitter.hue=0.1"]
    )
    assert recipe.optim.lr == 2e-5
    assert recipe.augment.cutout is None
    assert recipe.augment.color_jitter is not None
    assert recipe.augment.color_jitter.hue == 0.1


def test_an_unknown_recipe_names_the_shipped_ones() -> None:
    with pytest.raises(UserError, match="coat-mini, convnext-b"):
        load_recipe("resnet", "laptop")


def test_a_recipe_file_that_is_no_mapping_or_no_yaml_is_refused(tmp_path: Path) -> None:
    for text in ("just text", "a: [1", "- 1"):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        with pytest.raises(UserError, match=r"recipe\.yaml"):
            load_recipe(str(path))


@pytest.mark.parametrize("profile", ["paper", "laptop"])
def test_shipped_recipes_survive_a_round_trip(profile: str, tmp_path: Path) -> None:
    for name in shipped_names(profile):  # type: ignore[arg-type]
        recipe = load_recipe(name, profile)  # type: ignore[arg-type]
        path = tmp_path / "copy.yaml"
        path.write_text(recipe.to_yaml())
        assert load_recipe(str(path)) == recipe
        assert recipe.profile == profile


def test_laptop_recipes_are_named_by_their_own_network_and_never_as_the_papers_models() -> None:
    for name in shipped_names("laptop"):
        recipe = load_recipe(name, "laptop")
        assert not recipe.paper_model
        assert recipe.model.network in recipe.title
        assert "stand-in" in recipe.title
        assert recipe.train.max_updates is not None


# Every readable cell of the paper's Tables 1 and 2 that a recipe expresses.
PAPER = {
    "convnext-b": {
        "model.image_size": 224,
        "augment.random_erasing": None,
        "augment.horizontal_flip": 0.5,
        "augment.vertical_flip": 0.5,
        "augment.color_jitter": None,
        "data.mean": 0.5,
        "data.std": 0.25,
        "augment.cutout.side": 0.5,
        "augment.random_resized_crop": None,
        "augment.rand_augment.operations": 2,
        "data.split.train_fraction": 0.5,
        "optim.name": "adam",
        "loss.name": "soft_target_cross_entropy",
        "optim.lr": 4e-6,
        "optim.weight_decay": 0.0,
        "optim.betas": (0.9, 0.999),
        "train.batch_size": 32,
        "train.epochs": 30,
        "train.max_updates": None,
        "schedule.name": "cosine",
        "schedule.warmup_epochs": 0,
        "batch.label_smoothing": 0.1,
        "batch.mixup": 0.8,
        "batch.cutmix": 1.0,
        "eval.tta": "dihedral",
        "data.mask": "apply",
    },
    "coat-mini": {
        "model.image_size": 224,
        "augment.random_erasing.probability": 0.5,
        "augment.random_erasing.scale": (0.02, 0.33),
        "augment.random_erasing.ratio": (0.3, 3.3),
        "augment.horizontal_flip": 0.5,
        "augment.vertical_flip": 0.5,
        "augment.color_jitter.brightness": (0.3, 1.5),
        "augment.color_jitter.contrast": 0.5,
        "augment.color_jitter.saturation": 0.3,
        "augment.color_jitter.hue": 0.01,
        "data.mean": 0.5,
        "data.std": 0.25,
        "augment.cutout": None,
        "augment.random_resized_crop.scale": (0.25, 1.0),
        "augment.random_resized_crop.ratio": (0.75, 1.33),
        "augment.rand_augment": None,
        "optim.name": "adamp",
        "loss.name": "binary_cross_entropy",
        "optim.lr": 1e-5,
        "optim.weight_decay": 0.1,
        "optim.betas": (0.9, 0.999),
        "train.batch_size": 16,
        "train.epochs": 50,
        "train.max_updates": None,
        "schedule.name": "cosine",
        "schedule.warmup_epochs": 10,
        "batch.label_smoothing": 0.0,
        "batch.mixup": 0.0,
        "batch.cutmix": 0.0,
        "eval.tta": "none",
        "data.mask": "apply",
    },
}


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, cells in PAPER.items() for key in cells])
def test_the_papers_tables_are_frozen(name: str, key: str) -> None:
    value: object = load_recipe(name, "paper")
    for part in key.split("."):
        value = getattr(value, part)
    assert value == PAPER[name][key]


@given(st.dictionaries(st.text(max_size=8), st.one_of(st.none(), st.integers(), st.text(max_size=5)), max_size=4))
def test_any_mapping_is_a_recipe_or_a_clear_refusal(extra: dict[str, object]) -> None:
    told = ""
    try:
        parse_recipe({**TREE, **extra}, "here")
    except UserError as error:
        told = str(error)
    assert told.startswith("here: ") == bool(set(extra) - set(Recipe.model_fields))
