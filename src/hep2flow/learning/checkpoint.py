"""The best network of a training, as safetensors; its description rides in the file's metadata.

A checkpoint alone is enough to predict: it holds the recipe, the labels and the depth of the pixels it was trained on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from hep2flow.errors import UserError
from hep2flow.learning.copied import Copied
from hep2flow.learning.model import build_network
from hep2flow.learning.overwriting import overwrite
from hep2flow.optimism import OPTIMISTIC
from hep2flow.recipe import Recipe, parse_recipe

METADATA = "hep2flow"


@dataclass(frozen=True)
class Description:
    """What a checkpoint says of itself.

    labels: pattern names in the order of the logits
    bits:   significant bits of the training images, 8 to 16
    selected_on_test: the epoch was chosen on the test set (protocol whole-train)
    """

    recipe: Recipe
    labels: list[str]
    bits: int
    selected_on_test: bool = False


def save_checkpoint(path: Path, network: Copied, description: Description) -> None:
    """Write it over the one before: the training's folder is its own, and what is sent or published is whole.

    network: its state_dict
    """
    facts = {
        "recipe": description.recipe.model_dump(mode="json"),
        "labels": description.labels,
        "bits": description.bits,
        "selected_on_test": description.selected_on_test,
        **({"warning": OPTIMISTIC} if description.selected_on_test else {}),
    }
    overwrite(path, network.on_cpu(), {METADATA: json.dumps(facts, sort_keys=True)})


def load_checkpoint(path: Path, device: torch.device) -> tuple[torch.nn.Module, Description]:
    """The network, ready to predict, and its description; UserError where the file is not such a checkpoint."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[METADATA])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
        description = Description(
            recipe=parse_recipe(facts["recipe"], path.name),
            labels=list(facts["labels"]),
            bits=int(facts["bits"]),
            selected_on_test=bool(facts["selected_on_test"]),
        )
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"{path.name}: not a checkpoint of hep2flow ({error}); train again, or name another") from error
    network = build_network(description.recipe.model, len(description.labels))
    network.load_state_dict(state)
    return network.to(device).eval(), description
