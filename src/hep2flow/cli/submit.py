"""``hep2flow submit``: a run on a cluster, through Kubeflow Pipelines."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from hep2flow.cli.common import counter, read_cluster, read_recipe
from hep2flow.cli.compile import Pipeline
from hep2flow.cli.options import (
    CaFileOption,
    CookiesFileOption,
    Format,
    FormatOption,
    HostOption,
    NamespaceOption,
    ProfileName,
    ProfileOption,
    SeedsOption,
    SetOption,
    SourceOption,
    TokenFileOption,
)
from hep2flow.errors import UserError

app = typer.Typer()


@app.command()
def submit(
    pipeline: Annotated[Pipeline, typer.Argument()],
    source: SourceOption,
    host: HostOption = "",
    format: FormatOption = Format.auto,
    recipe: Annotated[
        list[str] | None, typer.Option("--recipe", help="Shipped name or .yaml file; several are compared.")
    ] = None,
    profile: ProfileOption = ProfileName.paper,
    set: SetOption = None,
    gpus: Annotated[
        float | None, typer.Option("--gpus", min=0, help="Of each worker; short for --set resources.gpus_per_worker=N.")
    ] = None,
    seeds: SeedsOption = 1,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Of each recipe's sweep.")] = 32,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="KEY=VALUE", help="Any other parameter of the pipeline, for example hours=4."),
    ] = None,
    options: Annotated[
        Path | None, typer.Option("--options", help="What the cluster is, a JSON file as in k8s/overlays.")
    ] = None,
    image: Annotated[
        str, typer.Option("--image", metavar="REGISTRY/NAME[:TAG]", help="Under which the images step and ray lie.")
    ] = "hep2flow",
    keep_tags: Annotated[
        bool, typer.Option("--keep-tags", help="Do not ask the registry for digests: the nodes have the images.")
    ] = False,
    secret: Annotated[
        str | None, typer.Option("--secret", help="Name of the Kubernetes Secret with the store's credentials.")
    ] = None,
    store_endpoint: Annotated[
        str | None, typer.Option("--store-endpoint", help="The store's URL as the cluster reaches it.")
    ] = None,
    queue: Annotated[str | None, typer.Option("--queue", help="Kueue's LocalQueue.")] = None,
    namespace: NamespaceOption = "",
    service_account: Annotated[
        str, typer.Option("--service-account", help="Of the steps; k8s/base makes it.")
    ] = "hep2flow-step",
    experiment: Annotated[str, typer.Option("--experiment", help="Kubeflow's folder of runs.")] = "hep2flow",
    run_id: Annotated[
        str, typer.Option("--run-id", help="Name of the run; made from date and time when not given.")
    ] = "",
    cron: Annotated[
        str,
        typer.Option("--cron", metavar="'0 3 * * *'", help="Run again and again, each run under a name of its own."),
    ] = "",
    token_file: TokenFileOption = None,
    cookies_file: CookiesFileOption = None,
    ca_file: CaFileOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run, and end as it ends.")] = False,
    resubmit: Annotated[
        int,
        typer.Option(
            "--resubmit", min=0, help="With --wait: how often a run that Kubeflow has lost is submitted again."
        ),
    ] = 2,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be sent, and reach out to nobody.")
    ] = False,
) -> None:
    """Run a pipeline on a cluster: cells that lie here are ingested into its store first, then Kubeflow is told."""
    if cron and (run_id or wait):
        raise UserError("--cron: its runs each get a name of their own, later; leave out --run-id and --wait")
    if not host and not dry_run:
        raise UserError("--host missing: the URL of Kubeflow Pipelines, for example http://127.0.0.1:8080")
    from hep2flow.execution.kubeflow.submission import submission
    from hep2flow.execution.run_request import Request, Sweep
    from hep2flow.store.layout import new_run_id, valid_run_id
    from hep2flow.store.outage import to_standard_error

    overrides = [*(set or []), *([] if gpus is None else [f"resources.gpus_per_worker={gpus:g}"])]
    request = Request(
        source,
        [read_recipe(name, profile, overrides) for name in recipe or ["convnext-b", "coat-mini"]],
        format.value,
        profile.value,
        seeds=1 if pipeline is Pipeline.sweep else seeds,
        sweep=Sweep(trials, finals=seeds) if pipeline is Pipeline.sweep else None,
    )
    name = "" if cron else valid_run_id(run_id) if run_id else new_run_id()
    given = {"secret": secret, "queue": queue}
    choices: Any = {
        "request": request,
        "options": read_cluster(options, {key: value for key, value in given.items() if value is not None}),
        "run_id": name,
        "experiment": experiment,
        "service_account": service_account,
        "repository": image,
        "store_endpoint": store_endpoint,
        "cron": cron,
        "parameters": param or [],
    }
    if dry_run:
        from hep2flow.execution.kubeflow.submission import store_address

        sent_so = submission(store_address(), **choices)
        told = asdict(sent_so)
        told |= {"pipeline": sent_so.request.pipeline, "models": sent_so.request.models, "looped": sent_so.looped}
        told["request"]["recipes"] = [one.model_dump(mode="json") for one in sent_so.request.recipes]
        print(json.dumps({"host": host, "namespace": namespace, **told}, indent=2, ensure_ascii=False))
        return

    from hep2flow.execution.kubeflow.client import Kubeflow, Login
    from hep2flow.execution.kubeflow.submit import cluster_store, in_the_store, send

    store = cluster_store()
    submitted = submission(store.address, **choices)
    kubeflow = Kubeflow(host, namespace, Login(token_file, cookies_file, ca_file))
    submitted = submitted if keep_tags else submitted.pinned()
    store.check()
    submitted = submitted.of(in_the_store(store, submitted.request, counter("ingest")))
    sent = send(store, kubeflow, submitted)
    print(f"{'recurring run' if cron else 'run'} {name or sent.id}: {sent.url}", flush=True)
    if wait:
        from hep2flow.execution.kubeflow.wait_for_run import wait_to_the_end

        wait_to_the_end(
            store, kubeflow, sent, name, resubmit, lambda: send(store, kubeflow, submitted), to_standard_error
        )
        print(f"run {name}: succeeded; fetch its results with: hep2flow pull {name}")
    elif not cron:
        print(f"follow it with: hep2flow runs show {name} --host {host}")
