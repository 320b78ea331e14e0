"""Test-time augmentation: the mean probability over the eight dihedral views of a cell.

The paper says only "TTA: YES" and cites Ayhan and Berens; flips and quarter turns are the views it trains with.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch


def dihedral_views(images: torch.Tensor) -> Iterator[torch.Tensor]:
    """The 8 views (4 quarter turns, each plain and mirrored) of square images (n, channels, size, size)."""
    for turns in range(4):
        turned = torch.rot90(images, turns, (-2, -1))
        yield turned
        yield turned.flip(-1)
