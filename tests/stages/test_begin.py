"""What a recipe needs, found out before any data is read, and found out once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hep2flow.errors import UserError
from hep2flow.recipe import Model, load_recipe
from hep2flow.stages.begin import preflight
from hep2flow.store.s3 import Store
from hep2flow.store.weights_mirror import mirror_file

AGAIN = """
import sys
from hep2flow.recipe import load_recipe
from hep2flow.stages.begin import begin, run_parameters
from hep2flow.store.open_store import open_store
begin(open_store(), "again", run_parameters("cells", "auto"), [load_recipe("convnext-b", "laptop", sys.argv[1:])])
print(sorted({"torch", "timm", "ray", "kfp"} & set(sys.modules)))
"""


def test_what_timm_can_build_is_found_out_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = [load_recipe(name, "laptop") for name in ("convnext-b", "coat-mini")]
    preflight(store, recipes)

    def never(_: Model) -> None:
        raise AssertionError("checked again")

    monkeypatch.setattr("hep2flow.network.model.check_network", never)
    preflight(store, recipes)
    with pytest.raises(AssertionError, match="checked again"):
        preflight(store, [load_recipe("convnext-b", "laptop", ["model.drop_path_rate=0.1"])])


def test_a_second_run_with_mirrored_weights_begins_without_torch(store: Store, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"not looked at here")
    mirror_file(store, tmp_path / "model.safetensors", "convnext_atto.d2_in1k", "model.safetensors")
    overrides = ["model.network=convnext_atto.d2_in1k", "model.weights=pretrained"]
    preflight(store, [load_recipe("convnext-b", "laptop", overrides)])
    again = subprocess.run([sys.executable, "-c", AGAIN, *overrides], capture_output=True, text=True, check=False)
    assert again.stdout == "[]\n", again.stderr


def test_a_step_without_timm_leaves_its_questions_to_the_training(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hep2flow.stages.begin.find_spec", lambda _: None)
    preflight(store, [load_recipe("convnext-b", "laptop", ["model.network=unheard_of", "model.weights=pretrained"])])
    with pytest.raises(UserError, match="no file nowhere"):
        preflight(store, [load_recipe("convnext-b", "laptop", ["model.weights=nowhere.safetensors"])])


def test_an_impossible_network_is_refused(store: Store) -> None:
    with pytest.raises(UserError, match=r"optim\.freeze: convnext_atto has 4 stages"):
        preflight(store, [load_recipe("convnext-b", "laptop", ["optim.freeze=stages:7", "model.weights=x"])])
    with pytest.raises(UserError, match=r"model\.network: timm has no"):
        preflight(store, [load_recipe("convnext-b", "laptop", ["model.network=convnext_typo"])])
