"""Export: a finished run's network as a file for other programs."""

from __future__ import annotations

from pathlib import Path

from hep2flow.stages.trained_models import find_model, load_network
from hep2flow.store.outage import Log
from hep2flow.store.s3 import Store


def export(store: Store, run_id: str, model: str | None, onnx: Path, log: Log) -> float:
    """Write the ONNX file and return the largest difference of its probabilities from torch's.

    Arguments and errors are those of :func:`hep2flow.stages.trained_models.find_model` and
    :func:`hep2flow.evaluation.onnx_export.write_onnx`.
    """
    trained = find_model(store, run_id, model, log)
    # torch takes seconds to import: not for a run that does not exist.
    import torch

    from hep2flow.evaluation.onnx_export import write_onnx

    network, description, _ = load_network(store, trained, log, torch.device("cpu"))
    return write_onnx(network, description, onnx)
