"""Everything the next epoch depends on, as one safetensors file: what a training goes on from.

No state of a random generator is in it: every draw is a function of (seed, epoch, batch or cell, rank), and so is the
learning rate of the update's number.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from hep2flow.errors import UserError
from hep2flow.learning.copied import Copied
from hep2flow.learning.overwriting import overwrite
from hep2flow.learning.step import Step

METADATA = "hep2flow-state"


@dataclass(frozen=True)
class Begun:
    """An epoch of which some batches are done.

    batches: how many; cells: in them; loss: sum over these cells
    """

    batches: int = 0
    cells: int = 0
    loss: float = 0.0


class State:
    """Network, average, optimizer, scaler and history as they are at this moment."""

    def __init__(self, step: Step, history: list[dict[str, Any]], begun: Begun | None = None, *, later: bool) -> None:
        """history: JSON-able, one entry per whole epoch so far; begun: what is done of the next epoch; later: see Copied."""
        optimizer = step.optimizer.state_dict()["state"]
        plain = {
            str(index): {name: value for name, value in of_one.items() if not torch.is_tensor(value)}
            for index, of_one in optimizer.items()
        }
        tensors = {f"network.{name}": tensor for name, tensor in step.network.state_dict().items()}
        if step.average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in step.average.module.state_dict().items()}
        tensors |= {
            f"optimizer.{index}.{name}": value
            for index, of_one in optimizer.items()
            for name, value in of_one.items()
            if torch.is_tensor(value)
        }
        facts = {
            "updates": step.updates,
            "history": history,
            "begun": asdict(begun or Begun()),
            "optimizer": plain,
            "scaler": step.scaler.state_dict(),
        }
        self._tensors, self._facts = Copied(tensors, later=later), json.dumps(facts, sort_keys=True)

    def save(self, path: Path) -> None:
        """Write it, once, over the one before: what a training goes on from is in the store."""
        overwrite(path, self._tensors.on_cpu(), {METADATA: self._facts})


def load_state(path: Path, step: Step) -> tuple[list[dict[str, Any]], Begun]:
    """Put a state back into a step made of the same recipe; returns the history and what is done of the next epoch."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[METADATA])
            # Copies: the library maps the file, and the next state is written over it.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dictionary
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{path.name}: is no state of a training ({error}); delete the training's resume folder to start anew"
        ) from error

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    step.network.load_state_dict(part("network."))
    if step.average is not None:
        step.average.module.load_state_dict(part("average."))
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in facts["optimizer"].items()}
    for name, tensor in part("optimizer.").items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    step.optimizer.load_state_dict({"state": state, "param_groups": step.optimizer.state_dict()["param_groups"]})
    for parameter, values in step.optimizer.state.items():
        for key, value in values.items():
            # A file knows no strides, and torch's fused kernels take it for granted that all of a parameter's are alike.
            if torch.is_tensor(value) and value.shape == parameter.shape:
                values[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    step.scaler.load_state_dict(facts["scaler"]) if step.scaler.is_enabled() else None
    step.updates = int(facts["updates"])
    return facts["history"], Begun(**facts["begun"])
