"""``hep2flow doctor``."""

import json
from dataclasses import asdict
from typing import Annotated

from typer import Exit, Option

from hep2flow.cli import options
from hep2flow.cli.common import read_cluster_options
from hep2flow.errors import UserError

MARKS = {"ok": "ok     ", "warning": "warning", "error": "ERROR  "}


def doctor(
    cluster: Annotated[
        bool, Option("--cluster", help="Check the Kubernetes cluster that KUBECONFIG names instead.")
    ] = False,
    namespace: Annotated[str, Option(help="Namespace of the runs' jobs on the cluster.")] = "",
    options_file: options.ClusterFileOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Check what is missing here, or on the cluster, and how to fix it; exit code 2 where there is an error."""
    if not cluster and (namespace or options_file):
        raise UserError("--namespace and --options are of the cluster; add --cluster")
    if cluster:
        from hep2flow.execution.kubernetes.doctor import check_cluster

        checks = check_cluster(read_cluster_options(options_file, namespace=namespace or None))
    else:
        from hep2flow.execution.local.doctor import check_machine

        checks = check_machine()
    findings = []
    for finding in checks:
        findings.append(finding)
        if not as_json:
            print(f"{MARKS[finding.state]} {finding}", flush=True)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    if any(finding.state == "error" for finding in findings):
        raise Exit(2)
