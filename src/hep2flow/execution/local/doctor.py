"""Checks of this machine: what is missing, and how to fix it."""

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
from hep2flow.store.open_store import open_store
from hep2flow.store.s3 import Store
from hep2flow.store.weights_mirror import find_mirrored

NEEDED_GIB = 2
NAMED = ("torch", "ray", "timm", "kfp")  # whose versions a reader asks for first


@dataclass(frozen=True)
class Finding:
    """Result of one check, as ``doctor --json`` prints it."""

    subject: str
    state: Literal["ok", "warning", "error"]  # a warning is for some users, an error is for all to fix
    what: str
    mend: str = ""  # how to fix it; empty with ok

    def __str__(self) -> str:
        return f"{self.subject}: {self.what}" + (f"; {self.mend}" if self.mend else "")


def ok(subject: str, what: str) -> Finding:
    """A finding with nothing to fix."""
    return Finding(subject, "ok", what)


def check_machine(distribution: str = "hep2flow") -> Iterator[Finding]:
    """Check everything that work on this machine needs, one after the other: first that distribution's requirements.

    Starts the embedded store where the environment names no other, and creates a missing bucket.
    """
    if image := os.environ.get("HEP2FLOW_IMAGE"):  # one of ours, which has what its steps need and no more
        yield ok("packages", f"those of the image {image}")
    else:
        yield from check_packages(distribution)
    yield check_disk("home", embedded_server.home(), "HEP2FLOW_HOME")
    yield check_disk("temporary files", Path(tempfile.gettempdir()), "TMPDIR")
    yield from check_store()
    yield check_gpus()
    yield check_ray()


def check_packages(distribution: str) -> Iterator[Finding]:
    """Python and every required package, in the required versions."""
    yield ok("python", ".".join(map(str, sys.version_info[:3])))
    required = list(_required(distribution, frozenset()))
    faults = list(filter(None, map(_missing, required)))
    yield from faults
    if not faults:
        named = ", ".join(f"{name} {metadata.version(name)}" for name in NAMED)
        yield ok("packages", f"all {len(required)} as required, among them {named}")


def _required(distribution: str, extras: frozenset[str]) -> Iterator[Requirement]:
    """Requirements of a distribution with these extras, and of the extras they name: ``ray[default]`` must be complete."""
    for text in metadata.requires(distribution) or []:
        one = Requirement(text)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras or {""}):
            yield one
            if one.extras and _missing(one) is None:
                yield from _required(one.name, frozenset(one.extras))


def _missing(required: Requirement) -> Finding | None:
    command = f"pip install '{required}'"
    try:
        version = metadata.version(required.name)
    except metadata.PackageNotFoundError:
        return Finding(required.name, "error", "not installed", command)
    if required.specifier.contains(version, prereleases=True):
        return None
    return Finding(required.name, "error", f"{version} is installed, {required.specifier} is required", command)


def check_disk(subject: str, folder: Path, variable: str) -> Finding:
    """Free space where files are going to be written; the folder itself may not exist yet."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free / 2**30
    if not os.access(existing, os.W_OK):
        return Finding(subject, "error", f"{folder} cannot be written", f"set {variable} to a folder you may write to")
    if free < NEEDED_GIB:
        fix = f"free some, or set {variable} to a folder on a disk with room"
        return Finding(subject, "error", f"{free:.1f} GiB free at {folder}, {NEEDED_GIB} are needed", fix)
    return ok(subject, f"{free:.0f} GiB free at {folder}")


def check_store() -> Iterator[Finding]:
    """The object store, which must be reached, read and written, and what is in it."""
    try:
        store = open_store()
        store.check()
        probe = f"doctor-{secrets.token_hex(8)}"
        store.put_bytes(probe, b"")
        store.delete([probe])
    except UserError as error:
        what, _, fix = str(error).rpartition("; ")
        yield Finding("storage", "error", what or fix, fix if what else "")
        return
    yield ok("storage", f"{store.uri('')} at {store.address.endpoint or 'AWS S3'} can be read and written")
    yield from check_weights(store)


def check_weights(store: Store) -> Iterator[Finding]:
    """Pre-trained weights of the shipped recipes, in the store's mirror."""
    recipes = [load_recipe(name) for name in shipped_names("paper")]
    for network in sorted({recipe.model.network for recipe in recipes if recipe.model.weights == "pretrained"}):
        if (mirrored := find_mirrored(store, network)) is not None:
            yield ok("weights", f"{network} is in the store, {mirrored.bytes / 2**20:.0f} MiB")
        else:
            what = f"{network} is not in the store: its first training fetches it from timm's hub"
            fix = f"where there is no internet: hep2flow weights mirror {network} --file model.safetensors"
            yield Finding("weights", "warning", what, fix)


def check_gpus() -> Finding:
    """NVIDIA's GPUs, as torch sees them."""
    try:
        import torch
    except ImportError:  # reported among the packages
        return Finding("gpu", "warning", "cannot be looked for without torch", "install the packages named above")
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    if gpus:
        names = ", ".join(f"{gpu.name} ({gpu.total_memory / 2**30:.0f} GiB)" for gpu in gpus)
        return ok("gpu", f"{len(gpus)}: {names}; torch is built for CUDA {torch.version.cuda}")
    if any(Path("/dev").glob("nvidia[0-9]*")):
        what = f"there is one, but torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use it"
        fix = "install the torch build that fits the driver (nvidia-smi names its newest CUDA)"
        return Finding("gpu", "error", what, fix)
    return Finding("gpu", "warning", "none", "use --profile laptop; the paper's recipes need one")


def check_ray() -> Finding:
    """Whether the Ray cluster that RAY_ADDRESS names answers."""
    from hep2flow.distributed.ray_cluster import check_reachable

    address = os.environ.get("RAY_ADDRESS")
    if not address:
        return ok("ray", "RAY_ADDRESS is not set: a local one is started for each run")
    try:
        check_reachable(address)
    except (OSError, ValueError) as error:
        fix = "correct RAY_ADDRESS, or unset it to train here"
        return Finding("ray", "error", f"{address} does not answer ({error})", fix)
    return ok("ray", f"{address} answers")
