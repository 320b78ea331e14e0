"""Learning rates at every update, and which parameter moves how fast, against the paper's Table 2 written out."""

from __future__ import annotations

import math

import pytest
import torch
from timm.optim import create_optimizer_v2

from hep2flow.network.model import build_network, head_parameters, timm_network
from hep2flow.recipe import Recipe, load_recipe
from hep2flow.training.optimizer import LearningRate, build_optimizer
from tests.training.builders import tiny


def rates(recipe: Recipe, updates: int, per_epoch: int) -> list[float]:
    optimizer = build_optimizer(build_network(tiny().model, 2), recipe)
    rate = LearningRate(optimizer, recipe, updates=updates, updates_per_epoch=per_epoch)
    return [rate.before_update(update) for update in range(updates)]


def cosine(top: float, update: int, updates: int) -> float:
    return top * 0.5 * (1 + math.cos(math.pi * update / updates))


def test_convnext_anneals_from_4e_6_over_30_epochs_of_12_updates() -> None:
    found = rates(load_recipe("convnext-b"), 360, 12)
    assert found == pytest.approx([cosine(4e-6, update, 360) for update in range(360)], rel=1e-9)
    assert found[0] == 4e-6
    assert found[180] == pytest.approx(2e-6)


def test_coat_warms_up_for_10_of_50_epochs_of_23_updates() -> None:
    found = rates(load_recipe("coat-mini"), 1150, 23)
    warm = [1e-5 / 230 + (1e-5 - 1e-5 / 230) * update / 230 for update in range(230)]
    assert found[:230] == pytest.approx(warm, rel=1e-9)
    assert found[230:] == pytest.approx([cosine(1e-5, update, 1150) for update in range(230, 1150)], rel=1e-9)
    every_epoch = [found[epoch * 23] for epoch in range(50)]
    assert every_epoch[:10] == sorted(every_epoch[:10])
    assert every_epoch[10:] == sorted(every_epoch[10:], reverse=True)


@pytest.mark.parametrize(("rule", "times"), [("none", 1), ("linear", 4), ("sqrt", 2)])
def test_another_batch_changes_the_rate_by_the_rule_that_is_named(rule: str, times: int) -> None:
    recipe = load_recipe("coat-mini", overrides=["train.batch_size=64", f"optim.lr_scaling={rule}"])
    assert recipe.learning_rate == pytest.approx(times * 1e-5, rel=1e-12)
    found = rates(recipe, 300, 6)
    assert found[0] == pytest.approx(times * 1e-5 / 60, rel=1e-9)
    assert found[60:] == pytest.approx([times * cosine(1e-5, update, 300) for update in range(60, 300)], rel=1e-9)


def test_warm_restarts_begin_each_time_a_little_lower() -> None:
    recipe = tiny("schedule.warmup_updates=0", "schedule.cycles=3", "schedule.cycle_decay=0.5", "optim.lr=1")
    found = rates(recipe, 30, 10)
    expected = [cosine(0.5 ** (update // 10), update % 10, 10) for update in range(30)]
    assert found == pytest.approx(expected, rel=1e-9)


def test_a_warm_up_lies_in_the_first_cycle_and_not_before_it() -> None:
    recipe = tiny("schedule.warmup_updates=4", "schedule.cycles=2", "schedule.cycle_decay=0.1", "optim.lr=1")
    found = rates(recipe, 20, 10)
    expected = [0.25, 0.4375, 0.625, 0.8125] + [cosine(1, update, 10) for update in range(4, 10)]
    assert found == pytest.approx(expected + [cosine(0.1, update, 10) for update in range(10)], rel=1e-9)


def test_a_short_try_of_a_long_recipe_warms_up_for_half_of_it_at_most() -> None:
    found = rates(load_recipe("coat-mini"), 20, 23)
    warm = [1e-5 * (0.1 + 0.9 * update / 10) for update in range(10)]
    assert found == pytest.approx(warm + [cosine(1e-5, update, 20) for update in range(10, 20)], rel=1e-9)


def test_a_length_that_the_cycles_do_not_divide_is_annealed_to_its_end() -> None:
    found = rates(tiny("schedule.warmup_updates=0", "schedule.cycles=3", "optim.lr=1"), 31, 10)
    assert found == pytest.approx([cosine(1, update % 11, 11) for update in range(31)], rel=1e-9)


def test_a_constant_rate_warms_up_too() -> None:
    found = rates(tiny("schedule.name=constant", "schedule.warmup_updates=4", "optim.lr=1"), 10, 5)
    assert found == pytest.approx([0.25, 0.4375, 0.625, 0.8125, 1, 1, 1, 1, 1, 1])


def test_every_group_follows_the_schedule_by_its_scale() -> None:
    recipe = tiny("optim.head_multiplier=10", "optim.layer_decay=0.5", "schedule.warmup_updates=0", "optim.lr=1")
    for name in ("cosine", "constant"):
        changed = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"name": name})})
        optimizer = build_optimizer(build_network(recipe.model, 2), changed)
        rate = LearningRate(optimizer, changed, updates=10, updates_per_epoch=5)
        told = rate.before_update(5)
        assert told == pytest.approx(0.5 if name == "cosine" else 1)
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(told * group["lr_scale"])


