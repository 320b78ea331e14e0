"""Networks that can be built, and those that are refused before any data is read."""

from __future__ import annotations

import pytest
import torch

from hep2flow.errors import UserError
from hep2flow.network.model import build_network, check_network, head_parameters, timm_network
from hep2flow.recipe import Profile, load_recipe, shipped_names
from tests.training.builders import tiny


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.network=convnext_giant_typo"], r"model\.network: timm has no"),
        (["model.network=coat_lite_tiny", "model.layer_scale=1.0"], "model: coat_lite_tiny"),
        (["model.network=test_vit", "model.layer_scale=null", "model.image_size=50"], "image_size"),
        (["model.network=test_efficientnet", "model.layer_scale=0.5"], "model: test_efficientnet"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_before_any_data(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_network(load_recipe("convnext-b", "laptop", overrides).model)


@pytest.mark.parametrize("profile", ["paper", "laptop"])
def test_the_shipped_networks_can_be_built(profile: Profile) -> None:
    for name in shipped_names(profile):
        check_network(load_recipe(name, profile).model)


def test_the_head_starts_as_the_recipe_says() -> None:
    torch.manual_seed(0)
    plain = head_parameters(build_network(tiny().model, 6))
    torch.manual_seed(0)
    scaled = head_parameters(build_network(tiny("model.head_init_scale=0.1", "model.head_init_bias=-2").model, 6))
    torch.testing.assert_close(scaled[0], plain[0] * 0.1)
    assert scaled[1].tolist() == [-2] * 6


def test_the_head_beside_measurements_starts_as_the_recipe_says_too() -> None:
    weight, bias = head_parameters(
        timm_network(
            build_network(
                tiny("model.aux_features=[area]", "model.head_init_scale=0", "model.head_init_bias=0.5").model, 6
            )
        )
    )
    assert weight.shape[0] == 6
    assert not weight.any()
    assert bias.tolist() == [0.5] * 6


def test_gradient_checkpointing_is_refused_where_timm_has_none() -> None:
    with pytest.raises(UserError, match=r"model\.gradient_checkpointing: timm's CoaT has none; allowed: false"):
        load_recipe("coat-mini", "laptop", ["model.gradient_checkpointing=true"])
    for name in ("convnext-b", "coatnet-0"):
        check_network(load_recipe(name, "laptop", ["model.gradient_checkpointing=true"]).model)
