"""An overlay of ``k8s/`` as it is applied here, and what the tests have to know of it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import yaml

from hep2flow import __version__
from hep2flow.errors import UserError
from hep2flow.execution.kubernetes.cluster_options import ClusterOptions, parse_cluster_options
from hep2flow.store.address import StoreAddress
from tests.on_cluster.kubectl import Tree, kubectl

ROOT = Path(__file__).parents[2]
OVERLAYS = ROOT / "k8s" / "overlays"
ELSEWHERE = ROOT / "out" / "test-cluster"  # the kustomization of an overlay in another namespace


@dataclass(frozen=True)
class Overlay:
    """An overlay in its namespace.

    folder:  that ``kubectl apply -k`` takes
    account: of a pipeline's steps
    options: the parameter ``cluster`` of runs there
    store:   where pods find it
    """

    folder: Path
    namespace: str
    account: str
    options: ClusterOptions
    store: StoreAddress


def read_overlay(name: str, images: str, namespace: str = "") -> Overlay:
    """An overlay by its name; UserError where there is none, or its store has no Secret.

    images:    repository under which the image ``ray`` lies
    namespace: in place of the overlay's own
    """
    folder = OVERLAYS / name
    if not (folder / "kustomization.yaml").exists():
        raise UserError(f"OVERLAY={name}: choose one of {', '.join(sorted(path.name for path in OVERLAYS.iterdir()))}")
    if namespace:
        ELSEWHERE.mkdir(parents=True, exist_ok=True)
        beside = {"namespace": namespace, "resources": [os.path.relpath(folder.resolve(), ELSEWHERE.resolve())]}
        (ELSEWHERE / "kustomization.yaml").write_text(yaml.safe_dump(beside), encoding="utf-8")
    given = json.loads((folder / "cluster.json").read_text(encoding="utf-8"))
    chosen = ELSEWHERE if namespace else folder
    objects = list(yaml.safe_load_all(kubectl("kustomize", str(chosen))))
    # The pods of a job go with its end, and a job that does not start is not waited for.
    quick = {"ttl_seconds": 0, "waiting_seconds": 900}
    options = parse_cluster_options({**given, **quick, "namespace": "", "image": f"{images}/ray:{__version__}"})
    if not options.secret:
        raise UserError(f"OVERLAY={name}: its store has no Secret by which these tests could enter it; choose another")
    binding = _named(objects, "RoleBinding", "hep2flow-rayjobs")
    settings = _named(objects, "ConfigMap", "hep2flow-store")["data"]
    return Overlay(
        folder=chosen,
        namespace=binding["metadata"]["namespace"],
        account=binding["subjects"][0]["name"],
        options=options,
        store=StoreAddress(
            endpoint=settings["AWS_ENDPOINT_URL"],
            region=settings["AWS_REGION"],
            bucket=settings["HEP2FLOW_BUCKET"],
            prefix=settings["HEP2FLOW_PREFIX"],
        ),
    )


def _named(objects: list[Tree], kind: str, name: str) -> Tree:
    return next(one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name)
