"""A recipe of another length keeps its proportions."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from hep2flow.recipe import load_recipe
from hep2flow.search.trials import trial_updates, with_updates
from hep2flow.training.trainer import training_length

LABELS = torch.tensor([index % 6 for index in range(361)])


@given(
    st.integers(1, 400),
    st.sampled_from(["none", "over", "under", "balanced"]),
    st.sampled_from(["convnext-b", "coat-mini"]),
)
def test_a_recipe_gets_exactly_so_many_updates(updates: int, sampler: str, name: str) -> None:
    recipe = load_recipe(name, "laptop", [f"train.sampler={sampler}"])
    assert training_length(with_updates(recipe, LABELS, updates), LABELS).updates == updates


def test_warm_up_and_unfreezing_keep_their_share() -> None:
    overrides = ["optim.freeze=backbone", "optim.unfreeze_every=4", "model.weights=pretrained"]
    recipe = load_recipe("coat-mini", "paper", overrides)  # 50 epochs of 23 updates, 10 of warm-up
    half = with_updates(recipe, LABELS, 575)
    assert half.schedule.warmup_epochs == 5
    assert half.optim.unfreeze_every == 2
    assert half.train.epochs == 25
    assert with_updates(recipe, LABELS, 1150) == recipe.model_copy(
        update={"train": recipe.train.model_copy(update={"max_updates": 1150})}
    )


def test_a_trial_has_its_share_of_the_updates() -> None:
    recipe = load_recipe("coat-mini", "laptop", ["search.length=0.5"])
    assert trial_updates(recipe, LABELS) == training_length(recipe, LABELS).updates // 2
