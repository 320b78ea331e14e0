"""Test-time augmentation: the mean over the eight views of a cell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from hep2flow.learning.checkpoint import load_checkpoint
from hep2flow.learning.predict import predict
from hep2flow.learning.tta import dihedral_views

from .builders import CPU, cell_set, tiny, trained


def test_the_eight_views_are_the_dihedral_group_and_the_first_is_the_cell() -> None:
    image = torch.rand(1, 1, 5, 5)
    views = [tuple(view.flatten().tolist()) for view in dihedral_views(image)]
    plain = image[0, 0].numpy()
    group = {tuple(np.rot90(start, turns).flatten().tolist()) for start in (plain, plain.T) for turns in range(4)}
    assert len(views) == 8
    assert set(views) == group
    assert views[0] == tuple(plain.flatten().tolist())


def test_prediction_is_the_mean_softmax_of_the_views(tmp_path: Path) -> None:
    recipe = tiny("train.epochs=1", "eval.tta=dihedral")
    _, _, checkpoint = trained(recipe, tmp_path)
    network, _ = load_checkpoint(checkpoint, CPU)
    cells = cell_set(recipe, 7, training=False)
    plain, augmented = predict(network, cells, recipe, CPU)
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
