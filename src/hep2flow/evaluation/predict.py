"""Probabilities of a trained network over a set of cells, with test-time augmentation."""

from collections.abc import Callable, Iterator

import torch

from hep2flow.data.cell_set import CellSet
from hep2flow.data.sampling import ordered_keys
from hep2flow.recipe import Recipe
from hep2flow.training.losses import probabilities


@torch.inference_mode()
def predict_probabilities(
    network: torch.nn.Module,
    cells: CellSet,
    recipe: Recipe,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Class probabilities without and with the recipe's test-time augmentation (TTA).

    Puts the network, which is on ``device``, into evaluation mode. ``progress`` is called after each batch with the numbers
    of predicted and of all cells.

    Returns:
        Two float32 tensors (n, classes) on the CPU, in the cells' order; equal where the recipe has no TTA.
    """
    network.eval()
    plain, augmented = [], []
    done = 0
    for batch in cells.batches(ordered_keys(range(len(cells)), recipe.eval.batch_size)):
        images, *measurements = batch.inputs(device)
        # The first view is the unchanged cell; measurements do not depend on its orientation.
        views = dihedral_views(images) if recipe.eval.tta == "dihedral" else iter([images])
        each = torch.stack([probabilities(network(view, *measurements), recipe.loss) for view in views])
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
