"""The training loop: selection, length, determinism, divergence, and what timm's users expect of one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hep2flow.errors import UserError
from hep2flow.training.checkpoint import load_checkpoint
from hep2flow.training.trainer import training_length, validate
from tests.training.builders import CPU, cell_set, tiny, trained


def test_the_same_recipe_gives_the_same_bytes_whatever_was_drawn_before(tmp_path: Path) -> None:
    noisy = ("augment.random_erasing.probability=0.5", "model.drop_path_rate=0.1", "batch.mixup=0.8")
    recipe = tiny(*noisy)
    _, _, first = trained(recipe, tmp_path / "1")
    torch.rand(11)
    _, _, second = trained(recipe, tmp_path / "2")
    assert first.read_bytes() == second.read_bytes()
    _, _, other = trained(tiny("train.seed=1", *noisy), tmp_path / "3")
    assert load_file(other)["head.fc.weight"].tolist() != load_file(first)["head.fc.weight"].tolist()


@pytest.mark.parametrize("workers", [1, 2])
def test_loader_workers_do_not_change_a_weight(workers: int, tmp_path: Path) -> None:
    keys = ("augment.random_erasing.probability=0.5", "batch.cutmix=1", "train.sampler=over")
    alone, beside = (
        load_file(trained(tiny(*keys, f"train.loader_workers={number}"), tmp_path / str(number))[2])
        for number in (0, workers)
    )
    assert all(torch.equal(alone[name], beside[name]) for name in alone)


def test_the_kept_epoch_is_the_most_accurate_and_of_those_the_lowest_loss(tmp_path: Path) -> None:
    recipe = tiny("train.epochs=8", "train.validate_every=1")
    epochs, _, checkpoint = trained(recipe, tmp_path)
    best = min(epochs, key=lambda epoch: (-(epoch.val_accuracy or 0), epoch.val_loss))
    assert [epoch for epoch in epochs if epoch.best][-1] == best
    network, description = load_checkpoint(checkpoint, CPU)
    loss, accuracy = validate(network, cell_set(recipe, 7, training=False), recipe, CPU)
    assert loss == pytest.approx(best.val_loss)
    assert accuracy == best.val_accuracy
    assert description.recipe == recipe
    assert description.labels == ["a", "b"]


@pytest.mark.parametrize(
    ("cells", "batch_size", "epochs", "updates", "expected"),
    [
        (361, 32, 30, None, (12, 30, 360)),
        (361, 16, 50, None, (23, 50, 1150)),
        (361, 32, 30, 100, (12, 9, 100)),
        (8701, 32, 30, 1632, (272, 6, 1632)),
    ],
)
def test_a_training_ends_at_epochs_or_updates_whichever_comes_first(
    cells: int, batch_size: int, epochs: int, updates: int | None, expected: tuple[int, int, int]
) -> None:
    recipe = tiny(f"train.batch_size={batch_size}", f"train.epochs={epochs}", f"train.max_updates={updates or 'null'}")
    length = training_length(recipe, torch.zeros(cells, dtype=torch.int64))
    assert (length.updates_per_epoch, length.epochs, length.updates) == expected


def test_the_last_epoch_stops_at_the_update_limit_and_is_validated(tmp_path: Path) -> None:
    epochs, batches, _ = trained(tiny("train.max_updates=5", "train.validate_every=9"), tmp_path)
    assert [epoch.updates for epoch in epochs] == [3, 5]
    assert [epoch.val_accuracy is None for epoch in epochs] == [True, False]
    assert batches[-1].update == batches[-1].updates == 5


def test_every_epoch_tells_the_rate_of_its_last_update(tmp_path: Path) -> None:
    recipe = tiny("schedule.warmup_updates=0", "optim.lr=0.01", "optim.head_multiplier=5")
    epochs, batches, _ = trained(recipe, tmp_path)
    expected = [0.01 * 0.5 * (1 + math.cos(math.pi * update / 9)) for update in (2, 5, 8)]
    assert [epoch.learning_rate for epoch in epochs] == pytest.approx(expected)
    assert [(batch.epoch, batch.update) for batch in batches] == [(1 + update // 3, update + 1) for update in range(9)]


def test_accumulation_gives_the_update_of_the_whole_batch(tmp_path: Path) -> None:
    weights = []
    for accumulation in (1, 5):
        folder = tmp_path / str(accumulation)
        folder.mkdir()
        recipe = tiny("train.epochs=1", f"train.accumulation={accumulation}", "optim.name=sgd", "optim.lr=0.1")
        _, _, checkpoint = trained(recipe, folder)
        weights.append(load_checkpoint(checkpoint, CPU)[0].state_dict())
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-4, atol=1e-5)


def test_divergence_is_told_with_its_cells(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"diverged.*cells c0.*optim\.lr"):
        trained(tiny("optim.lr=1e30", "train.clipping=null", "train.epochs=20"), tmp_path)


def test_over_sampling_lengthens_the_epoch() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    for sampler, updates in (("none", 20), ("balanced", 20), ("over", 36), ("under", 4)):
        assert training_length(tiny(f"train.sampler={sampler}"), labels).updates_per_epoch == updates


def test_the_averaged_network_is_the_one_that_is_kept(tmp_path: Path) -> None:
    keys = ("train.epochs=1", "optim.lr=0.1")
    raw = load_file(trained(tiny(*keys), tmp_path / "raw")[2])
    averaged = load_file(trained(tiny(*keys, "train.ema=0.999"), tmp_path / "averaged")[2])
    assert not torch.equal(raw["stem.0.weight"], averaged["stem.0.weight"])


@pytest.mark.parametrize("freeze", ["none", "stages:2"])
def test_forgotten_activations_change_no_weight(freeze: str, tmp_path: Path) -> None:
    keys = ("model.network=convnext_atto", "train.epochs=1", "model.weights=given", f"optim.freeze={freeze}")
    plain = load_file(trained(tiny(*keys), tmp_path / "plain")[2])
    shown: list[torch.nn.Module] = []
    recipe = tiny(*keys, "model.gradient_checkpointing=true")
    forgetful = load_file(trained(recipe, tmp_path / "forgetful", shown.append)[2])
    assert all(stage.grad_checkpointing for stage in shown[-1].stages)  # type: ignore[union-attr]
    assert all(torch.equal(plain[name], forgetful[name]) for name in plain)
