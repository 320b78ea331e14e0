"""Tensors as they are at one moment, kept while the training goes on to change them."""

from __future__ import annotations

from collections.abc import Mapping

import torch


class Copied:
    """Copies on the tensors' own device, where copying costs next to nothing; a device's memory has to hold both."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        # Each in memory of its own: CoaT's blocks share tensors, and safetensors stores each name on its own.
        self._tensors = {
            name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
        }
        self._device = next((tensor.device for tensor in self._tensors.values() if tensor.is_cuda), None)
        self._made = None if self._device is None else torch.cuda.current_stream(self._device).record_event()

    def on_cpu(self) -> dict[str, torch.Tensor]:
        """The copies, in any thread, once: their memory on the device is free then.

        They are fetched beside the updates: in the device's usual queue they would wait for all updates before them, and
        those after them would wait.
        """
        tensors, self._tensors = self._tensors, {}
        if self._made is None:
            return tensors
        beside = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        beside.wait_event(self._made)
        with torch.cuda.stream(beside):
            return {name: tensor.cpu() for name, tensor in tensors.items()}
