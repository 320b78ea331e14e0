"""Tensors as they are at one moment, for whoever writes them at once, or while the training goes on to change them."""

from __future__ import annotations

from collections.abc import Mapping

import torch


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
