"""The training loop: selection, length, schedule, determinism, divergence."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from hep2flow.errors import UserError
from hep2flow.learning.checkpoint import Description, load_checkpoint, save_checkpoint
from hep2flow.learning.loop import Epoch, Progress, fit, plan, validate
from hep2flow.learning.losses import probabilities
from hep2flow.learning.model import build_network, check_network, load_weights
from hep2flow.learning.optim import LearningRate
from hep2flow.learning.predict import predict
from hep2flow.recipe import Loss, Recipe, load_recipe

from .test_augment import cell_set

CPU = torch.device("cpu")


def tiny(*overrides: str) -> Recipe:
    return load_recipe(
        "convnext-b", "laptop", ["model.network=test_convnext", "train.batch_size=5", "train.epochs=3", *overrides]
    )


def trained(recipe: Recipe, folder: Path) -> tuple[list[Epoch], list[Progress], Path]:
    torch.manual_seed(0)
    network = build_network(recipe.model, 2)
    epochs: list[Epoch] = []
    batches: list[Progress] = []
    checkpoint = folder / "best.safetensors"
    fit(
        network,
        recipe,
        cell_set(recipe),
        cell_set(recipe, 7, training=False),
        Description(recipe, ["a", "b"], 8),
        checkpoint,
        device=CPU,
        on_epoch=epochs.append,
        on_batch=batches.append,
    )
    return epochs, batches, checkpoint


def test_the_same_recipe_gives_the_same_bytes(tmp_path: Path) -> None:
    recipe = tiny("augment.random_erasing.probability=0.5", "model.drop_path_rate=0.1")
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    _, _, first = trained(recipe, tmp_path / "1")
    torch.rand(11)
    _, _, second = trained(recipe, tmp_path / "2")
    assert first.read_bytes() == second.read_bytes()


def test_the_kept_epoch_is_the_most_accurate_and_of_those_the_lowest_loss(tmp_path: Path) -> None:
    recipe = tiny("train.epochs=8", "train.validate_every=1")
    epochs, _, checkpoint = trained(recipe, tmp_path)
    best = min(epochs, key=lambda epoch: (-(epoch.val_accuracy or 0), epoch.val_loss))
    assert [epoch for epoch in epochs if epoch.best][-1] == best
    network, description = load_checkpoint(checkpoint, CPU)
    loss, accuracy = validate(network, cell_set(recipe, 7, training=False), recipe, CPU)
    assert (loss, accuracy) == (pytest.approx(best.val_loss), best.val_accuracy)
    assert description.recipe == recipe
    assert description.labels == ["a", "b"]


@pytest.mark.parametrize(
    ("cells", "epochs", "updates", "expected"),
    [(361, 30, None, (12, 30, 360)), (361, 30, 100, (12, 9, 100)), (8701, 30, 1632, (272, 6, 1632))],
)
def test_a_training_ends_at_epochs_or_updates_whichever_comes_first(
    cells: int, epochs: int, updates: int | None, expected: tuple[int, int, int]
) -> None:
    recipe = tiny("train.batch_size=32", f"train.epochs={epochs}", f"train.max_updates={updates or 'null'}")
    length = plan(recipe, cells)
    assert (length.updates_per_epoch, length.epochs, length.updates) == expected


def test_the_last_epoch_stops_at_the_update_limit_and_is_validated(tmp_path: Path) -> None:
    epochs, batches, _ = trained(tiny("train.max_updates=5", "train.validate_every=9"), tmp_path)
    assert [epoch.updates for epoch in epochs] == [3, 5]
    assert [epoch.val_accuracy is None for epoch in epochs] == [True, False]
    assert batches[-1].update == batches[-1].updates == 5


def test_warm_up_is_linear_and_the_cosine_ends_at_zero() -> None:
    recipe = load_recipe("coat-mini", "paper")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=recipe.optim.lr)
    rate = LearningRate(optimizer, recipe, updates=500, updates_per_epoch=10)
    rates = [rate.before_update(update) for update in range(500)]
    top = recipe.optim.lr
    assert rates[:100] == pytest.approx([top / 100 + (top - top / 100) * update / 100 for update in range(100)])
    assert rates[100:] == pytest.approx(
        [top * 0.5 * (1 + math.cos(math.pi * update / 500)) for update in range(100, 500)]
    )


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


def test_prediction_by_tta_is_the_mean_over_the_views_and_sums_to_one(tmp_path: Path) -> None:
    recipe = tiny("train.epochs=1", "eval.tta=dihedral")
    _, _, checkpoint = trained(recipe, tmp_path)
    network, _ = load_checkpoint(checkpoint, CPU)
    cells = cell_set(recipe, 7, training=False)
    plain, augmented = predict(network, cells, recipe, CPU)
    torch.testing.assert_close(augmented.sum(1), torch.ones(7))
    turned = cell_set(recipe, 7, training=False)
    turned.images = [torch.rot90(image, 1, (1, 2)) for image in turned.images]
    _, turned_augmented = predict(network, turned, recipe, CPU)
    torch.testing.assert_close(augmented, turned_augmented)
    assert not torch.allclose(plain, augmented)


def test_one_against_all_scores_become_a_distribution() -> None:
    each = probabilities(torch.tensor([[0.0, 0.0, 100.0]]), Loss(name="binary_cross_entropy"))
    torch.testing.assert_close(each, torch.tensor([[0.25, 0.25, 0.5]]))


def test_weights_of_another_head_keep_the_body_and_say_what_was_replaced(tmp_path: Path) -> None:
    recipe = tiny()
    source = build_network(recipe.model, 5)
    path = tmp_path / "weights.safetensors"
    save_checkpoint(path, source, Description(recipe, list("abcde"), 8))
    target = build_network(recipe.model, 2)
    replaced = load_weights(target, path, "weights")
    assert replaced == ["head.fc.bias", "head.fc.weight"]
    assert torch.equal(target.state_dict()["stem.0.weight"], source.state_dict()["stem.0.weight"])


def test_a_network_that_shares_tensors_survives_saving_and_loading(tmp_path: Path) -> None:
    recipe = load_recipe("coat-mini", "laptop")
    network = build_network(recipe.model, 2).eval()
    path = tmp_path / "weights.safetensors"
    save_checkpoint(path, network, Description(recipe, ["a", "b"], 8))
    loaded, _ = load_checkpoint(path, CPU)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(network(images), loaded(images))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    recipe = tiny()
    save_checkpoint(path, build_network(recipe.model, 2), Description(recipe, ["a", "b"], 8))
    other = build_network(tiny("model.network=convnext_atto").model, 2)
    with pytest.raises(UserError, match="does not fit the network"):
        load_weights(other, path, "weights")
    path.write_bytes(b"not safetensors")
    with pytest.raises(UserError, match="not a readable safetensors file"):
        load_weights(other, path, "weights")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.network=convnext_giant_typo"], "model.network"),
        (["model.network=coat_mini", "model.layer_scale=null", "model.image_size=72"], "image_size"),
        (["model.network=coat_lite_tiny", "model.layer_scale=1.0"], "model: coat_lite_tiny"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_before_any_data(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_network(load_recipe("convnext-b", "laptop", overrides).model)


def test_the_shipped_networks_can_be_built() -> None:
    for name in ("convnext-b", "coat-mini"):
        for profile in ("paper", "laptop"):
            check_network(load_recipe(name, profile).model)  # type: ignore[arg-type]
