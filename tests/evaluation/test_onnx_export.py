"""A network as an ONNX file: it says what torch says, in batches of any size, and tells what it needs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from hep2flow.errors import UserError
from hep2flow.evaluation import onnx_export as exporting
from hep2flow.evaluation.onnx_export import write_onnx
from hep2flow.network.model import build_network
from hep2flow.recipe import load_recipe
from hep2flow.selected_on_test import OPTIMISTIC_WARNING
from hep2flow.training.checkpoint import Description
from hep2flow.training.losses import probabilities

LABELS = ["centromere", "golgi", "homogeneous"]
KINDS = {
    "ConvNeXt": ("convnext-b", ["model.network=test_convnext", "model.layer_scale=null"]),
    "CoaT, one against all": ("coat-mini", ["model.network=coat_lite_tiny", "loss.name=binary_cross_entropy"]),
    "with measurements": ("convnext-b", ["model.network=test_convnext", "model.aux_features=[radius,aspect]"]),
}


def described(kind: str, optimistic: bool = False) -> tuple[torch.nn.Module, Description]:
    name, changes = KINDS[kind]
    recipe = load_recipe(name, "laptop", changes)
    torch.manual_seed(1)
    network = build_network(recipe.model, len(LABELS)).eval()
    with torch.no_grad():  # as if it had learnt something: fresh networks say the same of all images
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network, Description(recipe, LABELS, 12, optimistic)


@pytest.mark.parametrize("kind", KINDS)
def test_onnxruntime_says_what_torch_says(kind: str, tmp_path: Path) -> None:
    network, description = described(kind)
    path = tmp_path / "made" / "network.onnx"
    assert write_onnx(network, description, path) <= 1e-4
    assert [file.name for file in path.parent.iterdir()] == ["network.onnx"]

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    features = len(description.recipe.model.aux_features)
    expected_inputs = {"images": ["batch", 3, 64, 64]} | ({"features": ["batch", features]} if features else {})
    assert {given.name: given.shape for given in session.get_inputs()} == expected_inputs
    random = torch.Generator().manual_seed(7)
    for count in (1, 3, 8):
        inputs = [torch.randn(count, 3, 64, 64, generator=random)]
        inputs += [50 * torch.rand(count, features, generator=random)] if features else []
        with torch.inference_mode():
            torch_says = probabilities(network(*inputs), description.recipe.loss).numpy()
        names = [given.name for given in session.get_inputs()]
        (found,) = session.run(None, {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)})
        assert found.shape == (count, len(LABELS))
        assert np.abs(found - torch_says).max() <= 1e-4
        assert np.ptp(torch_says, axis=1).max() > 0.05, "or the comparison would say nothing"


@pytest.mark.parametrize("optimistic", [False, True])
def test_the_file_tells_what_it_is(optimistic: bool, tmp_path: Path) -> None:
    network, description = described("ConvNeXt", optimistic)
    write_onnx(network, description, tmp_path / "network.onnx")
    told = {entry.key: entry.value for entry in onnx.load(tmp_path / "network.onnx").metadata_props}
    assert json.loads(told["labels"]) == LABELS
    assert json.loads(told["recipe"]) == description.recipe.model_dump(mode="json")
    data = description.recipe.data
    assert (float(told["mean"]), float(told["std"]), int(told["image_size"])) == (data.mean, data.std, 64)
    assert (told["mask"], told["bits"], told["interpolation"]) == (data.mask, "12", "bicubic")
    assert told["note"] == "Research use only, not for clinical use."
    assert (told.get("warning") == OPTIMISTIC_WARNING) is optimistic


def test_a_file_that_says_something_else_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)  # nothing is as equal as that
    network, description = described("ConvNeXt")
    with pytest.raises(
        UserError, match=r"network\.onnx: not written, onnxruntime's probabilities differ from torch's by"
    ):
        write_onnx(network, description, tmp_path / "network.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_onnx(*described("ConvNeXt"), tmp_path / "file" / "network.onnx")
