"""``hep2flow doctor``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hep2flow.cli.options import JsonOption
from hep2flow.errors import UserError

if TYPE_CHECKING:
    from hep2flow.cluster.doctor import Finding

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
    from hep2flow.cluster.doctor import examine

    return examine()


def _on_cluster(namespace: str, file: Path | None) -> Iterator[Finding]:
    from hep2flow.cluster.doctor_cluster import examine_cluster
    from hep2flow.cluster.options import cluster_options

    given = {} if file is None else _read(file)
    return examine_cluster(cluster_options({**given, "namespace": namespace} if namespace else given))


def _read(file: Path) -> dict[str, object]:
    try:
        given = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"--options {file}: cannot be read as JSON ({error}); name a file as in k8s/overlays"
        ) from error
    if not isinstance(given, dict):
        raise UserError(f"--options {file}: the options are a JSON object, this is {type(given).__name__}")
    return given
