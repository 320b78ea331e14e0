"""Initial weights of a network from safetensors: the body has to match, the head may be new."""

import json
import sys
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from hep2flow.errors import UserError
from hep2flow.network.model import NetworkWithMeasurements, head_name, timm_network
from hep2flow.training.checkpoint import METADATA

WRAPPER_PREFIX = "backbone."

Tensors = dict[str, torch.Tensor]
# What a head was trained for: the patterns of its logits, and the measurements that it takes.
HeadMeaning = tuple[list[str], list[str]]


def load_weights(network: torch.nn.Module, path: Path, origin: str, labels: list[str]) -> list[str]:
    """Load what :func:`fitting_weights` finds; returns the names of the head's tensors that stay random, if any."""
    model = timm_network(network)
    matching, fresh = fitting_weights(network, path, origin, labels)
    model.load_state_dict({**model.state_dict(), **matching})
    return fresh


def fitting_weights(network: torch.nn.Module, path: Path, origin: str, labels: list[str]) -> tuple[Tensors, list[str]]:
    """Match the tensors of a safetensors file with a network's.

    The file's head is loaded only if the file is one of our checkpoints with the same labels (in the order of the logits)
    and measurements: six logits of other patterns have the same shape, but another meaning. ``origin`` is what the user
    named, for messages.

    Returns:
        The matching tensors, and the names of the head's tensors that stay random, if any.

    Raises:
        UserError: A tensor of the body is missing, misshapen or of another network.
    """
    model = timm_network(network)
    tensors, meaning = _read(path, origin)
    if meaning is None:
        # As timm does with files from its hub: CoaT's have norms that its network no longer has.
        adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
        tensors = tensors if adapt is None else adapt(tensors, model)
    own = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    own = {name: tensor for name, tensor in own.items() if name in model.state_dict()}
    # CoaT shares tensors under several names; a file may hold only one of them.
    shared = {id(own[name]): tensor for name, tensor in tensors.items() if name in own}
    tensors |= {name: shared[id(own[name])] for name in own if id(own[name]) in shared}
    head = head_name(model) + "."

    def mismatch(name: str) -> str | None:
        if name not in tensors:
            return f"{name} is missing"
        shape, own_shape = list(tensors[name].shape), list(own[name].shape)
        return None if shape == own_shape else f"{name} is {shape}, not {own_shape}"

    in_head = [name for name in own if name.startswith(head)]
    own_meaning = (labels, list(network.head.measurements) if isinstance(network, NetworkWithMeasurements) else [])
    fresh = [] if meaning == own_meaning and not any(map(mismatch, in_head)) else in_head
    wrong = [found for name in own if name not in in_head and (found := mismatch(name))]
    wrong += [f"{name} is not of this network" for name in tensors if name not in own and not name.startswith(head)]
    if wrong:
        raise UserError(
            f"model.weights: {origin} does not fit the network: {'; '.join(wrong[:5])} ({len(wrong)} in all); "
            "give weights of the network that model.network names"
        )
    return {name: tensor for name, tensor in tensors.items() if name in own and name not in fresh}, fresh


def _read(path: Path, origin: str) -> tuple[Tensors, HeadMeaning | None]:
    """The tensors, and the head's meaning if the file is one of our checkpoints."""
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA)
            meaning = None
            if text is not None:
                facts = json.loads(text)
                meaning = (list(map(str, facts["labels"])), list(map(str, facts["recipe"]["model"]["aux_features"])))
            tensors = {
                name.removeprefix(WRAPPER_PREFIX) if meaning is not None else name: file.get_tensor(name)
                for name in file.keys()  # noqa: SIM118 - not a dictionary
            }
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        what = f"{origin} is not a readable safetensors file ({error})"
        raise UserError(f"model.weights: {what}; give another, or model.weights=none") from error
    return tensors, meaning
