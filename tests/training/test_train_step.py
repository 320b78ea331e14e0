"""One update: the paper's two recipes at full size against plain PyTorch, and the options of timm's users."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from hep2flow.data.batch import Batch, BatchMixer
from hep2flow.data.seeding import seeded
from hep2flow.network.model import build_network, timm_network
from hep2flow.recipe import Recipe, load_recipe
from hep2flow.training.process_group import ProcessGroup
from hep2flow.training.train_step import TrainStep
from tests.training.builders import CPU, batch_of, tiny


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


def mixed_by_hand(batch: Batch, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and soft targets as the paper's mixup .8, cutmix 1 and smoothing .1 make them of three draws."""
    size, side = len(batch.images), batch.images.shape[-1]
    images, mirrored = batch.images.clone(), batch.images.flip(0)
    with seeded(seed):
        np.random.rand()  # whether to mix at all: always
        if np.random.rand() < 0.5:
            cut = int(side * math.sqrt(1 - np.random.beta(1.0, 1.0)))
            y, x = np.random.randint(0, side), np.random.randint(0, side)
            rows = slice(max(y - cut // 2, 0), min(y + (cut + 1) // 2, side))
            columns = slice(max(x - cut // 2, 0), min(x + (cut + 1) // 2, side))
            images[:, :, rows, columns] = mirrored[:, :, rows, columns]
            share = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / side**2
        else:
            share = float(np.random.beta(0.8, 0.8))
            images = share * images + (1 - share) * mirrored
    targets = torch.full((size, 6), 0.1 / 6)
    targets[torch.arange(size), batch.labels] += 0.9
    return images, share * targets + (1 - share) * targets.flip(0)


def soft_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return -(targets * logits.log_softmax(1)).sum(1).mean()


class Adam:
    """Adam (Kingma and Ba 2015), algorithm 1, of one parameter, with the paper's betas (.9, .999)."""

    def __init__(self) -> None:
        self.mean: torch.Tensor | float = 0.0
        self.square: torch.Tensor | float = 0.0
        self.updates = 0

    def direction(self, gradient: torch.Tensor, nesterov: bool = False) -> torch.Tensor:
        """What the rate is multiplied with."""
        self.updates += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient**2
        momentum = 0.9 * self.mean + 0.1 * gradient if nesterov else self.mean
        scale = (self.square / (1 - 0.999**self.updates)).sqrt() + 1e-8
        return momentum / (1 - 0.9**self.updates) / scale


def adamp(
    before: torch.Tensor, gradient: torch.Tensor, direction: torch.Tensor, rate: float, decay: float
) -> torch.Tensor:
    """A step of AdamP (Heo et al. 2021, algorithm 2) with timm's choices: Nesterov, weight-decay ratio 0.01.

    Its authors' code is without Nesterov and has a ratio of 0.1; the paper does not say which it took.
    """
    update, ratio = direction, 1.0
    if before.ndim > 1:
        for rows in (before.shape[0], 1):
            w, g, u = (tensor.reshape(rows, -1) for tensor in (before, gradient, update))
            cosine = (functional.normalize(g, dim=1) * functional.normalize(w, dim=1)).sum(1).abs()
            if float(cosine.max()) < 0.1 / math.sqrt(w.shape[1]):
                across = w / (w.norm(dim=1, keepdim=True) + 1e-8)
                update = (u - across * (across * u).sum(1, keepdim=True)).reshape(before.shape)
                ratio = 0.01
                break
    return before * (1 - rate * decay * ratio) - rate * update


def compare(now: torch.Tensor, expected: torch.Tensor, gradient: torch.Tensor, rate: float) -> int:
    """Equal to float32's rounding and a thousandth of the rate, where the gradient's sign is no matter of rounding.

    Returns how many weights that are.
    """
    clear = gradient.abs() > 1e-4 * gradient.abs().max()
    torch.testing.assert_close(now[clear], expected[clear], rtol=1e-6, atol=1e-7 + rate / 1000)
    return int(clear.sum())


def test_convnext_step_is_mixup_soft_cross_entropy_and_adam() -> None:
    """Paper Table 2, column 1, written out: smoothing .1, mixup .8, soft targets, Adam at 4e-6 without decay."""
    recipe, network = full_size("convnext-b")
    batch, seed = batch_of(3, 224), 1
    before = weights(network)
    images, targets = mixed_by_hand(batch, seed)
    assert (images[0] == batch.images[0]).float().mean() < 0.01, "this seed mixes the whole image"
    loss = soft_cross_entropy(network(images), targets)
    gradient = gradients(network, loss)

    step = TrainStep(network, recipe, CPU)
    with seeded(seed):
        told = step(mixed(recipe, batch))
    torch.testing.assert_close(told, loss.detach(), rtol=1e-5, atol=1e-6)
    compared = 0
    for name, now in weights(network).items():
        compared += compare(now, before[name] - 4e-6 * Adam().direction(gradient[name]), gradient[name], 4e-6)
        # A gradient that is nearly 0 has a sign that rounding decides: one rate either way is all it can do.
        assert float((now - before[name]).abs().max()) < 4.1e-6 + 1e-6 * float(before[name].abs().max())
    assert compared > 0.9 * sum(tensor.numel() for tensor in before.values())


@pytest.mark.parametrize("name", ["coat-mini", "coatnet-0"])
def test_coat_step_is_binary_cross_entropy_and_adamp(name: str) -> None:
    """Paper Table 2, column 2, written out: one against all, no smoothing, no mixing, AdamP at 1e-5 with decay .1."""
    recipe, network = full_size(name)
    batch = batch_of(2, 224)
    before = weights(network)
    targets = functional.one_hot(batch.labels, 6).float()
    # Its value is written out in test_losses; here the rounding has to be the same, to the sign of small gradients.
    loss = functional.binary_cross_entropy_with_logits(network(batch.images), targets)
    gradient = gradients(network, loss)

    step = TrainStep(network, recipe, CPU)
    torch.testing.assert_close(step(mixed(recipe, batch)), loss.detach(), rtol=1e-5, atol=1e-6)
    undecayed = timm_network(network).no_weight_decay()  # type: ignore[operator]
    compared = 0
    for parameter_name, now in weights(network).items():
        old, slope = before[parameter_name], gradient[parameter_name]
        decay = 0.0 if old.ndim <= 1 or parameter_name in undecayed else 0.1
        compared += compare(now, adamp(old, slope, Adam().direction(slope, nesterov=True), 1e-5, decay), slope, 1e-5)
    assert compared > 0.9 * sum(tensor.numel() for tensor in before.values())


@pytest.mark.parametrize(("name", "small"), [("convnext-b", "convnext_atto"), ("coat-mini", "coat_lite_tiny")])
def test_later_updates_remember_the_earlier_ones(name: str, small: str) -> None:
    """Both betas, mixup and cutmix, batches of changing size: each update from the weights that the last one left."""
    # At the paper's rates what an update remembers is too little to tell from rounding.
    recipe = load_recipe(
        name, overrides=[f"model.network={small}", "model.weights=none", "model.image_size=64", "optim.lr=1e-3"]
    )
    torch.manual_seed(3)
    network = build_network(recipe.model, 6).train()
    step = TrainStep(network, recipe, CPU)
    adams = {parameter_name: Adam() for parameter_name in weights(network)}
    undecayed: set[str] = getattr(network, "no_weight_decay", set)()
    for seed, size in enumerate((6, 5, 1, 6)):
        batch, before = batch_of(size, 64), weights(network)
        if name == "convnext-b":
            images, targets = mixed_by_hand(batch, seed)
            gradient = gradients(network, soft_cross_entropy(network(images), targets))
        else:
            targets = functional.one_hot(batch.labels, 6).float()
            gradient = gradients(network, functional.binary_cross_entropy_with_logits(network(batch.images), targets))
        with seeded(seed):
            step(mixed(recipe, batch))
        for parameter_name, now in weights(network).items():
            old, slope = before[parameter_name], gradient[parameter_name]
            if name == "convnext-b":
                expected = old - 1e-3 * adams[parameter_name].direction(slope)
            else:
                direction = adams[parameter_name].direction(slope, nesterov=True)
                decay = 0.0 if old.ndim <= 1 or parameter_name in undecayed else 0.1
                expected = adamp(old, slope, direction, 1e-3, decay)
            compare(now, expected, slope, 1e-3)
    assert step.updates == 4


def moved(recipe: Recipe, batch: Batch, updates: int = 1) -> torch.nn.Module:
    torch.manual_seed(0)
    network = build_network(recipe.model, 6).train()
    step = TrainStep(network, recipe, CPU)
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
    step = TrainStep(network, recipe, CPU)
    timms = ModelEmaV3(network, decay=0.9, use_warmup=True)
    for update in range(1, 4):
        step(mixed(recipe, batch_of(6, 64)))
        timms.update(network, step=update)
    assert step.evaluated_network is not network
    for name, tensor in timms.module.state_dict().items():
        assert torch.equal(step.evaluated_network.state_dict()[name], tensor)


def test_the_layout_of_the_pixels_changes_no_result() -> None:
    keys = ("optim.name=sgd", "optim.lr=0.1")
    plain = moved(tiny(*keys), batch_of(6, 64))
    other = moved(tiny(*keys, "train.channels_last=true"), batch_of(6, 64))
    assert other.state_dict()["stem.0.weight"].is_contiguous(memory_format=torch.channels_last)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], tensor, rtol=1e-4, atol=1e-4)


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
        step = TrainStep(build_network(recipe.model, 6), recipe, torch.device("cuda" if scaled else "cpu"))
        assert step.scaler.is_enabled() is (precision == "fp16")


@pytest.mark.parametrize(
    ("device", "accumulation", "workers", "mode"),
    [
        ("cuda", 1, 1, "reduce-overhead"),
        ("cuda", 5, 1, "default"),
        ("cuda", 1, 2, "default"),
        ("cpu", 1, 1, "default"),
    ],
)
def test_cuda_graphs_are_asked_for_where_gradients_do_not_outlive_them_mocked(
    device: str, accumulation: int, workers: int, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graphs themselves want a GPU."""
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(torch, "compile", lambda network, **options: asked.append(options) or network)
    recipe = tiny("train.compile=true", f"train.accumulation={accumulation}")
    TrainStep(build_network(recipe.model, 6), recipe, torch.device(device), ProcessGroup(0, workers))
    assert asked == [{"dynamic": False, "mode": mode}]


@pytest.mark.slow
def test_a_compiled_network_learns_the_same() -> None:
    keys = ("optim.name=sgd", "optim.lr=0.1")
    plain, compiled = moved(tiny(*keys), batch_of(6, 64)), moved(tiny(*keys, "train.compile=true"), batch_of(6, 64))
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)
