"""Does once what the steps of the image `step` do with other people's packages: a build that lacks a part ends here."""

import importlib
import tempfile
from pathlib import Path

STAGES = ("artifacts", "begin", "finalists", "ingest", "leakage", "mask", "report", "split")
for name in (
    *(f"hep2flow.stages.{stage}" for stage in STAGES),
    *(
        "hep2flow.cells",
        "hep2flow.cli.main",
        "hep2flow.execution.kubeflow.pipeline_step",
        "hep2flow.execution.kubernetes.cluster_options",
        "hep2flow.reporting.page",
    ),
    *("kfp.dsl.executor_main", "pandas", "pyarrow.parquet", "pyarrow.compute", "scipy.ndimage", "scipy.stats"),
    *("skimage.filters", "skimage.measure", "skimage.morphology"),
):
    importlib.import_module(name)

import boto3  # noqa: E402

from hep2flow.reporting.figures import confusion_matrix, save  # noqa: E402

boto3.client("s3", region_name="us-east-1")
with tempfile.TemporaryDirectory() as folder:
    save(confusion_matrix({"labels": ["a", "b"], "confusion": [[3, 1], [0, 2]]}, "drawn"), Path(folder), "drawn")
