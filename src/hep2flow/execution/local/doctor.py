"""What is missing on this machine, and how to mend it."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from hep2flow.errors import UserError
from hep2flow.recipe import load_recipe, shipped_names
from hep2flow.store import embedded_server
from hep2flow.store.s3 import Store, open_store
from hep2flow.store.weights_mirror import find_mirrored

State = Literal["well", "note", "ill"]
NEEDED_GIB = 2
NAMED = ("torch", "ray", "timm", "kfp")  # whose versions a reader asks for first


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    state: ``well``; ``note``, which some want to mend; ``ill``, which everybody has to
    what:  found there
    mend:  what to do; empty where all is well
    """

    subject: str
    state: State
    what: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.subject}: {self.what}" + (f"; {self.mend}" if self.mend else "")


def well(subject: str, what: str) -> Finding:
    """Nothing to do."""
    return Finding(subject, "well", what)


def examine(distribution: str = "hep2flow") -> Iterator[Finding]:
    """Look at everything that work on this machine needs, one after the other.

    Starts the embedded store where the environment names no other, and makes a bucket that is not there yet.
    distribution: whose requirements have to be installed
    """
    if image := os.environ.get("HEP2FLOW_IMAGE"):  # one of ours, which has what its steps need and no more
        yield well("packages", f"those of the image {image}")
    else:
        yield from installed(distribution)
    yield disk("home", embedded_server.home(), "HEP2FLOW_HOME")
    yield disk("temporary files", Path(tempfile.gettempdir()), "TMPDIR")
    store, found = storage()
    yield found
    if store is not None:
        yield from weights(store)
    yield gpus()
    yield ray_address()


def installed(distribution: str) -> Iterator[Finding]:
    """Python and every required package, in the versions asked for."""
    yield well("python", ".".join(map(str, sys.version_info[:3])))
    required = list(_required(distribution, frozenset()))
    faults = [fault for one in required if (fault := _missing(one)) is not None]
    yield from faults
    if not faults:
        named = ", ".join(f"{name} {metadata.version(name)}" for name in NAMED)
        yield well("packages", f"all {len(required)} as required, among them {named}")


def _required(distribution: str, extras: frozenset[str]) -> Iterator[Requirement]:
    """What a distribution asks for here, and what the extras that it names ask for: ``ray[default]`` has to be whole."""
    for text in metadata.requires(distribution) or []:
        one = Requirement(text)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras or {""}):
            yield one
            if one.extras and _missing(one) is None:
                yield from _required(one.name, frozenset(one.extras))


def _missing(required: Requirement) -> Finding | None:
    wanted = f"pip install '{required}'"
    try:
        version = metadata.version(required.name)
    except metadata.PackageNotFoundError:
        return Finding(required.name, "ill", "not installed", wanted)
    if required.specifier.contains(version, prereleases=True):
        return None
    return Finding(required.name, "ill", f"{version} is installed, {required.specifier} is required", wanted)


def disk(subject: str, folder: Path, variable: str) -> Finding:
    """Room where files are going to be written. The folder itself may not be there yet."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free / 2**30
    mend = f"set {variable} to a folder on a disk with room"
    if not os.access(existing, os.W_OK):
        return Finding(subject, "ill", f"{folder} cannot be written", f"set {variable} to a folder you may write to")
    if free < NEEDED_GIB:
        return Finding(
            subject, "ill", f"{free:.1f} GiB free at {folder}, {NEEDED_GIB} are needed", f"free some, or {mend}"
        )
    return well(subject, f"{free:.0f} GiB free at {folder}")


def storage() -> tuple[Store | None, Finding]:
    """The object store: found, entered, and written to; None where it is not."""
    try:
        store = open_store()
        store.check()
        probe = f"doctor-{secrets.token_hex(8)}"
        store.put_bytes(probe, b"")
        store.delete([probe])
    except UserError as error:
        what, _, mend = str(error).rpartition("; ")
        return None, Finding("storage", "ill", what or mend, mend if what else "")
    return store, well("storage", f"{store.uri('')} at {store.address.endpoint or 'AWS S3'} can be read and written")


def weights(store: Store) -> Iterator[Finding]:
    """Pre-trained weights of the shipped recipes, in the store's mirror."""
    recipes = [load_recipe(name) for name in shipped_names("paper")]
    for network in sorted({recipe.model.network for recipe in recipes if recipe.model.weights == "pretrained"}):
        if (mirrored := find_mirrored(store, network)) is not None:
            yield well("weights", f"{network} is in the store, {mirrored.bytes / 2**20:.0f} MiB")
        else:
            yield Finding(
                "weights",
                "note",
                f"{network} is not in the store: its first training fetches it from timm's hub",
                f"where there is no internet: hep2flow weights mirror {network} --file model.safetensors",
            )


def gpus() -> Finding:
    """NVIDIA's GPUs, as torch sees them."""
    try:
        import torch
    except ImportError:  # told among the packages
        return Finding("gpu", "note", "cannot be looked for without torch", "install the packages named above")
    names = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    if names:
        listed = ", ".join(f"{one.name} ({one.total_memory / 2**30:.0f} GiB)" for one in names)
        return well("gpu", f"{len(names)}: {listed}; torch is built for CUDA {torch.version.cuda}")
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return Finding(
            "gpu",
            "ill",
            f"there is one, but torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use it",
            "install the torch build that fits the driver (nvidia-smi names its newest CUDA)",
        )
    return Finding("gpu", "note", "none", "use --profile laptop; the paper's recipes need one")


def ray_address() -> Finding:
    """The Ray cluster that RAY_ADDRESS names: somebody answers there."""
    from hep2flow.distributed.ray_cluster import knock

    address = os.environ.get("RAY_ADDRESS")
    if not address:
        return well("ray", "RAY_ADDRESS is not set: a local one is started for each run")
    try:
        knock(address)
    except (OSError, ValueError) as error:
        return Finding(
            "ray", "ill", f"{address} does not answer ({error})", "correct RAY_ADDRESS, or unset it to train here"
        )
    return well("ray", f"{address} answers")
