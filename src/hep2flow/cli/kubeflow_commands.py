"""``hep2flow compile`` and ``hep2flow submit``: pipelines for Kubeflow, and runs on a cluster."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

from typer import Option

from hep2flow.cli import options
from hep2flow.cli.common import choose_run_id, progress_counter, read_cluster_options, read_recipes
from hep2flow.errors import UserError


def compile(
    pipeline: options.Pipeline,
    output: Annotated[Path, Option("-o", "--output", help="YAML file to write.")],
    image: Annotated[
        str | None, Option(metavar="REGISTRY/NAME[:TAG]", help="Repository of the images step and ray.")
    ] = None,
) -> None:
    """Write a pipeline's Kubeflow IR YAML; with --image as a cluster runs it, the default of its parameter cluster too."""
    from hep2flow.execution.kubeflow.compile import (
        compile_for_cluster,
        compile_pipeline,
        load_pipeline,
        repository_images,
    )

    if image is None:
        compile_pipeline(load_pipeline(pipeline), output)
    else:
        compile_for_cluster(load_pipeline(pipeline), repository_images(image), {}, output)
    print(output)


def submit(
    pipeline: options.Pipeline,
    source: options.SourceOption,
    host: options.HostOption = "",
    format: options.FormatOption = "auto",
    recipe: options.RecipesOption = None,
    profile: options.ProfileOption = "paper",
    set: options.SetOption = None,
    gpus: Annotated[
        float | None, Option(min=0, help="Per worker; short for --set resources.gpus_per_worker=N.")
    ] = None,
    seeds: options.SeedsOption = 1,
    trials: Annotated[int, Option(min=1, help="Total number of trials of each recipe's sweep.")] = 32,
    param: Annotated[
        list[str] | None, Option(metavar="KEY=VALUE", help="Any other parameter of the pipeline, for example hours=4.")
    ] = None,
    options_file: options.ClusterFileOption = None,
    image: Annotated[
        str, Option(metavar="REGISTRY/NAME[:TAG]", help="Repository of the images step and ray.")
    ] = "hep2flow",
    keep_tags: Annotated[
        bool, Option("--keep-tags", help="Do not resolve tags to digests: the nodes have the images.")
    ] = False,
    secret: Annotated[str | None, Option(help="Name of the Kubernetes Secret with the store's credentials.")] = None,
    store_endpoint: Annotated[str | None, Option(help="The store's URL as the cluster reaches it.")] = None,
    queue: Annotated[str | None, Option(help="Kueue's LocalQueue.")] = None,
    namespace: options.NamespaceOption = "",
    service_account: Annotated[
        str, Option(help="Service account of the steps; k8s/base creates it.")
    ] = "hep2flow-step",
    experiment: Annotated[str, Option(help="Kubeflow experiment.")] = "hep2flow",
    run_id: options.RunIdOption = "",
    cron: Annotated[
        str, Option(metavar="'0 3 * * *'", help="Schedule of a recurring run, whose runs name themselves.")
    ] = "",
    token_file: options.TokenFileOption = None,
    cookies_file: options.CookiesFileOption = None,
    ca_file: options.CaFileOption = None,
    wait: Annotated[bool, Option("--wait", help="Show the run to its end, and exit with its status.")] = False,
    resubmit: Annotated[int, Option(min=0, help="With --wait: how often a run that Kubeflow lost is resubmitted.")] = 2,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Print what would be submitted, without any network access.")
    ] = False,
) -> None:
    """Run a pipeline on a cluster: local cells are ingested into its store first, then the pipeline is submitted."""
    if cron and (run_id or wait):
        raise UserError("--cron: its runs each get a name of their own, later; leave out --run-id and --wait")
    if not host and not dry_run:
        raise UserError("--host missing: the URL of Kubeflow Pipelines, for example http://127.0.0.1:8080")
    from hep2flow.execution.kubeflow.submission import SubmitOptions, build_submission, store_address
    from hep2flow.execution.run_request import RunRequest
    from hep2flow.search.settings import SweepSettings

    overrides = [*(set or []), *([] if gpus is None else [f"resources.gpus_per_worker={gpus:g}"])]
    recipes = read_recipes(recipe, profile, overrides)
    settings = SweepSettings(trials=trials, finals=seeds) if pipeline == "sweep" else None
    request = RunRequest(source, recipes, format, profile, 1 if settings else seeds, settings)
    name = "" if cron else choose_run_id(run_id)
    cluster = read_cluster_options(options_file, secret=secret, queue=queue)
    options = SubmitOptions(experiment, service_account, image, store_endpoint, cron, param or [])
    if dry_run:
        planned = build_submission(store_address(), request, cluster, name, options)
        derived = {"pipeline": planned.request.pipeline, "models": planned.request.models, "looped": planned.looped}
        shown = {"host": host, "namespace": namespace, **asdict(planned), **derived}
        print(json.dumps(shown, indent=2, ensure_ascii=False, default=lambda model: model.model_dump(mode="json")))
        return

    from hep2flow.execution.kubeflow.client import Kubeflow
    from hep2flow.execution.kubeflow.submit import cluster_store, submit_run, upload_inputs

    store = cluster_store()
    submission = build_submission(store.address, request, cluster, name, options)
    kubeflow = Kubeflow(host, namespace, token_file, cookies_file, ca_file)
    submission = submission if keep_tags else submission.with_digests()
    store.check()
    submission = submission.with_request(upload_inputs(store, submission.request, progress_counter("ingest")))
    sent = submit_run(store, kubeflow, submission)
    print(f"{'recurring run' if cron else 'run'} {name or sent.id}: {sent.url}", flush=True)
    if wait:
        from hep2flow.execution.kubeflow.wait_for_run import wait_for_run

        again = partial(submit_run, store, kubeflow, submission)
        wait_for_run(store, kubeflow, sent, name, resubmit, again)
        print(f"run {name}: succeeded; fetch its results with: hep2flow pull {name}")
    elif not cron:
        print(f"follow it with: hep2flow runs show {name} --host {host}")
