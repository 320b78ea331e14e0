"""What a training frees and takes again."""

from __future__ import annotations

import subprocess
import sys

FAULTS = """
import resource
import torch
from hep2flow.training.glibc_malloc import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(4 * 2**20, dtype=torch.uint8) for _ in range(64)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before = faults()
keep_freed_memory()
faults()
print(before, faults())
"""


def test_memory_that_was_freed_is_taken_again_without_asking_the_system() -> None:
    """256 MiB in 64 tensors, again and again: page faults before, where glibc gave them back, and after."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before > 10_000, "else there is nothing to keep"
    assert after < before / 20
