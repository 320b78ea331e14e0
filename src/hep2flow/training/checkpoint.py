"""What a training leaves after an epoch: the best network, the state it can resume from, the history."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from hep2flow.errors import UserError
from hep2flow.network.model import build_network
from hep2flow.recipe import Recipe, parse_recipe
from hep2flow.selected_on_test import OPTIMISTIC
from hep2flow.training.safetensors_io import overwrite
from hep2flow.training.train_step import Step

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


class Copied:
    """later: copies, on the tensors' own device, whose memory has to hold both; else the tensors, for use at once."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], *, later: bool) -> None:
        self._tensors = {name: tensor.detach() for name, tensor in tensors.items()}
        if later:
            self._tensors = {name: _dense(tensor) for name, tensor in self._tensors.items()}
        self._device = next((tensor.device for tensor in self._tensors.values() if tensor.is_cuda), None)
        self._made = None if self._device is None else torch.cuda.current_stream(self._device).record_event()

    def on_cpu(self) -> dict[str, torch.Tensor]:
        """Dense, no two in the same memory; in any thread, once: what a device holds for copies is free then.

        From a GPU they are fetched beside the updates: in its usual queue they would wait for all updates before them, and
        those after them would wait.
        """
        tensors, self._tensors = self._tensors, {}
        if self._made is None:
            return _apart(tensors)
        beside = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        beside.wait_event(self._made)
        with torch.cuda.stream(beside):
            return _apart({name: tensor.cpu() for name, tensor in tensors.items()})


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


def _apart(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """CoaT's blocks share tensors, and safetensors stores each name on its own."""
    apart, taken = {}, set()
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        apart[name] = _dense(tensor) if place in taken or not tensor.is_contiguous() else tensor
        taken.add(place)
    return apart


STATE_METADATA = "hep2flow-state"


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
        overwrite(path, self._tensors.on_cpu(), {STATE_METADATA: self._facts})


def load_state(path: Path, step: Step) -> tuple[list[dict[str, Any]], Begun]:
    """Put a state back into a step made of the same recipe; returns the history and what is done of the next epoch."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[STATE_METADATA])
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


BEST, METRICS, STATE = "best.safetensors", "metrics.jsonl", "state.safetensors"


@dataclass(frozen=True)
class Files:
    """What the folder of a training shall hold at one moment of it.

    epoch, updates: whole epochs and updates done
    fresh:          names of the files that are not those of the moment before
    goes_on:        whether a training can go on from them: not from the last, which has no state
    later:          whether they may be written while the training goes on; else before it does
    write:          puts them there, in any thread, once, one moment after the other; the state is no whole file meanwhile
    """

    folder: Path
    epoch: int
    updates: int
    fresh: list[str]
    goes_on: bool
    later: bool
    write: Callable[[], None]


def after_epoch(
    folder: Path, step: Step, history: list[dict[str, Any]], description: Description, *, last: bool, later: bool
) -> Files:
    """``metrics.jsonl``, ``best.safetensors`` where this epoch is the best so far, and, but for the last, the state.

    history: one line of ``metrics.jsonl`` per whole epoch
    """
    network = Copied(step.candidate.state_dict(), later=later) if history[-1]["best"] else None
    state = None if last else State(step, history, later=later)
    lines = "".join(json.dumps(line) + "\n" for line in history)

    def write() -> None:
        if network is not None:
            save_checkpoint(folder / BEST, network, description)
        temporary = folder / f"{METRICS}.tmp"
        temporary.write_text(lines, encoding="utf-8")
        temporary.replace(folder / METRICS)
        if state is None:
            (folder / STATE).unlink(missing_ok=True)
        else:
            state.save(folder / STATE)

    fresh = [*([] if last else [STATE]), METRICS, *([BEST] if network is not None else [])]
    return Files(folder, history[-1]["epoch"], step.updates, fresh, not last, later, write)


def in_epoch(folder: Path, step: Step, history: list[dict[str, Any]], begun: Begun) -> Files:
    """The state alone, with some batches done of the epoch after those of the history, at once."""
    state = State(step, history, begun, later=False)
    return Files(folder, len(history), step.updates, [STATE], True, False, lambda: state.save(folder / STATE))
