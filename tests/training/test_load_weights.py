"""First weights: strict about the body, plain about the head."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hep2flow.errors import UserError
from hep2flow.network.model import build_network
from hep2flow.recipe import Recipe, load_recipe
from hep2flow.training.checkpoint import Description, TensorSnapshot, save_checkpoint
from hep2flow.training.load_weights import load_weights
from tests.training.builders import tiny

SIX = list("abcdef")


def checkpoint(recipe: Recipe, labels: list[str], folder: Path) -> tuple[torch.nn.Module, Path]:
    network = build_network(recipe.model, len(labels))
    path = folder / "weights.safetensors"
    save_checkpoint(path, TensorSnapshot(network.state_dict(), copy=False), Description(recipe, labels, 8))
    return network, path


def plain(network: torch.nn.Module, path: Path, **more: torch.Tensor) -> Path:
    tensors = {name: tensor.clone().contiguous() for name, tensor in network.state_dict().items()}
    save_file({**tensors, **more}, path)
    return path


@pytest.mark.parametrize("labels", [list("abcde"), list("abcdex")])
def test_a_head_of_other_patterns_is_replaced_and_named_even_where_it_would_fit(
    labels: list[str], tmp_path: Path
) -> None:
    """I3A and ICPR 2012 have six patterns each, and share three of them."""
    source, path = checkpoint(tiny(), labels, tmp_path)
    target = build_network(tiny().model, 6)
    fresh = target.state_dict()["head.fc.weight"].clone()
    assert sorted(load_weights(target, path, "weights", SIX)) == ["head.fc.bias", "head.fc.weight"]
    assert torch.equal(target.state_dict()["stem.0.weight"], source.state_dict()["stem.0.weight"])
    assert torch.equal(target.state_dict()["head.fc.weight"], fresh)


def test_a_head_of_the_same_patterns_is_kept(tmp_path: Path) -> None:
    source, path = checkpoint(tiny(), SIX, tmp_path)
    target = build_network(tiny().model, 6)
    assert load_weights(target, path, "weights", SIX) == []
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor)


def test_the_head_of_a_file_that_tells_no_patterns_is_replaced(tmp_path: Path) -> None:
    path = plain(build_network(tiny().model, 6), tmp_path / "w.safetensors")
    assert load_weights(build_network(tiny().model, 6), path, "w", SIX) == ["head.fc.weight", "head.fc.bias"]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("[radius]", "[]"),
        ("[]", "[radius]"),
        ("[radius]", "[radius,area]"),
        ("[radius]", "[area]"),
        ("[radius,area]", "[area,radius]"),
    ],
)
def test_measurements_may_come_and_go_between_trainings(source: str, target: str, tmp_path: Path) -> None:
    given, path = checkpoint(tiny(f"model.aux_features={source}"), SIX, tmp_path)
    network = build_network(tiny(f"model.aux_features={target}").model, 6)
    assert "head.fc.weight" in load_weights(network, path, "weights", SIX)
    body = {name.removeprefix("backbone."): tensor for name, tensor in given.state_dict().items()}
    for name, tensor in network.state_dict().items():
        if not name.removeprefix("backbone.").startswith("head.fc."):
            assert torch.equal(tensor, body[name.removeprefix("backbone.")])


def test_a_head_of_the_same_patterns_and_measurements_is_kept(tmp_path: Path) -> None:
    recipe = tiny("model.aux_features=[radius,area]")
    source, path = checkpoint(recipe, SIX, tmp_path)
    network = build_network(recipe.model, 6)
    assert load_weights(network, path, "weights", SIX) == []
    for name, tensor in source.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor)


def test_norms_that_timm_leaves_out_of_a_hub_file_are_left_out_here(tmp_path: Path) -> None:
    """timm's ``checkpoint_filter_fn``: CoaT's published files hold norms that its network has no more."""
    recipe = load_recipe("coat-mini", "laptop")
    source = build_network(recipe.model, 1000)
    path = plain(source, tmp_path / "w.safetensors", **{"norm1.weight": torch.ones(64), "norm2.bias": torch.ones(128)})
    target = build_network(recipe.model, 6)
    assert load_weights(target, path, "w", SIX) == ["head.weight", "head.bias"]
    name = "serial_blocks1.0.mlp.fc1.weight"
    assert torch.equal(target.state_dict()[name], source.state_dict()[name])


def test_tensors_stored_under_one_of_their_names_are_found(tmp_path: Path) -> None:
    recipe = load_recipe("coat-mini", "laptop")
    source = build_network(recipe.model, 6)
    once = {name: parameter.detach().clone() for name, parameter in source.named_parameters()}
    assert len(once) < len(source.state_dict())
    save_file(once, tmp_path / "w.safetensors")
    target = build_network(recipe.model, 6)
    load_weights(target, tmp_path / "w.safetensors", "w", SIX)
    for name, tensor in source.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(target.state_dict()[name], tensor)


def test_a_body_that_does_not_fit_is_refused_and_nothing_is_loaded(tmp_path: Path) -> None:
    source = build_network(tiny().model, 6)
    names = list(source.state_dict())
    cases = {
        "is missing": {name: tensor for name, tensor in source.state_dict().items() if name != names[0]},
        "not of this network": {**source.state_dict(), "extra.weight": torch.ones(1)},
        r"is \[1\], not": {**source.state_dict(), names[0]: torch.ones(1)},
    }
    for said, tensors in cases.items():
        path = tmp_path / "w.safetensors"
        save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path)
        target = build_network(tiny().model, 6)
        before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
        with pytest.raises(UserError, match=rf"model\.weights: w\.st does not fit the network: .*{said}"):
            load_weights(target, path, "w.st", SIX)
        assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())


def test_what_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"not safetensors")
    with pytest.raises(UserError, match="not a readable safetensors file"):
        load_weights(build_network(tiny().model, 2), path, "weights", SIX)
