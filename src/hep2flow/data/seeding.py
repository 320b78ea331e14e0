"""Random draws that depend on their purpose alone, never on what was drawn before."""

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
    """Seed torch's, numpy's and Python's global generators for a block, and restore their states after it.

    torchvision and timm draw from the global generators; this makes each draw a function of (seed, epoch, cell). The
    generator of a GPU is seeded as well, but its state is not restored.
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
