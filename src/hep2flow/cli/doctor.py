"""``hep2flow doctor``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hep2flow.cli.common import read_cluster
from hep2flow.cli.options import JsonOption
from hep2flow.errors import UserError

if TYPE_CHECKING:
    from hep2flow.execution.local.doctor import Finding

ILL = 2
MARKS = {"well": "ok  ", "note": "note", "ill": "FAIL"}

app = typer.Typer()


@app.command()
def doctor(
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Look at the Kubernetes cluster that KUBECONFIG names instead.")
    ] = False,
    namespace: Annotated[str, typer.Option("--namespace", help="Where the runs' jobs are, on the cluster.")] = "",
    options: Annotated[
        Path | None, typer.Option("--options", help="The runs' cluster options, a JSON file as in k8s/overlays.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look for what is missing here, or on the cluster, and say how to mend it; exit code 2 where something has to be."""
    if not cluster and (namespace or options):
        raise UserError("--namespace and --options are of the cluster; add --cluster")
    findings = []
    for finding in _on_cluster(namespace, options) if cluster else _here():
        findings.append(finding)
        if not as_json:
            print(f"{MARKS[finding.state]} {finding}", flush=True)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    if any(finding.state == "ill" for finding in findings):
        raise typer.Exit(ILL)


def _here() -> Iterator[Finding]:
    from hep2flow.execution.local.doctor import examine

    return examine()


def _on_cluster(namespace: str, file: Path | None) -> Iterator[Finding]:
    from hep2flow.execution.kubernetes.doctor import examine_cluster

    return examine_cluster(read_cluster(file, {"namespace": namespace} if namespace else {}))
