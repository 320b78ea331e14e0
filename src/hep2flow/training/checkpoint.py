"""What a training saves after an epoch: the best network, the state to resume from, and the history."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from hep2flow.errors import UserError
from hep2flow.network.model import build_network
from hep2flow.recipe import Recipe, parse_recipe
from hep2flow.selected_on_test import OPTIMISTIC_WARNING
from hep2flow.training.train_step import TrainStep

BEST, METRICS, STATE = "best.safetensors", "metrics.jsonl", "state.safetensors"
METADATA, STATE_METADATA = "hep2flow", "hep2flow-state"

History = list[dict[str, Any]]  # a line of ``metrics.jsonl`` per complete epoch


@dataclass(frozen=True)
class CheckpointFiles:
    """The files of a training's folder at one moment, to be written."""

    folder: Path
    epoch: int  # complete ones
    updates: int  # optimizer steps so far
    changed: list[str]  # names of the files that differ from those of the checkpoint before
    resumable: bool  # whether training can resume from these files; not after the last epoch, which saves no state
    deferred: bool  # whether they may be written while training continues, instead of before it does
    write: Callable[[], None]  # writes the files; call once, from any thread, in the checkpoints' order

    @classmethod
    def after_epoch(
        cls, folder: Path, step: TrainStep, history: History, description: Description, *, last: bool, deferred: bool
    ) -> CheckpointFiles:
        """The history, the network if the latest epoch is the best so far, and the state unless it was the ``last``."""
        network = TensorSnapshot(step.evaluated_network.state_dict(), copy=deferred) if history[-1]["best"] else None
        state = None if last else TrainingState(step, history, copy=deferred)
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

        changed = [*([] if last else [STATE]), METRICS, *([BEST] if network is not None else [])]
        return cls(folder, history[-1]["epoch"], step.updates, changed, not last, deferred, write)

    @classmethod
    def mid_epoch(cls, folder: Path, step: TrainStep, history: History, partial_epoch: PartialEpoch) -> CheckpointFiles:
        """The state alone, to be written at once, with the updates that follow the history's last epoch."""
        state = TrainingState(step, history, partial_epoch, copy=False)
        return cls(folder, len(history), step.updates, [STATE], True, False, lambda: state.save(folder / STATE))


@dataclass(frozen=True)
class Description:
    """Metadata of a checkpoint."""

    recipe: Recipe
    labels: list[str]  # pattern names in the order of the logits
    bits: int  # significant bits of the training images, 8 to 16
    selected_on_test: bool = False  # whether the epoch was chosen on the test set (protocol whole-train)


def save_checkpoint(path: Path, network: TensorSnapshot, description: Description) -> None:
    """Write a network's state_dict and its description; replaces the checkpoint before."""
    facts = {
        "recipe": description.recipe.model_dump(mode="json"),
        "labels": description.labels,
        "bits": description.bits,
        "selected_on_test": description.selected_on_test,
        **({"warning": OPTIMISTIC_WARNING} if description.selected_on_test else {}),
    }
    _save(path, network.to_cpu(), {METADATA: json.dumps(facts, sort_keys=True)})


