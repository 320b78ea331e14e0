"""Errors that end a training for good: they name the remedy, and the best network before them is saved."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hep2flow.distributed.ray_cluster import connected
from hep2flow.distributed.resource_errors import as_resource_error
from hep2flow.errors import UserError
from hep2flow.stages.train import train
from hep2flow.store.s3 import Store
from hep2flow.training.checkpoint import load_checkpoint

from ..stages.test_train import prepared, tiny

MEMORY = 4 * 2**30
FILE = 2**16


def test_a_training_that_diverges_keeps_the_best_network_before_it(store: Store, tmp_path: Path) -> None:
    growing = ["optim.name=sgd", "schedule.name=constant", "schedule.warmup_updates=100", "optim.lr=10"]
    recipe = tiny("train.max_updates=null", "train.epochs=10", "train.clipping=null", *growing)
    dataset, division = prepared(store, tmp_path, recipe)
    with connected(), pytest.raises(UserError, match=r"diverged.*epoch [2-9].*cells ") as stopped:
        train(store, recipe, dataset, division)
    kept = str(stopped.value).rpartition(" is saved at ")[2]
    store.get_file(store.key(kept), tmp_path / "best.safetensors")
    network, _ = load_checkpoint(tmp_path / "best.safetensors", torch.device("cpu"))
    assert all(torch.isfinite(tensor).all() for tensor in network.state_dict().values())


@pytest.mark.parametrize(
    ("limit", "size", "code", "message"),
    [
        (resource.RLIMIT_AS, MEMORY, "torch.zeros(2**40)", "out of memory on the worker's machine"),
        (resource.RLIMIT_AS, MEMORY, "bytearray(2**40)", "out of memory on the worker's machine"),
        (resource.RLIMIT_FSIZE, FILE, "save_file({'x': torch.zeros(2**20)}, 'x.safetensors')", "no space left"),
        (resource.RLIMIT_FSIZE, FILE, "open('x', 'wb').write(bytes(2**20))", "no space left"),
    ],
)
def test_what_the_operating_system_refuses_is_named(
    limit: int, size: int, code: str, message: str, tmp_path: Path
) -> None:
    program = f"""
import resource, signal, torch
from safetensors.torch import save_file
from hep2flow.distributed.resource_errors import as_resource_error
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit({limit}, ({size}, {size}))
try:
    {code}
except Exception as error:
    print(as_resource_error(error, "/scratch"))
"""
    answer = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert message in answer.stdout


def test_any_other_error_is_not_taken_for_a_full_machine() -> None:
    assert as_resource_error(RuntimeError("CUDA error: an illegal memory access was encountered"), "/scratch") is None
    assert as_resource_error(FileNotFoundError(2, "No such file or directory"), "/scratch") is None
