"""A recipe's search space: what a trial gets is inside it, is a recipe, and reads back as it was."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hep2flow.errors import UserError
from hep2flow.recipe import Recipe, load_recipe, read_recipe, shipped_names
from hep2flow.recipe.schema import searchable_keys
from hep2flow.search.distributions import suggest_changes, to_parameters
from hep2flow.search.space import check_space, recipe_value

optuna.logging.set_verbosity(optuna.logging.WARNING)

SPACE = """{
  optim.lr: {loguniform: [1.0e-6, 1.0e-3]},
  optim.weight_decay: {uniform: [0, 0.3]},
  batch.mixup: {choice: [0, 0.2, 0.8]},
  batch.switch_probability: {uniform: [0.2, 0.8], when: {batch.mixup: [0.2, 0.8]}},
  augment.cutout: {choice: [null, {side: 0.25}, {side: 0.5}]},
  augment.cutout.side: {uniform: [0.1, 0.9], when: {augment.cutout: [{side: 0.5}]}},
  schedule.warmup_epochs: {integer: [0, 5]},
}"""


def searching(*overrides: str) -> Recipe:
    return load_recipe("convnext-b", "paper", [f"search.space={SPACE}", *overrides])


def sampled(recipe: Recipe, count: int, seed: int) -> list[dict[str, str]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [suggest_changes(study.ask(), recipe) for _ in range(count)]


@given(st.integers(0, 2**31))
def test_every_trial_is_a_recipe_with_values_of_the_space(seed: int) -> None:
    recipe = searching()
    for changes in sampled(recipe, 5, seed):
        made = recipe.changed(changes)
        assert 1e-6 <= made.optim.lr <= 1e-3
        assert 0 <= made.optim.weight_decay <= 0.3
        assert made.batch.mixup in (0, 0.2, 0.8)
        assert made.schedule.warmup_epochs in range(6)
        assert ("batch.switch_probability" in changes) == (made.batch.mixup != 0)
        assert ("augment.cutout.side" in changes) == (changes["augment.cutout"] == "{side: 0.5}")
        assert made.augment.cutout is None or 0.1 <= made.augment.cutout.side <= 0.9
        assert read_recipe(made.to_yaml()) == made


@given(st.integers(0, 2**31))
def test_the_values_of_a_trial_are_optunas_parameters_later(seed: int) -> None:
    recipe = searching()
    for changes in sampled(recipe, 3, seed):
        found = to_parameters(recipe, changes)
        assert found is not None
        values, distributions = found
        assert values.keys() == changes.keys() == distributions.keys()
        for key, value in values.items():
            assert yaml.safe_load(f"{value}") == yaml.safe_load(changes[key])
        optuna.trial.create_trial(params=values, distributions=distributions, value=0.5)


def test_the_recipes_own_values_are_known_to_lie_in_its_space_or_outside() -> None:
    inside = to_parameters(searching(), {})
    assert inside is not None
    values, _ = inside
    assert values["optim.lr"] == 4e-6
    assert values["augment.cutout"] == "{side: 0.5}"
    assert values["batch.switch_probability"] == 0.5
    assert to_parameters(searching("optim.lr=1e-2"), {}) is None
    assert to_parameters(searching("augment.cutout.side=0.4"), {}) is None


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("{}", "search.space is empty"),
        (
            "{optim.lr: {loguniform: [1.0e-3, 1]}, train.accumulation: {choice: [1, 5]}}",
            "train.accumulation: 5 is impos",
        ),
        ("{batch.mixup: {choice: [0, -1]}}", "batch.mixup: -1 is impossible"),
        ("{model.image_size: {integer: [10, 64]}}", "model.image_size: 10 is impossible"),
    ],
)
def test_what_the_recipe_could_never_take_is_refused_before_the_first_trial(space: str, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        check_space(load_recipe("convnext-b", "paper", [f"search.space={space}"]))
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            "{optim.lrr: {uniform: [0, 1]}}",
            "optim.lrr is no key that a sweep may change; allowed are for example optim.lr",
        ),
        ("{train.seed: {integer: [0, 9]}}", "train.seed is no key"),
        ("{data.split.seed: {integer: [0, 9]}}", "data.split.seed is no key"),
        ("{eval.tta: {choice: [none, dihedral]}}", "eval.tta is no key"),
        ("{optim.lr: {uniform: [1, 0]}}", "a range is [low, high], not [1, 0]"),
        ("{optim.lr: {loguniform: [0, 1]}}", "greater than 0"),
        ("{optim.lr: {uniform: [0, 1], choice: [1, 2]}}", "give one of uniform, loguniform, integer, choice"),
        ("{optim.lr: {}}", "give one of"),
        ("{optim.lr: {choice: [1]}}", "at least 2"),
        ("{optim.lr: {normal: [0, 1]}}", "normal"),
    ],
)
def test_a_space_that_is_none_is_refused_when_the_recipe_is_read(space: str, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        load_recipe("convnext-b", "paper", [f"search.space={space}"])
    assert message in str(refusal.value)


def test_losses_of_different_kinds_are_not_compared() -> None:
    space = "{loss.name: {choice: [binary_cross_entropy, soft_target_cross_entropy]}}"
    load_recipe("convnext-b", "paper", [f"search.space={space}"])
    with pytest.raises(UserError, match=r"search\.metric"):
        load_recipe("convnext-b", "paper", [f"search.space={space}", "search.metric=loss"])


@pytest.mark.parametrize("profile", ["paper", "laptop"])
def test_the_shipped_spaces_hold_the_recipes_own_values_and_are_possible(profile: Any) -> None:
    for name in shipped_names(profile):
        recipe = load_recipe(name, profile)
        check_space(recipe)
        assert to_parameters(recipe, {}) is not None, f"{name}: its own values are the first trial"
        for changes in sampled(recipe, 50, 0):
            recipe.changed(changes)


def test_every_choice_of_a_recipe_can_be_searched() -> None:
    keys = searchable_keys()
    paper = ["optim.lr", "optim.weight_decay", "batch.label_smoothing", "batch.mixup", "batch.cutmix"]
    more = ["augment.color_jitter.hue", "augment.random_erasing", "optim.layer_decay", "optim.freeze", "train.sampler"]
    assert {*paper, *more, "model.aux_features"} <= set(keys)
    assert not [key for key in keys if key.startswith(("search", "resources", "eval", "select", "data.split"))]


def test_a_value_below_a_section_that_is_null_is_null() -> None:
    assert recipe_value(load_recipe("convnext-b"), "augment.color_jitter.hue") is None