def load_checkpoint(path: Path, device: torch.device) -> tuple[torch.nn.Module, Description]:
    """The network in evaluation mode, and its description; UserError where the file is not such a checkpoint."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[METADATA])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
        recipe, labels, bits = parse_recipe(facts["recipe"], path.name), list(facts["labels"]), int(facts["bits"])
        description = Description(recipe, labels, bits, bool(facts["selected_on_test"]))
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"{path.name}: not a checkpoint of hep2flow ({error}); train again, or name another") from error
    network = build_network(description.recipe.model, len(description.labels))
    network.load_state_dict(state)
    return network.to(device).eval(), description


@dataclass(frozen=True)
class PartialEpoch:
    """What is done of an incomplete epoch: batches, cells in them, and the sum of the losses of these cells."""

    batches: int = 0
    cells: int = 0
    loss: float = 0.0


class TrainingState:
    """Snapshot of network, weight average, optimizer, gradient scaler and history, from which training can resume."""

    def __init__(self, step: TrainStep, history: History, begun: PartialEpoch | None = None, *, copy: bool) -> None:
        tensors = {f"network.{name}": tensor for name, tensor in step.network.state_dict().items()}
        if step.average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in step.average.module.state_dict().items()}
        # Tensors go into the safetensors file as such, plain numbers into its metadata.
        numbers: dict[str, dict[str, Any]] = {}
        for index, values in step.optimizer.state_dict()["state"].items():
            found = {name: value for name, value in values.items() if torch.is_tensor(value)}
            tensors |= {f"optimizer.{index}.{name}": value for name, value in found.items()}
            numbers[str(index)] = {name: value for name, value in values.items() if name not in found}
        facts = {
            "updates": step.updates,
            "history": history,
            "begun": asdict(begun or PartialEpoch()),
            "optimizer": numbers,
            "scaler": step.scaler.state_dict(),
        }
        self._tensors, self._facts = TensorSnapshot(tensors, copy=copy), json.dumps(facts, sort_keys=True)

    def save(self, path: Path) -> None:
        """Write it, once; replaces the state before."""
        _save(path, self._tensors.to_cpu(), {STATE_METADATA: self._facts})


def load_state(path: Path, step: TrainStep) -> tuple[History, PartialEpoch]:
    """Load a state into a step built from the same recipe; returns the history and what is done of the next epoch."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[STATE_METADATA])
            # Cloned: the library maps the file into memory, but training updates these tensors in place.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dictionary
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        remedy = "delete the training's resume folder to start anew"
        raise UserError(f"{path.name}: is no state of a training ({error}); {remedy}") from error

    def with_prefix(prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    step.network.load_state_dict(with_prefix("network."))
    if step.average is not None:
        step.average.module.load_state_dict(with_prefix("average."))
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in facts["optimizer"].items()}
    for name, tensor in with_prefix("optimizer.").items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    step.optimizer.load_state_dict({"state": state, "param_groups": step.optimizer.state_dict()["param_groups"]})
    for parameter, values in step.optimizer.state.items():
        for key, value in values.items():
            # A file stores no strides, and torch's fused kernels assume that all of a parameter's are alike.
            if torch.is_tensor(value) and value.shape == parameter.shape:
                values[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    if step.scaler.is_enabled():
        step.scaler.load_state_dict(facts["scaler"])
    step.updates = int(facts["updates"])
    return facts["history"], PartialEpoch(**facts["begun"])


class TensorSnapshot:
    """Tensors at one moment; with ``copy``, copied on their device, so that training may continue while they are written."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], *, copy: bool) -> None:
        self._tensors = {name: _dense(each.detach()) if copy else each.detach() for name, each in tensors.items()}
        self._device = next((tensor.device for tensor in self._tensors.values() if tensor.is_cuda), None)
        self._taken = None if self._device is None else torch.cuda.current_stream(self._device).record_event()

    def to_cpu(self) -> dict[str, torch.Tensor]:
        """The tensors, contiguous, no two in the same memory; call once, from any thread: it frees the copies."""
        tensors, self._tensors = self._tensors, {}
        if self._taken is None:
            return _unshared(tensors)
        # A stream of their own: in the default one the copies would wait for all queued updates, and later ones for them.
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_event(self._taken)
        with torch.cuda.stream(stream):
            return _unshared({name: tensor.cpu() for name, tensor in tensors.items()})


def _unshared(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """CoaT's blocks share tensors, but safetensors stores each name on its own."""
    unshared, seen = {}, set()
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        unshared[name] = _dense(tensor) if storage in seen or not tensor.is_contiguous() else tensor
        seen.add(storage)
    return unshared


def _save(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, metadata)
    temporary.replace(path)


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)
