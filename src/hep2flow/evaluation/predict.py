"""Probabilities of a trained network over a set of cells, with test-time augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from hep2flow.data.cell_set import CellSet
from hep2flow.data.sampling import ordered_keys
from hep2flow.recipe import Recipe
from hep2flow.training.losses import probabilities


@torch.inference_mode()
def predict(
    network: torch.nn.Module,
    cells: CellSet,
    recipe: Recipe,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities without and with the recipe's test-time augmentation, each float32 (n, classes), in the cells' order.

    Without TTA in the recipe both are the same tensor.
    """
    network.eval()
    plain, augmented = [], []
    done = 0
    for batch in cells.batches(ordered_keys(range(len(cells)), recipe.eval.batch_size)):
        images, *features = batch.inputs(device)
        # The first view is the cell as it is; its measurements do not turn with it.
        views = dihedral_views(images) if recipe.eval.tta == "dihedral" else iter([images])
        each = torch.stack([probabilities(network(view, *features), recipe.loss) for view in views])
        plain.append(each[0].cpu())
        augmented.append(each.mean(0).cpu())
        done += len(images)
        if progress is not None:
            progress(done, len(cells))
    return torch.cat(plain), torch.cat(augmented)


def dihedral_views(images: torch.Tensor) -> Iterator[torch.Tensor]:
    """The 8 views (4 quarter turns, each plain and mirrored) of square images (n, channels, size, size)."""
    for turns in range(4):
        turned = torch.rot90(images, turns, (-2, -1))
        yield turned
        yield turned.flip(-1)
