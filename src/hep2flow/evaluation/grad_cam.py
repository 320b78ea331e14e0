"""Where in a cell a network sees a pattern: Grad-CAM (Selvaraju et al. 2017) by captum, on maps and on tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from captum.attr import LayerAttribution, LayerGradCam
from timm.models.coat import CoaT

from hep2flow.network.model import timm_network

LEAST_SIDE = 4  # of the maps; coarser ones say little more than which half


class NoMapsError(Exception):
    """A network whose stages have no maps that Grad-CAM could weigh."""


def heat_maps(network: torch.nn.Module, inputs: Sequence[torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
    """What of each image speaks for its target class: float32 (n, size, size) in [0, 1], on the CPU.

    network: as :func:`hep2flow.network.model.build_network` builds it
    inputs:  what it is called with: images float32 (n, 3, size, size), normalised, and (n, k) features where it takes any
    targets: int64 (n,), the class whose logit is explained

    Of the deepest maps of at least 4 x 4: of the last stage at 224 pixels, of the one before it at 64. The brightest spot of
    each image is 1; an image of which nothing speaks for the class is 0 everywhere.
    Raises NoMapsError for networks other than CoaT whose stages do not give (n, channels, height, width).
    """
    model, size = timm_network(network.eval()), inputs[0].shape[-1]
    modules = dict(model.named_modules())  # some of timm's networks tell stages that they do not have
    stages = [
        (stage, facts)
        for stage, facts in enumerate(getattr(model, "feature_info", []))
        if size // facts["reduction"] >= LEAST_SIDE and facts["module"] in modules
    ]
    if not stages:
        raise NoMapsError(f"{type(model).__name__} tells no stages")
    stage, facts = stages[-1]
    tokens = isinstance(model, CoaT)
    layer = _token_layer(model, stage) if tokens else modules[facts["module"]]
    maps = torch.nn.Identity()

    def through_maps(_layer: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        if tokens:
            return _tokens_through(maps, output)
        if output.ndim != 4 or output.shape[1] != facts["num_chs"]:
            raise NoMapsError(f"{type(model).__name__} has no maps (n, channels, height, width)")
        return maps(output)  # type: ignore[no-any-return]

    grad_cam = LayerGradCam(network, maps)
    handle = layer.register_forward_hook(through_maps)
    try:
        # One by one: a backward pass keeps what a batch made for prediction would have no room for.
        found = [
            grad_cam.attribute(image, int(target), tuple(features), relu_attributions=True)
            for image, *features, target in zip(*(torch.split(tensor, 1) for tensor in (*inputs, targets)), strict=True)
        ]
    finally:
        handle.remove()
    heat = LayerAttribution.interpolate(torch.cat(found), (size, size), "bilinear")[:, 0].detach().float().cpu()
    highest = heat.amax((1, 2), keepdim=True)
    return torch.where(highest > 0, heat / highest, 0.0)


def _token_layer(model: CoaT, stage: int) -> torch.nn.Module:
    """CoaT's layer whose tokens are weighed: the last block of a serial stage.

    Where its class token alone is read after it, nothing depends on the others: there, what the block's attention is given.
    """
    last: torch.nn.Module = getattr(model, f"serial_blocks{stage + 1}")[-1]
    read_alone = model.parallel_blocks is None and stage == len(model.feature_info) - 1
    return last.get_submodule("norm1") if read_alone else last


def _tokens_through(maps: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Tokens (n, 1 + height * width, channels) as they are, all but the class token led through ``maps`` as maps."""
    class_token, others = tokens[:, :1], tokens[:, 1:]
    side = math.isqrt(others.shape[1])
    seen = maps(others.transpose(1, 2).reshape(len(others), -1, side, side))
    return torch.cat([class_token, seen.flatten(2).transpose(1, 2)], dim=1)
