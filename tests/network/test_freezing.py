"""Frozen layers stay as they are, and move again when it is their turn."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hep2flow.data.batch import BatchMixer
from hep2flow.errors import UserError
from hep2flow.network.freezing import TOP, Freezing, check_freezing, stage_numbers, stage_of
from hep2flow.network.model import build_network, head_parameters
from hep2flow.recipe import Recipe
from hep2flow.training.train_step import TrainStep
from tests.training.builders import CPU, cell_set, tiny, trained

GIVEN = "model.weights=given.safetensors"  # never read: to freeze random weights is refused


def frozen(network: torch.nn.Module) -> set[int]:
    return {stage_of(name) for name, parameter in network.named_parameters() if not parameter.requires_grad}


def of(network: str, *overrides: str) -> Recipe:
    return tiny(f"model.network={network}", "model.layer_scale=null", GIVEN, *overrides)


@pytest.mark.parametrize("network", ["convnext_atto", "coat_lite_tiny", "coat_tiny", "coatnet_pico_rw_224"])
def test_the_papers_networks_have_four_stages(network: str) -> None:
    assert stage_numbers(build_network(of(network).model, 2)) == [1, 2, 3, 4]


@pytest.mark.parametrize("network", ["convnext_atto", "coat_lite_tiny", "coat_tiny", "coatnet_pico_rw_224"])
@pytest.mark.parametrize("features", ["[]", "[area]"])
def test_a_training_step_moves_what_is_not_frozen_and_nothing_else(network: str, features: str) -> None:
    for freeze, still in (("backbone", {0, 1, 2, 3, 4, TOP}), ("stages:2", {0, 1, 2}), ("none", set())):
        recipe = of(network, f"optim.freeze={freeze}", f"model.aux_features={features}")
        built = build_network(recipe.model, 2)
        step = TrainStep(built, recipe, CPU)
        built.train()
        Freezing(built, recipe.optim).before_epoch(1)
        before = {name: tensor.clone() for name, tensor in built.state_dict().items()}
        (batch,) = cell_set(recipe, 6).batches([[(1, index, 0) for index in range(6)]])
        step(BatchMixer(recipe, 2)(batch))
        head = {id(parameter) for parameter in head_parameters(getattr(built, "backbone", built))}
        for name, parameter in built.named_parameters():
            stage = stage_of(name.removeprefix("backbone."))
            if id(parameter) in head:
                assert not torch.equal(parameter, before[name]), f"{freeze}: the head's {name} moves"
            elif stage in still:
                assert torch.equal(parameter, before[name]), f"{freeze}: {name} is frozen"
        moved = {
            stage_of(name.removeprefix("backbone."))
            for name, parameter in built.named_parameters()
            if id(parameter) not in head and not torch.equal(parameter, before[name])
        }
        assert moved.isdisjoint(still)
        if freeze == "stages:2":
            assert moved >= {3, 4}
        for name, buffer in built.named_buffers():
            if "running" in name and stage_of(name.removeprefix("backbone.")) in still:
                assert torch.equal(buffer, before[name]), f"{freeze}: statistics of {name}"


def test_gradual_unfreezing_goes_from_the_top_down() -> None:
    recipe = of("convnext_atto", "optim.freeze=backbone", "optim.unfreeze_every=2")
    network = build_network(recipe.model, 2)
    freezing = Freezing(network, recipe.optim)
    found = []
    for epoch in range(1, 14):
        network.train()
        freezing.before_epoch(epoch)
        found.append(frozen(network))
    everything = [0, 1, 2, 3, 4, TOP]
    assert found == [set(everything[: max(6 - epoch // 2, 0)]) for epoch in range(13)]


def test_frozen_batch_norms_are_in_evaluation_mode_until_they_move() -> None:
    recipe = of("coatnet_pico_rw_224", "optim.freeze=backbone", "optim.unfreeze_every=1")
    network = build_network(recipe.model, 2)
    freezing = Freezing(network, recipe.optim)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    for epoch, training in ((1, False), (7, True)):
        network.train()
        freezing.before_epoch(epoch)
        assert {norm.training for norm in norms} == {training}


def test_stages_that_a_network_does_not_have_are_refused() -> None:
    check_freezing(of("convnext_atto", "optim.freeze=stages:4"))
    with pytest.raises(UserError, match=r"optim\.freeze: convnext_atto has 4 stages, not stages:5; allowed: none"):
        check_freezing(of("convnext_atto", "optim.freeze=stages:5"))
    with pytest.raises(UserError, match=r"test_vit has no named stages.*allowed: none, backbone"):
        check_freezing(of("test_vit", "optim.freeze=stages:1", "model.image_size=160"))


def test_a_training_leaves_frozen_parts_alone_and_moves_them_from_the_top_down(tmp_path: Path) -> None:
    recipe = tiny(GIVEN, "optim.freeze=backbone", "optim.unfreeze_every=1", "train.epochs=7", "optim.weight_decay=0.1")
    shown: list[dict[str, torch.Tensor]] = []
    trained(
        recipe, tmp_path, lambda network: shown.append({n: t.detach().clone() for n, t in network.named_parameters()})
    )
    everything = [0, 1, 2, 3, 4, TOP]
    for epoch, (before, after) in enumerate(itertools.pairwise(shown)):
        parts = {
            stage_of(name): not torch.equal(before[name], after[name])
            for name in before
            if not name.startswith("head.fc") and name.endswith(".weight")
        }
        still = everything[: max(6 - epoch, 0)]
        assert parts == {part: part not in still for part in everything}, f"epoch {epoch + 1}"
        assert not torch.equal(before["head.fc.weight"], after["head.fc.weight"]), "the head always moves"


@pytest.mark.parametrize("option", ["train.ema=0.9", "train.accumulation=5", "train.clipping=0.1"])
def test_frozen_parts_are_kept_as_they_came_whatever_else_is_on(option: str, tmp_path: Path) -> None:
    recipe = of("coatnet_pico_rw_224", "optim.freeze=stages:1", "train.epochs=1", "batch.mixup=0.8", option)
    start: list[dict[str, torch.Tensor]] = []

    def watch(network: torch.nn.Module) -> None:
        if not start:
            start.append({name: tensor.clone() for name, tensor in network.state_dict().items()})

    kept = load_file(trained(recipe, tmp_path, watch)[2])
    statistics = [name for name in kept if name.endswith("running_mean")]
    assert {stage_of(name) for name in statistics} == {0, 1, 2}
    for name in (*statistics, "stem.conv1.weight", "stages.3.blocks.0.attn.qkv.weight", "head.fc.weight"):
        assert torch.equal(kept[name], start[0][name]) is (stage_of(name) <= 1), name
