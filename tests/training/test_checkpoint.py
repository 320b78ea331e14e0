"""What a checkpoint holds, and that it predicts as the network did that was saved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from hep2flow.errors import UserError
from hep2flow.network.model import build_network
from hep2flow.recipe import load_recipe
from hep2flow.training.checkpoint import Description, TensorSnapshot, load_checkpoint, save_checkpoint
from tests.training.builders import CPU, tiny


def test_a_network_that_shares_tensors_survives_saving_and_loading(tmp_path: Path) -> None:
    recipe = load_recipe("coat-mini", "laptop")
    network = build_network(recipe.model, 2).eval()
    path = tmp_path / "weights.safetensors"
    save_checkpoint(
        path,
        TensorSnapshot(network.state_dict(), copy=False),
        Description(recipe, ["a", "b"], 8, selected_on_test=True),
    )
    loaded, description = load_checkpoint(path, CPU)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(network(images), loaded(images))
    assert description.selected_on_test


def test_what_is_no_checkpoint_of_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"best\.safetensors: not a checkpoint"):
        load_checkpoint(path, CPU)


@pytest.mark.parametrize("optimistic", [False, True])
def test_a_checkpoint_tells_what_it_was_trained_on_and_whether_the_test_set_chose_it(
    optimistic: bool, tmp_path: Path
) -> None:
    recipe = tiny("train.seed=4", "model.aux_features=[radius,area]")
    path = tmp_path / "best.safetensors"
    description = Description(recipe, ["fine", "coarse"], 12, selected_on_test=optimistic)
    save_checkpoint(path, TensorSnapshot(build_network(recipe.model, 2).state_dict(), copy=False), description)
    assert load_checkpoint(path, CPU)[1] == description
    assert [file.name for file in tmp_path.iterdir()] == ["best.safetensors"], "nothing half written is left behind"
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["hep2flow"])
    assert ("optimistic, not a test result" in facts.get("warning", "")) is optimistic


def test_another_file_of_safetensors_is_no_checkpoint_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "hub.safetensors"
    save_file({"head.weight": torch.ones(2)}, path)
    with pytest.raises(UserError, match=r"hub\.safetensors: not a checkpoint of hep2flow"):
        load_checkpoint(path, CPU)
