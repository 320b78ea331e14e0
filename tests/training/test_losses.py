"""Loss values, written out."""

from __future__ import annotations

import math

import pytest
import torch

from hep2flow.data.batch import Batch, BatchMixer
from hep2flow.recipe import Loss
from hep2flow.training.losses import build_loss, probabilities
from tests.training.builders import tiny

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]], dtype=torch.float64)
HARD = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
SOFT = torch.tensor([[0.7, 0.2, 0.1], [0.05, 0.05, 0.9]], dtype=torch.float64)


@pytest.mark.parametrize("targets", [HARD, SOFT])
def test_soft_target_cross_entropy(targets: torch.Tensor) -> None:
    shares = LOGITS.exp() / LOGITS.exp().sum(1, keepdim=True)
    expected = -(targets * shares.log()).sum(1).mean()
    torch.testing.assert_close(build_loss(Loss(name="soft_target_cross_entropy"))(LOGITS, targets), expected)


@pytest.mark.parametrize("targets", [HARD, SOFT])
def test_binary_cross_entropy_is_one_against_all_without_smoothing(targets: torch.Tensor) -> None:
    each = 1 / (1 + (-LOGITS).exp())
    expected = -(targets * each.log() + (1 - targets) * (1 - each).log()).mean()
    torch.testing.assert_close(build_loss(Loss(name="binary_cross_entropy"))(LOGITS, targets), expected)


def test_one_against_all_scores_become_a_distribution() -> None:
    each = probabilities(torch.tensor([[0.0, 0.0, 100.0]]), Loss(name="binary_cross_entropy"))
    torch.testing.assert_close(each, torch.tensor([[0.25, 0.25, 0.5]]))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_labels_are_smoothed_once_whichever_the_loss(smoothing: float) -> None:
    """timm's ``BinaryCrossEntropy`` smooths whole labels by .1 unless told not to."""
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
    batch = Batch(torch.zeros(2, 3, 8, 8), torch.empty(2, 0), torch.tensor([0, 2]))
    mixer = BatchMixer(tiny("batch.mixup=0", "batch.cutmix=0", f"batch.label_smoothing={smoothing}"), 3)
    soft, binary = 0.0, 0.0
    for row, label in ((0, 0), (1, 2)):
        values = logits[row].tolist()
        total = sum(math.exp(value) for value in values)
        for column, value in enumerate(values):
            target = smoothing / 3 + (1 - smoothing) * (column == label)
            share, alone = math.exp(value) / total, 1 / (1 + math.exp(-value))
            soft -= target * math.log(share) / 2
            binary -= (target * math.log(alone) + (1 - target) * math.log(1 - alone)) / 6
    targets = mixer(batch).labels
    assert float(build_loss(Loss(name="soft_target_cross_entropy"))(logits, targets)) == pytest.approx(soft, rel=1e-6)
    assert float(build_loss(Loss(name="binary_cross_entropy"))(logits, targets)) == pytest.approx(binary, rel=1e-6)
