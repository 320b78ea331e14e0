"""Networks that can be built, and those that are refused before any data is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hep2flow.errors import UserError
from hep2flow.learning.checkpoint import Description, load_checkpoint, save_checkpoint
from hep2flow.learning.model import build_network, check_network, head_parameters
from hep2flow.recipe import Profile, load_recipe, shipped_names

from .builders import CPU, tiny


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


def test_a_network_that_shares_tensors_survives_saving_and_loading(tmp_path: Path) -> None:
    recipe = load_recipe("coat-mini", "laptop")
    network = build_network(recipe.model, 2).eval()
    path = tmp_path / "weights.safetensors"
    save_checkpoint(path, network, Description(recipe, ["a", "b"], 8, selected_on_test=True))
    loaded, description = load_checkpoint(path, CPU)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(network(images), loaded(images))
    assert description.selected_on_test


def test_what_is_no_checkpoint_of_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"best\.safetensors: not a checkpoint"):
        load_checkpoint(path, CPU)
