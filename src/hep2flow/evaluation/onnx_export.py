"""A trained network as an ONNX file, checked against torch before it is saved."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hep2flow.data.cell_set import normalize
from hep2flow.errors import UserError
from hep2flow.recipe import Loss
from hep2flow.selected_on_test import OPTIMISTIC_WARNING
from hep2flow.training.checkpoint import Description
from hep2flow.training.losses import probabilities

if TYPE_CHECKING:
    import onnxruntime

IMAGES, MEASUREMENTS, PROBABILITIES, BATCH = "images", "features", "probabilities", "batch"
TOLERANCE = 1e-4
CHECKED_BATCHES = (1, 3)
RESEARCH_ONLY = "Research use only, not for clinical use."


class Classifier(torch.nn.Module):
    """A network with its loss's activation: returns probabilities, so that users of the file need not know the loss."""

    def __init__(self, network: torch.nn.Module, loss: Loss) -> None:
        super().__init__()
        self.network = network
        self.loss = loss

    def forward(self, images: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        """Normalised images, float32 (n, 3, size, size), and cell measurements (n, k), if any -> (n, classes)."""
        logits = self.network(images) if features is None else self.network(images, features)
        return probabilities(logits, self.loss)


def write_onnx(network: torch.nn.Module, description: Description, path: Path) -> float:
    """Write a network on the CPU, with labels, recipe and preprocessing as metadata; the batch size is free.

    After an error nothing is left at ``path``.

    Returns:
        The largest absolute difference of a probability from torch's, over all example inputs.

    Raises:
        UserError: The extra ``onnx`` is not installed, the path cannot be written, or a probability differs by more than
            TOLERANCE.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise UserError(f"export needs {error.name}: pip install 'hep2flow[onnx]'") from error
    classifier = Classifier(network, description.recipe.loss).eval()
    inputs = next(_example_inputs(description, 2))
    names = [IMAGES, MEASUREMENTS][: len(inputs)]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written beside its place and renamed after the check: no unchecked file is ever at ``path``.
        with tempfile.TemporaryDirectory(prefix=".hep2flow-", dir=path.parent) as scratch, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what the exporter itself does
            batch = torch.export.Dim(BATCH, min=1)
            shapes = tuple({0: batch} for _ in inputs)
            named: Any = {"input_names": names, "output_names": [PROBABILITIES], "dynamic_shapes": shapes}
            program = torch.onnx.export(classifier, tuple(inputs), **named, dynamo=True, verbose=False)
            assert program is not None, "dynamo=True returns a program"
            model, written = program.model_proto, Path(scratch) / path.name
            onnx.helper.set_model_props(model, _metadata(description))
            onnx.save(model, written)
            session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
            difference = _largest_difference(session, classifier, names, description)
            # Negated, so that NaN is refused too.
            if not difference <= TOLERANCE:
                raise UserError(
                    f"{path}: not written, onnxruntime's probabilities differ from torch's by up to {difference:.2g}, "
                    f"more than {TOLERANCE:g}; use the checkpoint itself, or other versions of onnxruntime and torch"
                )
            written.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name a file in a folder of yours") from error
    return difference


def _largest_difference(
    session: onnxruntime.InferenceSession, classifier: Classifier, names: list[str], description: Description
) -> float:
    difference = 0.0
    for count in CHECKED_BATCHES:
        for inputs in _example_inputs(description, count):
            with torch.inference_mode():
                expected = classifier(*inputs)
            feed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
            (actual,) = session.run([PROBABILITIES], feed)
            difference = max(difference, float((torch.from_numpy(actual) - expected).abs().max()))
    return difference


def _example_inputs(description: Description, count: int) -> Iterator[list[torch.Tensor]]:
    """Batches of so many images (and measurements): noise, then bright discs on black, as masked cells are."""
    model, data = description.recipe.model, description.recipe.data
    random = torch.Generator().manual_seed(count)
    side = model.image_size
    radii = torch.hypot(*torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="ij"))
    noise = torch.rand(count, 1, side, side, generator=random)
    cells = (255 * (radii < 0.8) * (0.3 + 0.7 * noise)).to(torch.uint8).expand(-1, 3, -1, -1)
    # Of the magnitude of measurements of cells of some tens of pixels.
    measurements = 60 * torch.rand(count, len(model.aux_features), generator=random)
    for images in (torch.randn(count, 3, side, side, generator=random), normalize(cells, data)):
        yield [images, measurements] if model.aux_features else [images]


def _metadata(description: Description) -> dict[str, str]:
    recipe = description.recipe
    data, size = recipe.data, recipe.model.image_size
    return {
        "labels": json.dumps(description.labels),
        "recipe": json.dumps(recipe.model_dump(mode="json"), sort_keys=True),
        "image_size": str(size),
        "mean": str(data.mean),
        "std": str(data.std),
        "interpolation": data.interpolation,
        "mask": data.mask,
        "bits": str(description.bits),
        "aux_features": json.dumps(recipe.model.aux_features),
        "input": (
            f"a cell with data.mask={data.mask}, {description.bits} bits scaled to 8, grey as three equal channels, resized "
            f"to {size} x {size} ({data.interpolation}, antialiased), then (x / 255 - {data.mean}) / {data.std}"
        ),
        "selected_on_test": json.dumps(description.selected_on_test),
        **({"warning": OPTIMISTIC_WARNING} if description.selected_on_test else {}),
        "note": RESEARCH_ONLY,
    }
