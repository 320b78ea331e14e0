"""Grad-CAM: the heat lies where the evidence lies, for every kind of network and its features."""

from __future__ import annotations

import pytest
import torch

from hep2flow.evaluation.grad_cam import NoFeatureMapsError, heat_maps
from hep2flow.network.model import build_network, head_parameters, timm_network
from hep2flow.recipe import Recipe
from tests.training.builders import tiny

NETWORKS = {
    "convnext": ["model.network=test_convnext"],
    "coat without parallel blocks": ["model.network=coat_lite_tiny", "model.layer_scale=null"],
    "coat": ["model.network=coat_tiny", "model.layer_scale=null"],
    "coatnet": ["model.network=coatnet_pico_rw_224", "model.layer_scale=null"],
    "with features": ["model.network=test_convnext", "model.aux_features=[radius,area]"],
    "coat with features": ["model.network=coat_lite_tiny", "model.layer_scale=null", "model.aux_features=[area]"],
}


def network_of(name: str, *overrides: str) -> tuple[torch.nn.Module, Recipe]:
    torch.manual_seed(0)
    recipe = tiny(*NETWORKS[name], *overrides)
    return build_network(recipe.model, 2), recipe


def inputs_of(recipe: Recipe, images: torch.Tensor) -> list[torch.Tensor]:
    features = torch.rand(len(images), len(recipe.model.aux_features), generator=torch.Generator().manual_seed(0))
    return [images, features] if recipe.model.aux_features else [images]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [64, 224])
def test_heat_is_a_share_of_each_images_own_maximum(name: str, size: int) -> None:
    network, recipe = network_of(name, f"model.image_size={size}")
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    inputs = inputs_of(recipe, images)
    logits = network.eval()(*inputs)
    heat = heat_maps(network, inputs, torch.tensor([0, 1]))
    assert heat.shape == (2, size, size)
    assert heat.dtype == torch.float32
    assert not heat.requires_grad
    assert heat.min() >= 0
    assert all(float(one.max()) in (0.0, 1.0) for one in heat)
    assert heat.max() == 1
    # Neither the network nor what it says has changed.
    torch.testing.assert_close(network(*inputs), logits)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    torch.testing.assert_close(heat_maps(network, inputs, torch.tensor([0, 1])), heat)


def dotted(count: int, size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Dark cells (n, 3, size, size), every other one with bright dots in one quadrant, and that quadrant's corner."""
    random = torch.Generator().manual_seed(seed)
    images = -2 + 0.05 * torch.randn(count, 3, size, size, generator=random)
    half, margin = size // 2, size // 16
    side = half - 2 * margin
    corners = torch.tensor([[half * (index // 4 % 2), half * (index // 2 % 2)] for index in range(count)])
    for image, (top, left) in zip(images[1::2], (corners[1::2] + margin).tolist(), strict=True):
        image[:, top : top + side, left : left + side] += 4 * (torch.rand(side, side, generator=random) < 0.5)
    return images, corners


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("convnext", 64),
        ("coat without parallel blocks", 64),
        ("coat without parallel blocks", 224),
        ("coat", 64),
        ("coatnet", 64),
        ("with features", 64),
    ],
)
def test_heat_lies_where_the_evidence_lies(name: str, size: int) -> None:
    """A random network, whose head is set to tell dots from none by the mean features of both: those are local already."""
    network, recipe = network_of(name, f"model.image_size={size}")
    model = timm_network(network.eval())
    images, _ = dotted(16, size, seed=0)
    weight, bias = head_parameters(model)
    with torch.no_grad():
        pooled = model.forward_head(model.forward_features(images), pre_logits=True)  # type: ignore[operator]
        apart = pooled[1::2].mean(0) - pooled[::2].mean(0)
        weight.zero_()
        weight[1, : len(apart)] = apart / apart.norm() ** 2
        bias[:] = torch.tensor([0.0, -float(weight[1, : len(apart)] @ pooled.mean(0))])
    images, corners = dotted(8, size, seed=1)
    inputs, with_dots = inputs_of(recipe, images), torch.arange(8) % 2
    with torch.no_grad():
        assert torch.equal(network(*inputs).argmax(1), with_dots)
    heat = heat_maps(network, inputs, with_dots)
    for one, (top, left) in zip(heat[1::2], corners[1::2].tolist(), strict=True):
        there = one[top : top + size // 2, left : left + size // 2].sum() / one.sum()
        assert there > 0.6, f"of the heat {float(there):.2f} lies in the quadrant at {top}, {left}"


@pytest.mark.parametrize("name", ["test_vit", "test_mambaout", "twins_svt_small"])
def test_a_network_without_maps_is_told_apart(name: str) -> None:
    recipe = tiny(f"model.network={name}", "model.layer_scale=null", "model.image_size=64")
    with pytest.raises(NoFeatureMapsError):
        heat_maps(build_network(recipe.model, 2), [torch.randn(1, 3, 64, 64)], torch.tensor([0]))
