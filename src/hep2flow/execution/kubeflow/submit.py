"""Submits a run: uploads its cells and its record to the store, and its pipeline to Kubeflow."""

import tempfile
from dataclasses import replace
from pathlib import Path

from hep2flow.errors import UserError
from hep2flow.execution.kubeflow.client import Kubeflow, SubmittedRun
from hep2flow.execution.kubeflow.compile import compile_for_cluster, load_pipeline
from hep2flow.execution.kubeflow.submission import Submission, store_address
from hep2flow.execution.run_request import RunRequest
from hep2flow.search.space import check_space
from hep2flow.stage_result import Progress
from hep2flow.stages.begin import begin, check_same_data
from hep2flow.stages.ingest import ingest
from hep2flow.stages.initial_weights import with_stored_weights
from hep2flow.store.open_store import open_store
from hep2flow.store.outage import log_to_stderr
from hep2flow.store.runs import finish_run, put_recipe, update_run
from hep2flow.store.s3 import Store


def cluster_store() -> Store:
    """The store that the environment names; UserError where it names none: the cluster cannot reach this machine's."""
    if store_address() is None:
        access = "AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, HEP2FLOW_BUCKET and HEP2FLOW_PREFIX"
        raise UserError(f"the store of the cluster is not known here; set {access}, as k8s/README.md shows")
    return open_store(on_outage=log_to_stderr)


def upload_inputs(store: Store, request: RunRequest, progress: Progress | None) -> RunRequest:
    """Upload what lies on this machine to the cluster's store; returns the request that refers to it there."""
    check_same_data(request.recipes)
    for recipe in request.recipes if request.sweep else ():
        check_space(recipe)
    recipes = [with_stored_weights(store, recipe) for recipe in request.recipes]
    source = request.source
    if not source.startswith("s3://"):
        if not Path(source).exists():
            raise UserError(f"--source {source}: there is no such file or folder")
        ingested = ingest(store, source, request.format, progress=progress)
        source = ingested.uri
        log_to_stderr(f"ingested {ingested.summary['cells']} cells: {source}")
    return replace(request, source=source, recipes=recipes)


def submit_run(store: Store, kubeflow: Kubeflow, submission: Submission) -> SubmittedRun:
    """Write the run's record, compile its pipeline with its images, and submit it to Kubeflow.

    The record is written first: `hep2flow runs show` knows the run from the first second.
    """
    from hep2flow.pipelines.tasks import SECRET_KEYS
    from hep2flow.pipelines.unrolled import unrolled

    request, run_id = submission.request, submission.run_id
    if submission.looped:
        submission = submission.with_recipes([put_recipe(store, recipe) for recipe in request.recipes])
        pipeline = load_pipeline(request.pipeline)
    else:
        pipeline = unrolled(request.pipeline, request.models)
    if run_id:
        begin(store, run_id, request.parameters(request.source), request.recipes, status="submitted")
    keys = dict(zip(SECRET_KEYS, submission.secret_keys, strict=True))
    with tempfile.TemporaryDirectory(prefix="hep2flow-submit-") as folder:
        file = Path(folder) / f"{request.pipeline}.yaml"
        compile_for_cluster(pipeline, submission.images, keys, file)
        try:
            sent = kubeflow.submit(file, submission)
        except BaseException:
            if run_id:
                finish_run(store, run_id, "failed")
            raise
    if run_id:
        update_run(store, run_id, attempt=sent.id, kubeflow_run=sent.id, kubeflow_url=sent.url)
    return sent
