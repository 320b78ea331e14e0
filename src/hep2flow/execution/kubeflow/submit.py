"""A run on a cluster from here: its cells and its record brought to the store, its pipeline to Kubeflow."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from hep2flow.errors import UserError
from hep2flow.execution.kubeflow.client import Kubeflow, Sent
from hep2flow.execution.kubeflow.compile import package, pipeline_of
from hep2flow.execution.kubeflow.submission import Submission, store_address
from hep2flow.execution.run_request import Request
from hep2flow.search.space import check_space
from hep2flow.stage_result import Progress
from hep2flow.stages.begin import begin, check_shared
from hep2flow.stages.ingest import ingest
from hep2flow.stages.initial_weights import shippable
from hep2flow.store.outage import to_standard_error
from hep2flow.store.runs import finish_run, put_recipe, update_run
from hep2flow.store.s3 import Store, open_store


def cluster_store() -> Store:
    """The store that the environment names; UserError where it names none, because the cluster cannot see this machine's."""
    if store_address() is None:
        raise UserError(
            "the store of the cluster is not known here; set AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
            "HEP2FLOW_BUCKET and HEP2FLOW_PREFIX, as k8s/README.md shows"
        )
    return open_store(patient=to_standard_error)


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


def send(store: Store, kubeflow: Kubeflow, submitted: Submission) -> Sent:
    """Write the run's record, compile its pipeline with its images, and have Kubeflow run it.

    The record is there before Kubeflow is told: `hep2flow runs show` knows the run from the first second.
    """
    from hep2flow.components.images import RAY, STEP
    from hep2flow.pipelines.placement import SECRET_KEYS
    from hep2flow.pipelines.unrolled import unrolled

    request, run_id = submitted.request, submitted.run_id
    if submitted.looped:
        submitted = submitted.with_recipes([put_recipe(store, recipe) for recipe in request.recipes])
        pipeline = pipeline_of(request.pipeline)
    else:
        pipeline = unrolled(request.pipeline, request.models)
    if run_id:
        begin(store, run_id, request.asked(request.source), request.recipes, status="submitted")
    images = {STEP: submitted.images["step"], RAY: submitted.images["ray"]}
    keys = dict(zip(SECRET_KEYS, submitted.secret_keys, strict=True))
    with tempfile.TemporaryDirectory(prefix="hep2flow-submit-") as folder:
        file = Path(folder) / f"{request.pipeline}.yaml"
        package(pipeline, images, keys, file)
        try:
            sent = kubeflow.run(
                file,
                submitted.experiment,
                submitted.name,
                submitted.arguments,
                submitted.service_account,
                submitted.cron,
            )
        except BaseException:
            if run_id:
                finish_run(store, run_id, "failed")
            raise
    if run_id:
        update_run(store, run_id, attempt=sent.id, kubeflow_run=sent.id, kubeflow_url=sent.url)
    return sent
