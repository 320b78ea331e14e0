"""Test-time augmentation: the eight views of a cell."""

from __future__ import annotations

import numpy as np
import torch

from hep2flow.evaluation.predict import dihedral_views


def test_the_eight_views_are_the_dihedral_group_and_the_first_is_the_cell() -> None:
    image = torch.rand(1, 1, 5, 5)
    views = [tuple(view.flatten().tolist()) for view in dihedral_views(image)]
    plain = image[0, 0].numpy()
    group = {tuple(np.rot90(start, turns).flatten().tolist()) for start in (plain, plain.T) for turns in range(4)}
    assert len(views) == 8
    assert set(views) == group
    assert views[0] == tuple(plain.flatten().tolist())
