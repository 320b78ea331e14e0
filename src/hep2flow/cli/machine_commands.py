"""``hep2flow doctor`` and ``hep2flow storage``: this machine, its embedded object store, and the cluster it reaches."""

import json
from dataclasses import asdict
from typing import Annotated

from typer import Exit, Option, Typer

from hep2flow.cli import options
from hep2flow.cli.common import read_cluster_options
from hep2flow.errors import UserError

MARKS = {"ok": "ok     ", "warning": "warning", "error": "ERROR  "}

storage = Typer(name="storage", no_args_is_help=True, help="The embedded object store on this machine.")


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


@storage.command()
def up() -> None:
    """Start the embedded store, or find it running."""
    from hep2flow.store import embedded_server

    embedded_server.ensure_running()
    status()


@storage.command()
def down() -> None:
    """Stop the embedded store; its data stays."""
    from hep2flow.store import embedded_server

    print("stopped" if embedded_server.down() else "was not running")


@storage.command()
def status(as_json: options.JsonOption = False) -> None:
    """Whether the embedded store runs, where, and how much it holds."""
    from hep2flow.store import embedded_server

    facts = embedded_server.status()
    print(json.dumps(facts, indent=2) if as_json else "\n".join(f"{name:<10} {fact}" for name, fact in facts.items()))


@storage.command()
def path() -> None:
    """The folder the embedded store keeps its data in."""
    from hep2flow.store import embedded_server

    print(embedded_server.status()["data"])
