"""Grad-CAM (Selvaraju et al. 2017) by captum, on feature maps and on tokens: where in a cell a network sees a pattern."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from captum.attr import LayerAttribution, LayerGradCam
from timm.models.coat import CoaT

from hep2flow.network.model import timm_network

MIN_SIDE = 4  # of the maps; coarser ones show little more than which half


class NoFeatureMapsError(Exception):
    """A network whose stages have no feature maps that Grad-CAM could weigh."""


def heat_maps(network: torch.nn.Module, inputs: Sequence[torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
    """Grad-CAM heat maps of the deepest feature maps of at least 4 x 4 (the last stage at 224 pixels).

    Args:
        network: As :func:`hep2flow.network.model.build_network` builds it.
        inputs: The network's arguments: normalised images, float32 (n, 3, size, size), and its cell measurements (n, k),
            where it takes any.
        targets: The class whose logit is explained, int64 (n,).

    Returns:
        float32 (n, size, size) on the CPU, in [0, 1]. The maximum of each image is 1; an image without evidence for the
        class is 0 everywhere.

    Raises:
        NoFeatureMapsError: A network other than CoaT whose stages do not give (n, channels, height, width).
    """
    model, size = timm_network(network.eval()), inputs[0].shape[-1]
    modules = dict(model.named_modules())  # feature_info of some of timm's networks names stages that do not exist
    stages = [
        (stage, facts)
        for stage, facts in enumerate(getattr(model, "feature_info", []))
        if size // facts["reduction"] >= MIN_SIDE and facts["module"] in modules
    ]
    if not stages:
        raise NoFeatureMapsError(f"{type(model).__name__} names no stages")
    stage, facts = stages[-1]
    tokens = isinstance(model, CoaT)
    layer = _token_layer(model, stage) if tokens else modules[facts["module"]]
    maps = torch.nn.Identity()

    def through_maps(_layer: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        if tokens:
            return _tokens_through(maps, output)
        if output.ndim != 4 or output.shape[1] != facts["num_chs"]:
            raise NoFeatureMapsError(f"{type(model).__name__} has no maps (n, channels, height, width)")
        return maps(output)  # type: ignore[no-any-return]

    grad_cam = LayerGradCam(network, maps)
    handle = layer.register_forward_hook(through_maps)
    try:
        # One by one: the backward pass of a batch sized for prediction would not fit in memory.
        single = [torch.split(tensor, 1) for tensor in (*inputs, targets)]
        attributions = [
            grad_cam.attribute(image, int(target), tuple(measurements), relu_attributions=True)
            for image, *measurements, target in zip(*single, strict=True)
        ]
    finally:
        handle.remove()
    heat = LayerAttribution.interpolate(torch.cat(attributions), (size, size), "bilinear")[:, 0].detach().float().cpu()
    highest = heat.amax((1, 2), keepdim=True)
    return torch.where(highest > 0, heat / highest, 0.0)


def _token_layer(model: CoaT, stage: int) -> torch.nn.Module:
    """CoaT's layer whose tokens are weighed: the last block of a serial stage."""
    last: torch.nn.Module = getattr(model, f"serial_blocks{stage + 1}")[-1]
    # The head of CoaT-Lite reads the class token only: no gradient reaches the other tokens after its last block, so the
    # input of that block's attention is weighed.
    class_token_only = model.parallel_blocks is None and stage == len(model.feature_info) - 1
    return last.get_submodule("norm1") if class_token_only else last


def _tokens_through(maps: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """The unchanged tokens (n, 1 + height * width, channels), all but the class token passed through ``maps`` as maps."""
    class_token, others = tokens[:, :1], tokens[:, 1:]
    side = math.isqrt(others.shape[1])
    passed = maps(others.transpose(1, 2).reshape(len(others), -1, side, side))
    return torch.cat([class_token, passed.flatten(2).transpose(1, 2)], dim=1)
