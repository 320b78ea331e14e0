"""What the images hold, as docker/*.txt say, and what they lack of what is installed here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module, metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hep2flow.components import images

ROOT = Path(__file__).parents[2]
BARE = {"hep2flow", "kfp"}  # installed without what they depend on
VENDORED = {"step": set[str](), "ray": {"colorama"}}  # which Ray brings itself, and shows once it is imported
IMAGES = {images.STEP: "step", images.RAY: "ray"}


def listed(image: str) -> list[Requirement]:
    """The packages of ``docker/{image}.txt``, and of the lists that it names."""
    found = []
    for line in (ROOT / "docker" / f"{image}.txt").read_text(encoding="utf-8").splitlines():
        if nested := re.fullmatch(r"-r (\w+)\.txt", line):
            found += listed(nested[1])
        elif not line.startswith("#"):
            found.append(Requirement(line))
    return found


def lacking(image: str) -> list[str]:
    """Modules that are installed here, and not in the image."""
    there = BARE | VENDORED[image] | {name for one in listed(image) for name in _with_dependencies(one, set())}
    return sorted(
        module
        for module, distributions in metadata.packages_distributions().items()
        if there.isdisjoint(map(canonicalize_name, distributions))
    )


def image_of(component: str) -> str:
    """``step`` or ``ray``."""
    made = getattr(import_module(f"hep2flow.components.{component}"), component)
    return IMAGES[made.component_spec.implementation.container.image]


def components() -> list[str]:
    """Names of all components."""
    files = {path.stem for path in (ROOT / "components").glob("*.py")}
    return sorted(files - {"__init__", "images"})


def _with_dependencies(wanted: Requirement, seen: set[tuple[str, frozenset[str]]]) -> Iterator[str]:
    name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    yield name
    for text in metadata.requires(name) or []:
        one = Requirement(text)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras or {""}):
            yield from _with_dependencies(one, seen)
