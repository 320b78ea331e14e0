"""Safetensors files that are written again and again: the state and the best network of a training.

The library would take a new file each time, and the system new pages for it: of a state of 40 MB that was 2 % of a laptop
recipe's training, six times what it costs to write over the old ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
ALIGNMENT = 8


def overwrite(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write dense tensors of the CPU as ``safetensors.torch.save_file`` does, over the file that is there, if any.

    While it writes, the file is neither the old nor the new one, and tensors that map it change: for a file that nobody
    reads before this returns, nor keeps mapped.
    The format: https://huggingface.co/docs/safetensors, the widest numbers first, so that all are aligned.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        tensor = tensors[name]
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    path.touch()
    with path.open("r+b") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
        file.truncate()
