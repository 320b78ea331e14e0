"""Imports what the steps of the image `step` import, slow things inside functions too: a build that lacks one ends here."""

import importlib

STAGES = ("begin", "ingest", "mask", "split", "finalists", "report", "evaluations", "leakage", "sweeps")
for name in (
    *(f"hep2flow.stages.{stage}" for stage in STAGES),
    *("hep2flow.cli.main", "hep2flow.cluster.step", "hep2flow.cluster.options", "hep2flow.reporting.page"),
    *("boto3", "kfp.dsl.executor_main", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg"),
    *("pandas", "pyarrow.parquet", "pyarrow.compute", "scipy.ndimage", "scipy.stats"),
    *("skimage.filters", "skimage.measure", "skimage.morphology"),
):
    importlib.import_module(name)
import boto3  # noqa: E402

boto3.client("s3", region_name="us-east-1")
