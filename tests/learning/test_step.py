"""One update: the paper's two recipes at full size against plain PyTorch, and the options of timm's users."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from hep2flow.learning.augment import BatchMixer
from hep2flow.learning.batch import Batch
from hep2flow.learning.model import build_network, timm_network
from hep2flow.learning.randomness import seeded
from hep2flow.learning.step import Step
from hep2flow.recipe import Recipe, load_recipe

from .builders import CPU, batch_of, tiny


def mixed(recipe: Recipe, batch: Batch) -> Batch:
    """The batch as the loop hands it to a step; the images given stay as they are."""
    return BatchMixer(recipe, 6)(batch._replace(images=batch.images.clone()))


def weights(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def gradients(network: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    named = dict(network.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def full_size(name: str) -> tuple[Recipe, torch.nn.Module]:
    recipe = load_recipe(name, overrides=["model.weights=none", "resources.gpus_per_worker=0"])
    torch.manual_seed(3)
    return recipe, build_network(recipe.model, 6).train()


def test_convnext_step_is_mixup_soft_cross_entropy_and_adam() -> None:
    """Paper Table 2, column 1, written out: smoothing .1, mixup .8, soft targets, Adam at 4e-6 without decay."""
    recipe, network = full_size("convnext-b")
    batch, seed = batch_of(3, 224), 1
    before = weights(network)
    with seeded(seed):
        np.random.rand()  # whether to mix at all
        drawn = float(np.random.rand())  # below .5 timm picks cutmix
        share = float(np.random.beta(0.8, 0.8))
    assert drawn >= 0.5, "this seed mixes the whole image"
    targets = torch.full((3, 6), 0.1 / 6)
    targets[torch.arange(3), batch.labels] += 0.9
    targets = share * targets + (1 - share) * targets.flip(0)
    images = share * batch.images + (1 - share) * batch.images.flip(0)
    logits = network(images)
    loss = -(targets * (logits - logits.logsumexp(1, keepdim=True))).sum(1).mean()
    gradient = gradients(network, loss)

    step = Step(network, recipe, CPU)
    with seeded(seed):
        told = step(mixed(recipe, batch))
    torch.testing.assert_close(told, loss.detach(), rtol=1e-5, atol=1e-6)
    for name, now in weights(network).items():
        # Adam's first step: mean and square of the gradient, both corrected for their start at 0.
        expected = before[name] - 4e-6 * gradient[name] / (gradient[name].abs() + 1e-8)
        # A gradient that is nearly 0 has a sign that rounding decides: one rate either way is all it can do.
        clear = gradient[name].abs() > 1e-5 * gradient[name].abs().max()
        torch.testing.assert_close(now[clear], expected[clear], rtol=1e-6, atol=1e-7)
        assert float((now - before[name]).abs().max()) < 4.1e-6 + 1e-6 * float(before[name].abs().max())


def adamp(before: torch.Tensor, gradient: torch.Tensor, rate: float, decay: float) -> torch.Tensor:
    """First step of AdamP (Heo et al. 2021, algorithm 2) with timm's choices: Nesterov, weight-decay ratio 0.01.

    Its authors' code is without Nesterov and has a ratio of 0.1; the paper does not say which it took.
    """
    # Nesterov: 0.9 of the mean, which is 0.1 of the gradient, and 0.1 of the gradient; the mean's start at 0 corrected.
    update = (0.9 * 0.1 + 0.1) / 0.1 * gradient / (gradient.abs() + 1e-8)
    ratio = 1.0
    if before.ndim > 1:
        for rows in (before.shape[0], 1):
            w, g, u = (tensor.reshape(rows, -1) for tensor in (before, gradient, update))
            cosine = (functional.normalize(g, dim=1) * functional.normalize(w, dim=1)).sum(1).abs()
            if float(cosine.max()) < 0.1 / math.sqrt(w.shape[1]):
                direction = w / (w.norm(dim=1, keepdim=True) + 1e-8)
                update = (u - direction * (direction * u).sum(1, keepdim=True)).reshape(before.shape)
                ratio = 0.01
                break
    return before * (1 - rate * decay * ratio) - rate * update


@pytest.mark.parametrize("name", ["coat-mini", "coatnet-0"])
def test_coat_step_is_binary_cross_entropy_and_adamp(name: str) -> None:
    """Paper Table 2, column 2, written out: one against all, no smoothing, no mixing, AdamP at 1e-5 with decay .1."""
    recipe, network = full_size(name)
    batch = batch_of(2, 224)
    before = weights(network)
    logits = network(batch.images)
    targets = functional.one_hot(batch.labels, 6).float()
    # Its value is written out in test_losses; here the rounding has to be the same, to the sign of small gradients.
    loss = functional.binary_cross_entropy_with_logits(logits, targets)
    gradient = gradients(network, loss)

    step = Step(network, recipe, CPU)
    told = step(mixed(recipe, batch))
    torch.testing.assert_close(told, loss.detach(), rtol=1e-5, atol=1e-6)
    undecayed = timm_network(network).no_weight_decay()  # type: ignore[operator]
    different = 0
    for parameter_name, now in weights(network).items():
        old = before[parameter_name]
        decay = 0.0 if old.ndim <= 1 or parameter_name in undecayed else 0.1
        expected = adamp(old, gradient[parameter_name], 1e-5, decay)
        clear = gradient[parameter_name].abs() > 1e-4 * gradient[parameter_name].abs().max()
        different += int((~torch.isclose(now[clear], expected[clear], rtol=1e-6, atol=2e-7)).sum())
    assert different == 0


def moved(recipe: Recipe, batch: Batch, updates: int = 1) -> torch.nn.Module:
    torch.manual_seed(0)
    network = build_network(recipe.model, 6).train()
    step = Step(network, recipe, CPU)
    for update in range(updates):
        with seeded(update):
            assert torch.isfinite(step(mixed(recipe, batch)))
    return network


@pytest.mark.parametrize("size", [12, 9])
@pytest.mark.parametrize("parts", [2, 4])
def test_accumulation_gives_the_update_of_the_whole_batch(size: int, parts: int) -> None:
    keys = ("optim.name=sgd", "optim.lr=0.1", "train.batch_size=12", "batch.mixup=0.8")
    whole = moved(tiny(*keys), batch_of(size, 64))
    cut = moved(tiny(*keys, f"train.accumulation={parts}"), batch_of(size, 64))
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(cut.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)


def test_clipping_bounds_the_norm_of_the_step() -> None:
    keys = ("optim.name=sgd", "optim.lr=1", "optim.betas=[0.5,0.9]", "optim.weight_decay=0")
    lengths = {}
    for clipping in ("null", "0.01"):
        recipe = tiny(*keys, f"train.clipping={clipping}")
        torch.manual_seed(0)
        start = weights(build_network(recipe.model, 6))
        end = weights(moved(recipe, batch_of(6, 64)))
        lengths[clipping] = math.sqrt(sum(float(((end[name] - start[name]) ** 2).sum()) for name in start))
    # timm's SGD is Nesterov's: its first step is 1 + momentum times the gradient.
    assert lengths["null"] > 2 * 1.5 * 0.01
    assert lengths["0.01"] == pytest.approx(1.5 * 0.01, rel=1e-3)


def test_the_average_follows_the_weights_as_timm_says() -> None:
    from timm.utils import ModelEmaV3

    recipe = tiny("train.ema=0.9", "optim.lr=0.1")
    torch.manual_seed(0)
    network = build_network(recipe.model, 6).train()
    step = Step(network, recipe, CPU)
    timms = ModelEmaV3(network, decay=0.9, use_warmup=True)
    for update in range(1, 4):
        step(mixed(recipe, batch_of(6, 64)))
        timms.update(network, step=update)
    assert step.candidate is not network
    for name, tensor in timms.module.state_dict().items():
        assert torch.equal(step.candidate.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("option", "tolerance"), [("train.channels_last=true", 1e-4), ("model.gradient_checkpointing=true", 0.0)]
)
def test_options_of_speed_and_memory_change_no_result(option: str, tolerance: float) -> None:
    keys = ("optim.name=sgd", "optim.lr=0.1")
    plain, other = moved(tiny(*keys), batch_of(6, 64)), moved(tiny(*keys, option), batch_of(6, 64))
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], tensor, rtol=tolerance, atol=tolerance)


def test_bf16_learns_nearly_the_same() -> None:
    keys = ("optim.name=sgd", "optim.lr=0.1")
    plain, half = moved(tiny(*keys), batch_of(6, 64)), moved(tiny(*keys, "train.precision=bf16"), batch_of(6, 64))
    plain_head, half_head = (network.state_dict()["head.fc.weight"] for network in (plain, half))
    assert half_head.dtype == torch.float32
    assert not torch.equal(plain_head, half_head)
    torch.testing.assert_close(plain_head, half_head, rtol=0.1, atol=1e-2)


def test_fp16_scales_its_loss_and_the_others_do_not() -> None:
    """The scaling itself wants a GPU."""
    for precision, scaled in (("fp32", False), ("bf16", False), ("fp16", torch.cuda.is_available())):
        recipe = tiny(f"train.precision={precision}", "resources.gpus_per_worker=1")
        step = Step(build_network(recipe.model, 6), recipe, torch.device("cuda" if scaled else "cpu"))
        assert step.scaler.is_enabled() is (precision == "fp16")


def test_a_loss_that_is_no_number_changes_nothing() -> None:
    recipe = tiny()
    network = build_network(recipe.model, 6).train()
    step = Step(network, recipe, CPU)
    before = weights(network)
    batch = batch_of(6, 64)
    batch.images[0, 0, 0, 0] = float("nan")
    assert not torch.isfinite(step(mixed(recipe, batch)))
    assert step.updates == 0
    for name, now in weights(network).items():
        assert torch.equal(now, before[name])


@pytest.mark.slow
def test_a_compiled_network_learns_the_same() -> None:
    keys = ("optim.name=sgd", "optim.lr=0.1")
    plain, compiled = moved(tiny(*keys), batch_of(6, 64)), moved(tiny(*keys, "train.compile=true"), batch_of(6, 64))
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)
