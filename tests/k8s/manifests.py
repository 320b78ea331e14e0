"""The manifests of ``k8s/`` as ``kubectl apply -k`` would send them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

K8S = Path(__file__).parents[2] / "k8s"
OVERLAYS = sorted(path.parent.name for path in K8S.glob("overlays/*/kustomization.yaml"))

Tree = dict[str, Any]


@cache
def built(overlay: str, folder: Path = K8S) -> list[Tree]:
    """What an overlay holds; its test is skipped where kubectl, which renders it, is not there."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not there: it renders the overlays; install it from the Kubernetes project")
    command = ["kubectl", "kustomize", str(folder / "overlays" / overlay)]
    rendered = subprocess.run(command, capture_output=True, text=True, check=False)
    assert rendered.returncode == 0, rendered.stderr
    return list(yaml.safe_load_all(rendered.stdout))


def of_kind(overlay: str, kind: str) -> list[Tree]:
    """Its resources of one kind."""
    return [resource for resource in built(overlay) if resource["kind"] == kind]


def leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value that is no mapping and no list, with its path."""
    if isinstance(tree, dict):
        for key, child in tree.items():
            yield from leaves(child, (*path, str(key)))
    elif isinstance(tree, list):
        for index, child in enumerate(tree):
            yield from leaves(child, (*path, str(index)))
    else:
        yield path, tree
