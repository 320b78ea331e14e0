"""Full memory and full disks as errors that name the remedy."""

from safetensors import SafetensorError

from hep2flow.errors import UserError
from hep2flow.store.errors import NO_SPACE

FEWER = "lower train.batch_size or train.loader_workers, set train.accumulation=2 or more"
LESS_MEMORY = f"{FEWER}, or give the machine more"
# Messages of torch's allocator and of safetensors, which raise no class of their own for these.
NO_MEMORY = ("can't allocate memory", "not enough memory")
DISK_FULL = ("No space left on device", "File too large", "Disk quota exceeded")


def as_resource_error(error: Exception, folder: str) -> UserError | None:
    """Translate out-of-memory and disk-full errors to a UserError; a UserError is returned as it is, None for others.

    ``folder`` is where this worker writes, for the message.
    """
    import torch

    if isinstance(error, UserError):
        return error
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError):
        what = "GPU out of memory: lower train.batch_size, or keep it and set train.accumulation=2 or more"
        others = "model.gradient_checkpointing=true, or resources.workers=2 or more"
        return UserError(f"{what}, {others} ({text.splitlines()[0]})")
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(sign in text for sign in NO_MEMORY)):
        what = "out of memory on the worker's machine"
        return UserError(f"{what}: {LESS_MEMORY} ({text.splitlines()[0] if text else 'malloc'})")
    full = isinstance(error, OSError) and error.errno in NO_SPACE
    if full or (isinstance(error, (SafetensorError, OSError)) and any(sign in text for sign in DISK_FULL)):
        return UserError(f"no space left on the worker's disk at {folder}: free some, or set TMPDIR to a larger disk")
    return None
