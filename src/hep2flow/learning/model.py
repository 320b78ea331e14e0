"""The network, from timm."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import is_model, list_models

from hep2flow.errors import UserError
from hep2flow.recipe import Model


def check_network(section: Model) -> None:
    """Refuse a network timm does not have, or an image size the network refuses, before anything is read.

    The network is built and run on one image on torch's meta device: shapes only, no memory, no arithmetic.
    Raises UserError naming the recipe's key.
    """
    if not is_model(section.network):
        family = section.network.split(".")[0].split("_")[0]
        raise UserError(
            f"model.network: timm has no {section.network!r}; it has, for example, "
            f"{', '.join(list_models(f'*{family}*')[:5]) or ', '.join(list_models()[:5])}"
        )
    size = section.image_size
    try:
        with torch.device("meta"):
            network = build_network(section, classes=2)
            network(torch.empty(1, 3, size, size))
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"model: {section.network} cannot be built for {size} pixels ({reason}); change model.image_size "
            "(multiples of 32, 224 always works) or the option named"
        ) from error


def build_network(section: Model, classes: int) -> torch.nn.Module:
    """timm ``create_model`` with random weights: (n, 3, image_size, image_size) -> logits (n, classes)."""
    options: dict[str, object] = {"drop_path_rate": section.drop_path_rate} if section.drop_path_rate else {}
    if section.layer_scale is not None:
        options["ls_init_value"] = section.layer_scale
    try:
        # Networks with position-dependent attention are built for one size; purely convolutional ones know no such option.
        network = timm.create_model(section.network, num_classes=classes, img_size=section.image_size, **options)
    except TypeError:
        network = timm.create_model(section.network, num_classes=classes, **options)
    assert isinstance(network, torch.nn.Module)
    return network


def load_weights(network: torch.nn.Module, path: Path, origin: str) -> list[str]:
    """Load safetensors into the network; a head of another number of classes stays as initialised.

    path:   the file on this machine
    origin: what the user named, for messages
    Returns the names of the tensors that were not taken. Raises UserError where a body tensor is missing or misshapen.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"model.weights: {origin} is not a readable safetensors file ({error})") from error
    own = network.state_dict()
    # CoaT shares tensors under several names; a file may hold only one of them.
    by_storage = {own[name].data_ptr(): tensor for name, tensor in tensors.items() if name in own}
    tensors |= {name: by_storage[own[name].data_ptr()] for name in own if own[name].data_ptr() in by_storage}
    head = {name for name in own if name.startswith(_head_prefix(network))}
    left_out = sorted(name for name in head if name not in tensors or tensors[name].shape != own[name].shape)
    wrong = [
        f"{name} is missing"
        if name not in tensors
        else f"{name} is {list(tensors[name].shape)}, not {list(own[name].shape)}"
        for name in own
        if name not in left_out and (name not in tensors or tensors[name].shape != own[name].shape)
    ]
    wrong += [f"{name} is not of this network" for name in tensors if name not in own]
    if wrong:
        raise UserError(
            f"model.weights: {origin} does not fit the network: {'; '.join(wrong[:5])} ({len(wrong)} in all)"
        )
    network.load_state_dict({**own, **{name: tensor for name, tensor in tensors.items() if name not in left_out}})
    return left_out


def _head_prefix(network: torch.nn.Module) -> str:
    classifier = network.default_cfg["classifier"]  # type: ignore[index]
    return f"{classifier}."
