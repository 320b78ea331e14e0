"""First weights of a network, from safetensors: strict about the body, plain about the head."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from hep2flow.errors import UserError
from hep2flow.network.model import WithFeatures, head_name, timm_network
from hep2flow.training.checkpoint import METADATA

OF_A_WRAPPED_NETWORK = "backbone."

Meaning = tuple[list[str], list[str]]  # of a head: what its logits stand for, and which measurements it weighs


def load_weights(network: torch.nn.Module, path: Path, origin: str, labels: list[str]) -> list[str]:
    """Load safetensors into the network; returns the names of the head's tensors where they stay fresh.

    Arguments and errors as :func:`fitting_weights`; nothing is loaded where the body does not fit.
    """
    model = timm_network(network)
    taken, fresh = fitting_weights(network, path, origin, labels)
    model.load_state_dict({**model.state_dict(), **taken})
    return fresh


def fitting_weights(
    network: torch.nn.Module, path: Path, origin: str, labels: list[str]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors of a safetensors file that a network takes, and the names of the head's where those stay fresh.

    path:   the file on this machine
    origin: what the user named, for messages
    labels: pattern names in the order of the logits. The file's head is taken only where the file is a checkpoint of ours
            with these very labels and measurements: six logits of other patterns fit in shape, and mean something else

    Raises UserError where a tensor of the body is missing, misshapen or of another network.
    """
    model = timm_network(network)
    tensors, meaning = _read(path, origin)
    if meaning is None:
        # What timm itself does to a file from its hub: CoaT's holds norms that its network has no more.
        adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
        tensors = tensors if adapt is None else adapt(tensors, model)
    own = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    own = {name: tensor for name, tensor in own.items() if name in model.state_dict()}
    # CoaT shares tensors under several names; a file may hold only one of them.
    shared = {id(own[name]): tensor for name, tensor in tensors.items() if name in own}
    tensors = {name: shared[id(own[name])] for name in own if id(own[name]) in shared} | {
        name: tensor for name, tensor in tensors.items() if name not in own
    }
    head = head_name(model) + "."

    def fault(name: str) -> str | None:
        if name not in tensors:
            return f"{name} is missing"
        given, own_shape = list(tensors[name].shape), list(own[name].shape)
        return None if given == own_shape else f"{name} is {given}, not {own_shape}"

    in_head = [name for name in own if name.startswith(head)]
    wanted = (labels, list(network.head.features) if isinstance(network, WithFeatures) else [])
    fresh = [] if meaning == wanted and not any(map(fault, in_head)) else in_head
    wrong = [found for name in own if name not in in_head and (found := fault(name))]
    wrong += [f"{name} is not of this network" for name in tensors if name not in own and not name.startswith(head)]
    if wrong:
        raise UserError(
            f"model.weights: {origin} does not fit the network: {'; '.join(wrong[:5])} ({len(wrong)} in all); "
            "give weights of the network that model.network names"
        )
    return {name: tensor for name, tensor in tensors.items() if name in own and name not in fresh}, fresh


def _read(path: Path, origin: str) -> tuple[dict[str, torch.Tensor], Meaning | None]:
    """The tensors, and what the head of a checkpoint of ours means; None for any other file."""
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA)
            meaning = None
            if text is not None:
                facts = json.loads(text)
                meaning = (list(map(str, facts["labels"])), list(map(str, facts["recipe"]["model"]["aux_features"])))
            tensors = {
                name.removeprefix(OF_A_WRAPPED_NETWORK) if meaning is not None else name: file.get_tensor(name)
                for name in file.keys()  # noqa: SIM118 - not a dictionary
            }
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"model.weights: {origin} is not a readable safetensors file ({error}); give another, or model.weights=none"
        ) from error
    return tensors, meaning
