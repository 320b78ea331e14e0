"""A run on a cluster from here: its cells brought to the store, its pipeline to Kubeflow, and followed to its own end."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from hep2flow.cluster.failed import failure
from hep2flow.cluster.follow import followed
from hep2flow.cluster.kubeflow import Kubeflow, Sent
from hep2flow.cluster.package import package
from hep2flow.cluster.request import Request
from hep2flow.cluster.submission import Submission, store_address
from hep2flow.errors import UserError
from hep2flow.results import Progress
from hep2flow.stages.begin import check_shared
from hep2flow.stages.ingest import ingest
from hep2flow.stages.weights import shippable
from hep2flow.store.runs import RunView, show_run
from hep2flow.store.s3 import Store, open_store
from hep2flow.tuning.space import check_space


def cluster_store() -> Store:
    """The store that the environment names; UserError where it names none, because the cluster cannot see this machine's."""
    if store_address() is None:
        raise UserError(
            "the store of the cluster is not known here; set AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
            "HEP2FLOW_BUCKET and HEP2FLOW_PREFIX, as k8s/README.md shows"
        )
    return open_store()


def in_the_store(store: Store, request: Request, progress: Progress | None) -> Request:
    """The request with everything that lies on this machine brought to the store, where the cluster finds it."""
    check_shared(request.recipes)
    for recipe in request.recipes if request.sweep else ():
        check_space(recipe)
    recipes = [shippable(store, recipe) for recipe in request.recipes]
    source = request.source
    if not source.startswith("s3://"):
        if not Path(source).exists():
            raise UserError(f"--source {source}: there is no such file or folder")
        ingested = ingest(store, source, request.format, progress=progress)
        source = ingested.uri
        print(f"ingested {ingested.summary['cells']} cells: {source}", file=sys.stderr)
    return replace(request, source=source, recipes=recipes)


def send(kubeflow: Kubeflow, submitted: Submission) -> Sent:
    """Compile the pipeline with its images, and have Kubeflow run it."""
    from hep2flow.components.images import RAY, STEP
    from hep2flow.pipelines.placement import SECRET_KEYS

    images = {STEP: submitted.images["step"], RAY: submitted.images["ray"]}
    keys = dict(zip(SECRET_KEYS, submitted.secret_keys, strict=True))
    with tempfile.TemporaryDirectory(prefix="hep2flow-submit-") as folder:
        file = Path(folder) / f"{submitted.pipeline}.yaml"
        package(submitted.pipeline, images, keys, file)
        return kubeflow.run(
            file,
            submitted.experiment,
            submitted.name,
            submitted.arguments,
            submitted.service_account,
            None if submitted.caching else False,
            submitted.cron,
        )


def to_the_end(store: Store, kubeflow: Kubeflow, sent: Sent, run_id: str) -> RunView:
    """Show a run until it is over; returns its view where it succeeded, by its own record.

    Raises UserError where the run says what the user can mend, or where it never began, and RunFailedError otherwise.
    """
    with followed(store, run_id):
        told = kubeflow.wait(sent.id)
    try:
        view = show_run(store, run_id)
    except UserError as error:
        raise UserError(
            f"run {run_id} never began ({told or 'Kubeflow gives no reason'}); look at {sent.url}"
        ) from error
    if view.status == "succeeded":
        return view
    if view.status == "interrupted" or told == "canceled":
        raise UserError(f"run {run_id} was ended by somebody; submit it again with --run-id {run_id}, and it goes on")
    raise failure(view, sent.url)