def test_convnext_is_moved_by_adam_without_decay() -> None:
    recipe = load_recipe("convnext-b", overrides=["model.network=convnext_atto"])
    network = build_network(recipe.model, 6)
    optimizer = build_optimizer(network, recipe)
    assert type(optimizer) is torch.optim.Adam
    moved = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert set(map(id, moved)) == set(map(id, network.parameters()))
    for group in optimizer.param_groups:
        assert (group["lr"], group["weight_decay"], group["betas"], group["lr_scale"]) == (4e-6, 0, (0.9, 0.999), 1)


@pytest.mark.parametrize(("name", "small"), [("coat-mini", "coat_tiny"), ("coatnet-0", "coatnet_pico_rw_224")])
def test_coat_is_moved_by_adamp_which_decays_matrices_only(name: str, small: str) -> None:
    recipe = load_recipe(name, overrides=[f"model.network={small}"])
    network = build_network(recipe.model, 6)
    optimizer = build_optimizer(network, recipe)
    assert type(optimizer).__name__ == "AdamP"
    decay = {id(parameter): group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    assert set(decay) == set(map(id, network.parameters()))
    for parameter_name, parameter in network.named_parameters():
        # CoaT's class tokens are no matrices either, though they have three dimensions; timm names them, and so it
        # does CoAtNet's tables of relative positions.
        undecayed = parameter.ndim <= 1 or parameter_name.startswith("cls_token") or "rel_pos" in parameter_name
        assert decay[id(parameter)] == (0 if undecayed else 0.1), parameter_name
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"], group["lr_scale"]) == (1e-5, (0.9, 0.999), 1)


@pytest.mark.parametrize("network", ["convnext_atto", "coat_lite_tiny", "coatnet_pico_rw_224"])
@pytest.mark.parametrize("features", ["[]", "[radius]"])
def test_layer_decay_is_timms(network: str, features: str) -> None:
    recipe = tiny(
        f"model.network={network}",
        f"model.aux_features={features}",
        "model.layer_scale=null",
        "optim.layer_decay=0.7",
        "optim.head_multiplier=10",
    )
    built = build_network(recipe.model, 6)
    ours = build_optimizer(built, recipe)
    model = timm_network(built)
    timms = create_optimizer_v2(model, "adamw", lr=1, weight_decay=recipe.optim.weight_decay, layer_decay=0.7)
    head = set(map(id, head_parameters(model)))

    def scales(optimizer: torch.optim.Optimizer) -> dict[int, tuple[float, float]]:
        return {id(p): (g["lr_scale"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}

    expected = {key: (scale * (10 if key in head else 1), decay) for key, (scale, decay) in scales(timms).items()}
    assert scales(ours) == expected
    assert {scale for key, (scale, _) in scales(ours).items() if key in head} == {10.0}


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_a_fused_optimizer_moves_as_the_usual_one(name: str) -> None:
    moved = []
    for fused in ("false", "true"):
        recipe = tiny(f"optim.name={name}", "optim.lr=0.01", "optim.weight_decay=0.1", f"optim.fused={fused}")
        torch.manual_seed(0)
        network = build_network(recipe.model, 2)
        optimizer = build_optimizer(network, recipe)
        assert all(group["fused"] is (True if fused == "true" else None) for group in optimizer.param_groups)
        for _ in range(3):
            for parameter in network.parameters():
                parameter.grad = torch.cos(parameter.detach())
            optimizer.step()
        moved.append(torch.cat([parameter.detach().flatten() for parameter in network.parameters()]))
    torch.testing.assert_close(moved[1], moved[0], rtol=1e-5, atol=1e-6)
