"""Probabilities over a set of cells, and the views of test-time augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from hep2flow.evaluation.predict import dihedral_views, predict_probabilities
from hep2flow.training.checkpoint import load_checkpoint
from tests.training.builders import CPU, cell_set, tiny, trained


def test_prediction_is_the_mean_softmax_of_the_views(tmp_path: Path) -> None:
    recipe = tiny("train.epochs=1", "eval.tta=dihedral")
    _, _, checkpoint = trained(recipe, tmp_path)
    network, _ = load_checkpoint(checkpoint, CPU)
    cells = cell_set(recipe, 7, training=False)
    plain, augmented = predict_probabilities(network, cells, recipe, CPU)
    images = torch.stack([cells[0, index, 0][0] for index in range(7)])
    with torch.inference_mode():
        each = [
            network(torch.from_numpy(np.rot90(start.numpy(), turns, (2, 3)).copy())).softmax(1)
            for start in (images, images.transpose(2, 3))
            for turns in range(4)
        ]
    torch.testing.assert_close(plain, each[0])
    torch.testing.assert_close(augmented, torch.stack(each).mean(0))
    assert not torch.allclose(plain, augmented)


def test_without_views_both_predictions_are_the_same(tmp_path: Path) -> None:
    recipe = tiny("train.epochs=1", "eval.tta=none", "eval.batch_size=3")
    network, _ = load_checkpoint(trained(recipe, tmp_path)[2], CPU)
    cells = cell_set(recipe, 7, training=False)
    plain, augmented = predict_probabilities(network, cells, recipe, CPU)
    assert torch.equal(plain, augmented)
    assert plain.shape == (7, 2)
    torch.testing.assert_close(plain.sum(1), torch.ones(7))


def test_neither_the_batches_nor_a_training_mode_change_a_prediction(tmp_path: Path) -> None:
    recipe = tiny("train.epochs=1", "eval.tta=dihedral", "model.drop_path_rate=0.5")
    network, _ = load_checkpoint(trained(recipe, tmp_path)[2], CPU)
    cells = cell_set(recipe, 7, training=False)
    told: list[tuple[int, int]] = []
    plain, augmented = predict_probabilities(network, cells, recipe, CPU)
    smaller = recipe.model_copy(update={"eval": recipe.eval.model_copy(update={"batch_size": 3})})
    again = predict_probabilities(network.train(), cells, smaller, CPU, lambda done, count: told.append((done, count)))
    torch.testing.assert_close(again[0], plain, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(again[1], augmented, rtol=1e-5, atol=1e-6)
    assert told == [(3, 7), (6, 7), (7, 7)]


def test_one_against_all_scores_are_averaged_as_distributions(tmp_path: Path) -> None:
    recipe = tiny("train.epochs=1", "eval.tta=dihedral", "loss.name=binary_cross_entropy")
    network, _ = load_checkpoint(trained(recipe, tmp_path)[2], CPU)
    cells = cell_set(recipe, 7, training=False)
    plain, augmented = predict_probabilities(network, cells, recipe, CPU)
    images = torch.stack([cells[0, index, 0][0] for index in range(7)])
    with torch.inference_mode():
        each = 1 / (1 + (-network(images)).exp())
    torch.testing.assert_close(plain, each / each.sum(1, keepdim=True))
    torch.testing.assert_close(augmented.sum(1), torch.ones(7))


def test_the_eight_views_are_the_dihedral_group_and_the_first_is_the_cell() -> None:
    image = torch.rand(1, 1, 5, 5)
    views = [tuple(view.flatten().tolist()) for view in dihedral_views(image)]
    plain = image[0, 0].numpy()
    group = {tuple(np.rot90(start, turns).flatten().tolist()) for start in (plain, plain.T) for turns in range(4)}
    assert len(views) == 8
    assert set(views) == group
    assert views[0] == tuple(plain.flatten().tolist())
