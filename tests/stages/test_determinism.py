"""The same recipe on the same cells gives the same bytes, however the augmentation was shared out."""

from __future__ import annotations

from pathlib import Path

import pytest

from hep2flow.recipe import load_recipe
from hep2flow.sources.synthetic import write_twin
from hep2flow.stages.ingest import ingest
from hep2flow.stages.mask import mask
from hep2flow.stages.split import split
from hep2flow.stages.train import train
from hep2flow.store.s3 import Store
from tests.stages.cells_in_store import another

pytestmark = pytest.mark.usefixtures("ray_cluster")


def trained(store: Store, cells: Path, *overrides: str) -> tuple[bytes, str]:
    """Checkpoint and key of a training in a store that has seen none before."""
    empty = another(store)
    small = ["model.network=test_convnext", "model.layer_scale=null", "train.max_updates=7", "augment.cutout={}"]
    mixed = ["batch.mixup=0.8", "batch.cutmix=1.0", "model.drop_path_rate=0.1", "model.aux_features=[radius,aspect]"]
    recipe = load_recipe("convnext-b", "laptop", [*small, *mixed, *overrides])
    dataset = mask(empty, ingest(empty, str(cells)).uri).uri
    result = train(empty, recipe, dataset, split(empty, dataset, recipe.data.split).uri)
    assert not result.cached
    return empty.get_bytes(f"{empty.key(result.uri)}/best.safetensors"), result.key


@pytest.mark.slow
def test_two_trainings_are_one_byte_for_byte_with_0_1_and_2_loader_workers(store: Store, tmp_path: Path) -> None:
    write_twin(tmp_path / "twin", seed=0, specimens=12)
    checkpoint, key = trained(store, tmp_path / "twin", "train.seed=1")
    for workers in (0, 1, 2):
        again, same_key = trained(store, tmp_path / "twin", "train.seed=1", f"train.loader_workers={workers}")
        # The recipe rides in the checkpoint's head, and names its loader workers.
        assert weights_of(again) == weights_of(checkpoint), f"{workers} loader workers"
        assert same_key == key
        assert (again == checkpoint) is (workers == 0)


def weights_of(checkpoint: bytes) -> bytes:
    """The tensors' bytes: a safetensors file begins with the length of its head."""
    head = int.from_bytes(checkpoint[:8], "little")
    return checkpoint[8 + head :]
