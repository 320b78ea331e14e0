"""``make test-cluster``: what only a Kubernetes cluster can show; exit code 2 where there is none."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from hep2flow.errors import UserError
from hep2flow.execution.kubernetes.doctor import check_cluster
from tests.on_cluster.overlay import Overlay, read_overlay

SECONDS = 3600  # that one test may take at most
NEEDED = ("kuberay", "secret")  # of what the doctor looks at, before anything is applied


def main() -> int:
    """Look for what is missing, then run the tests of this folder."""
    parser = argparse.ArgumentParser(prog="make test-cluster", description=__doc__)
    parser.add_argument("--overlay", required=True, help="one of k8s/overlays")
    parser.add_argument("--images", required=True, help="repository under which the image `ray` lies")
    parser.add_argument("--namespace", default="", help="in place of the overlay's own")
    given = parser.parse_args()
    try:
        overlay = read_overlay(given.overlay, given.images, given.namespace)
        refuse_without_cluster(overlay)
    except UserError as error:
        print(f"make test-cluster: {error}", file=sys.stderr)
        return 2
    options = [f"--overlay={given.overlay}", f"--images={given.images}", f"--namespace={given.namespace}"]
    code = pytest.main([str(Path(__file__).parent), "-v", f"--timeout={SECONDS}", *options])
    print(f"The manifests stay in namespace {overlay.namespace}; kubectl delete -k {overlay.folder} removes them.")
    return int(code)


def refuse_without_cluster(overlay: Overlay) -> None:
    """UserError naming the first thing that is not there, and how to mend it: cluster, KubeRay, the store's Secret."""
    for finding in check_cluster(overlay.options.model_copy(update={"namespace": overlay.namespace})):
        if finding.subject in NEEDED and finding.state != "ok":
            raise UserError(str(finding))


if __name__ == "__main__":
    sys.exit(main())
