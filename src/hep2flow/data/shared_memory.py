"""Shared memory of the loader workers: whether their batches fit into it, before the first one is made."""

from __future__ import annotations

import shutil
from pathlib import Path

from hep2flow.errors import UserError

FOLDER = Path("/dev/shm")  # noqa: S108 - where torch's loader workers put their batches on Linux
PREFETCHED = 2  # batches that each worker makes ahead: torch's prefetch_factor


def check_shared_memory(batch_bytes: int, workers: int) -> None:
    """Refuse a training whose loader workers would run out of shared memory, where torch would wait for ever.

    A container has 64 MiB of it unless told otherwise (Docker's default, and Kubernetes'). A worker that finds no space
    loses its batch without an error in the training, which then waits for that batch (seen with torch 2.14).

    Args:
        batch_bytes: Of the largest batch.
        workers: Loader workers of one training process.

    Raises:
        UserError: The batches that are under way at once do not fit.
    """
    if not FOLDER.is_dir():
        return
    needed = (workers * PREFETCHED + 1) * batch_bytes  # and the one that is trained on
    free = shutil.disk_usage(FOLDER).free
    if needed > free:
        raise UserError(
            f"train.loader_workers: {workers} workers hold up to {needed / 2**20:,.0f} MiB of batches in shared memory, "
            f"{FOLDER} has {free / 2**20:,.0f} MiB free; lower train.loader_workers (0 needs none) or train.batch_size, or "
            "give the container more (docker run --shm-size, a memory volume in Kubernetes)"
        )
