"""Losses of paper Table 2, on logits (n, classes) and soft targets (n, classes)."""

import torch
from timm.loss import BinaryCrossEntropy, SoftTargetCrossEntropy

from hep2flow.recipe import Loss


def build_loss(section: Loss) -> torch.nn.Module:
    """The recipe's loss, from timm, without label smoothing, which :class:`~hep2flow.data.batch.BatchMixer` does."""
    binary = section.name == "binary_cross_entropy"
    loss: torch.nn.Module = BinaryCrossEntropy(smoothing=0.0) if binary else SoftTargetCrossEntropy()
    return loss


def probabilities(logits: torch.Tensor, section: Loss) -> torch.Tensor:
    """Class probabilities (n, classes) that sum to 1: softmax, or one-against-all sigmoids normalised to a distribution."""
    if section.name == "binary_cross_entropy":
        each = logits.float().sigmoid()
        return each / each.sum(1, keepdim=True).clamp_min(1e-12)
    return logits.float().softmax(1)
