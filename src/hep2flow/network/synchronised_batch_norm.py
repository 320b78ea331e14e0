"""Batch norms whose statistics are those of all workers' cells, so that several workers learn what one learns.

They are what makes tests/training/test_process_group.py's "two workers learn what one learns" hold for networks with batch
norms, CoAtNet among the paper's. torch.nn.SyncBatchNorm runs on GPUs only, and has no way to leave out a cell: here a worker
whose shard is empty takes part with one cell without weight.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass
class ShardFlag:
    """Whether this worker's cells have no weight in the next pass; shared by the step and all batch norms."""

    is_empty: bool = False


def synchronise(network: nn.Module, flag: ShardFlag) -> None:
    """Replace every batch norm inside a network; parameters, buffers and names in the state_dict stay the same."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, _BatchNorm) and not isinstance(child, SynchronisedBatchNorm):
                setattr(module, name, SynchronisedBatchNorm(child, flag))


class SynchronisedBatchNorm(_BatchNorm):
    """Like :class:`torch.nn.BatchNorm2d`, and timm's BatchNormAct2d with its drop and act, over all workers.

    Takes (n, channels, …). Statistics are made in two passes and summed in float64, as torch does on a CPU.
    """

    def __init__(self, norm: _BatchNorm, flag: ShardFlag) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self.weight, self.bias = norm.weight, norm.bias
        self._buffers.update(norm._buffers)
        self.drop, self.act = getattr(norm, "drop", nn.Identity()), getattr(norm, "act", nn.Identity())
        self.flag = flag
        self.train(norm.training)

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Any number of dimensions."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise, then drop and act."""
        normalised = self._normalise(input) if self.training else super().forward(input)
        result: torch.Tensor = self.act(self.drop(normalised))
        return result

    def _normalise(self, input: torch.Tensor) -> torch.Tensor:
        values = input.float()
        dimensions = [0, *range(2, values.dim())]
        shape = [1, -1, *(1 for _ in dimensions[1:])]
        own_weight, exact = 0.0 if self.flag.is_empty else 1.0, torch.float64
        # First pass: the mean, from each channel's sum and the number of values.
        count = values.new_full((1,), own_weight * values.numel() / self.num_features, dtype=exact)
        sums = _sum_over_workers(torch.cat([values.sum(dimensions, dtype=exact) * own_weight, count]))
        number = sums[-1].detach()
        mean = sums[:-1] / number
        # Second pass: the variance around it.
        centred = values - mean.float().view(shape)
        variance = _sum_over_workers(centred.square().sum(dimensions, dtype=exact) * own_weight) / number
        if self.track_running_stats:
            unbiased = variance.detach() * number / (number - 1).clamp(min=1)
            tracked = self.get_buffer("num_batches_tracked").add_(1)
            momentum = 1.0 / float(tracked) if self.momentum is None else self.momentum
            self.get_buffer("running_mean").lerp_(mean.detach().float(), momentum)
            self.get_buffer("running_var").lerp_(unbiased.float(), momentum)
        result = centred * torch.rsqrt(variance + self.eps).float().view(shape)
        if self.affine:
            result = result * self.weight.float().view(shape) + self.bias.float().view(shape)
        return result.to(input.dtype)


class _SumOverWorkers(torch.autograd.Function):
    """All-reduce whose gradient is all-reduced too."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return _SumOverWorkers.forward(ctx, gradients[0])


def _sum_over_workers(values: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = _SumOverWorkers.apply(values)
    return result
