"""A trained network as an ONNX file, held against torch before anybody gets it."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from hep2flow.data.cell_set import normalize
from hep2flow.errors import UserError
from hep2flow.recipe import Loss
from hep2flow.selected_on_test import OPTIMISTIC
from hep2flow.training.checkpoint import Description
from hep2flow.training.losses import probabilities

IMAGES, FEATURES, PROBABILITIES, BATCH = "images", "features", "probabilities", "batch"
TOLERANCE = 1e-4
CHECKED_BATCHES = (1, 3)
RESEARCH_ONLY = "Research use only, not for clinical use."


class Classifier(torch.nn.Module):
    """A network that answers in probabilities, so that whoever runs the file need not know its loss."""

    def __init__(self, network: torch.nn.Module, loss: Loss) -> None:
        super().__init__()
        self.network = network
        self.loss = loss

    def forward(self, images: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        """float32 (n, 3, size, size), normalised, and (n, k) as measured where there are any -> (n, classes)."""
        logits = self.network(images) if features is None else self.network(images, features)
        return probabilities(logits, self.loss)


def write_onnx(network: torch.nn.Module, description: Description, path: Path) -> float:
    """Write the file and return the largest difference of a probability from torch's, over all inputs tried.

    network: on the CPU; its images, and measurements where it takes any, come in batches of any size
    What the file is, its labels, recipe and preprocessing are in its metadata.
    Raises UserError where the extra ``onnx`` is not installed, and where a probability differs by more than 1e-4: then no
    file is left.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise UserError(f"export needs {error.name}: pip install 'hep2flow[onnx]'") from error
    classifier = Classifier(network, description.recipe.loss).eval()
    inputs = next(_tried(description, 2))
    names = [IMAGES, FEATURES][: len(inputs)]
    batch = torch.export.Dim(BATCH, min=1)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written beside and renamed: nobody finds a file that has not been held against torch.
        with tempfile.TemporaryDirectory(prefix=".hep2flow-", dir=path.parent) as scratch, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what the exporter itself does
            program = torch.onnx.export(
                classifier,
                tuple(inputs),
                input_names=names,
                output_names=[PROBABILITIES],
                dynamic_shapes=tuple({0: batch} for _ in inputs),
                dynamo=True,
                verbose=False,
            )
            assert program is not None, "dynamo=True returns a program"
            model, written = program.model_proto, Path(scratch) / path.name
            onnx.helper.set_model_props(model, _metadata(description))
            onnx.save(model, written)
            session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
            difference = 0.0
            for count in CHECKED_BATCHES:
                for tried in _tried(description, count):
                    with torch.inference_mode():
                        expected = classifier(*tried)
                    feed = {name: tensor.numpy() for name, tensor in zip(names, tried, strict=True)}
                    (found,) = session.run([PROBABILITIES], feed)
                    difference = max(difference, float((torch.from_numpy(found) - expected).abs().max()))
            if not difference <= TOLERANCE:
                raise UserError(
                    f"{path}: not written, onnxruntime's probabilities differ from torch's by up to {difference:.2g}, "
                    f"more than {TOLERANCE:g}; use the checkpoint itself, or other versions of onnxruntime and torch"
                )
            written.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name a file in a folder of yours") from error
    return difference


def _tried(description: Description, count: int) -> Iterator[list[torch.Tensor]]:
    """Inputs to hold both against: noise, then bright discs on black, as masked cells are."""
    model, data = description.recipe.model, description.recipe.data
    random = torch.Generator().manual_seed(count)
    side = model.image_size
    radii = torch.hypot(*torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="ij"))
    noise = torch.rand(count, 1, side, side, generator=random)
    cells = (255 * (radii < 0.8) * (0.3 + 0.7 * noise)).to(torch.uint8).expand(-1, 3, -1, -1)
    # Measurements of cells of some tens of pixels.
    features = 60 * torch.rand(count, len(model.aux_features), generator=random)
    for images in (torch.randn(count, 3, side, side, generator=random), normalize(cells, data)):
        yield [images, features] if model.aux_features else [images]


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
        **({"warning": OPTIMISTIC} if description.selected_on_test else {}),
        "note": RESEARCH_ONLY,
    }
