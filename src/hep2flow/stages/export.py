"""Export: a finished run's network as a file for other programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hep2flow.stages.trained_models import find_trained, load_network
from hep2flow.store.s3 import Store


def export(store: Store, run_id: str, model: str | None, onnx: Path, tell: Callable[[str], None]) -> float:
    """Write the ONNX file; the largest difference of its probabilities from torch's.

    Arguments and errors as :func:`hep2flow.stages.trained_models.find_trained` and
    :func:`hep2flow.evaluation.onnx_export.write_onnx` have them.
    """
    trained = find_trained(store, run_id, model, tell)
    # torch takes seconds to import: not for a run that is not there.
    import torch

    from hep2flow.evaluation.onnx_export import write_onnx

    network, description = load_network(store, trained, torch.device("cpu"), tell)
    return write_onnx(network, description, onnx)
