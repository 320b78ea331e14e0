"""Batch norms whose statistics are those of all workers' cells, so that several workers learn what one learns.

torch's SyncBatchNorm does the same on GPUs only, and counts every cell; here a worker without cells of a batch takes part
with one that counts for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass
class Counting:
    """Whether this worker's cells count in the pass that comes next."""

    counts: bool = True


def synchronise(network: nn.Module, counting: Counting) -> None:
    """Replace every batch norm inside a network; parameters, buffers and names of the state stay what they are."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, _BatchNorm) and not isinstance(child, SynchronisedBatchNorm):
                setattr(module, name, SynchronisedBatchNorm(child, counting))


class SynchronisedBatchNorm(_BatchNorm):
    """As :class:`torch.nn.BatchNorm2d`, and as timm's BatchNormAct2d with its drop and act, over all workers.

    Images (n, channels, …) in, the same shape out; statistics in two passes, summed in float64 as torch does on a CPU.
    """

    def __init__(self, norm: _BatchNorm, counting: Counting) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self.weight, self.bias = norm.weight, norm.bias
        for name in norm._buffers:
            self._buffers[name] = norm._buffers[name]
        self.drop, self.act = getattr(norm, "drop", nn.Identity()), getattr(norm, "act", nn.Identity())
        self.counting = counting
        self.train(norm.training)

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Any number of dimensions."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise, then drop and act."""
        normalised = self._over_workers(input) if self.training else super().forward(input)
        result: torch.Tensor = self.act(self.drop(normalised))
        return result

    def _over_workers(self, input: torch.Tensor) -> torch.Tensor:
        values = input.float()
        dimensions = [0, *range(2, values.dim())]
        shape = [1, -1, *(1 for _ in dimensions[1:])]
        weight = 1.0 if self.counting.counts else 0.0
        exact = torch.float64
        count = values.new_full((1,), weight * values.numel() / self.num_features, dtype=exact)
        sums = _total(torch.cat([values.sum(dimensions, dtype=exact) * weight, count]))
        number = sums[-1].detach()
        mean = sums[:-1] / number
        centred = values - mean.float().view(shape)
        variance = _total(centred.square().sum(dimensions, dtype=exact) * weight) / number
        if self.track_running_stats:
            unbiased = variance.detach() * number / (number - 1).clamp(min=1)
            self._remember(mean.detach().float(), unbiased.float())
        result = centred * torch.rsqrt(variance + self.eps).float().view(shape)
        if self.affine:
            result = result * self.weight.float().view(shape) + self.bias.float().view(shape)
        return result.to(input.dtype)

    def _remember(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


class _Total(torch.autograd.Function):
    """Sum over the workers; its gradient is summed over them too."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


def _total(values: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = _Total.apply(values)
    return result
