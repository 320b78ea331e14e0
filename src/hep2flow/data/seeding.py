"""Random draws that depend on what they are for, never on what was drawn before."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derived_seed(*parts: object) -> int:
    """63-bit seed from any parts, equal on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


@contextmanager
def seeded(*parts: object, device: torch.device | None = None) -> Iterator[None]:
    """Run a block with torch's, numpy's and Python's generators seeded from ``parts``; their states come back after it.

    device: a GPU whose generator is seeded as well; its state does not come back
    torchvision and timm draw from the global generators, this makes each draw a function of (seed, epoch, cell).
    """
    seed = derived_seed(*parts)
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type == "cuda":
        torch.cuda.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
