"""Loss values, written out."""

from __future__ import annotations

import pytest
import torch

from hep2flow.learning.losses import build_loss, probabilities
from hep2flow.recipe import Loss

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
