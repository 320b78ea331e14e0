"""Files that are written later, by another thread, are those of their moment."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hep2flow.recipe import Recipe
from hep2flow.training import trainer
from hep2flow.training.checkpoint import BEST, METRICS, STATE, CheckpointFiles, TensorSnapshot
from tests.training.builders import tiny, trained


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU."""
    monkeypatch.setitem(trainer.DEFER_WRITES, "cpu", True)


def written(recipe: Recipe, folder: Path, *, late: bool) -> list[Path]:
    """A copy of the training's folder after each epoch; late: each epoch's files are written after the next has trained."""
    folder.mkdir()
    waiting: list[CheckpointFiles] = []
    moments: list[Path] = []

    def write() -> None:
        thread = threading.Thread(target=waiting.pop().write)
        thread.start()
        thread.join()
        moments.append(folder.with_name(f"{folder.name}-{len(moments)}"))
        shutil.copytree(folder, moments[-1])

    def save(files: CheckpointFiles) -> None:
        if waiting:
            write()
        assert files.deferred or not late
        waiting.append(files)
        if not late:
            write()

    trained(recipe, folder, save=save)
    if waiting:
        write()
    return moments


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.ema=0.9", "optim.name=adam"],
        ["optim.name=adamw", "optim.fused=true", "train.channels_last=true", "train.precision=bf16"],
        ["model.network=coat_lite_tiny", "model.layer_scale=null", "optim.name=sgd"],
    ],
)
def test_files_written_late_are_those_written_at_once(
    overrides: list[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    recipe = tiny("train.epochs=4", "train.max_updates=null", "train.validate_every=1", *overrides)
    at_once = written(recipe, tmp_path / "at-once", late=False)
    request.getfixturevalue("later")
    late = written(recipe, tmp_path / "late", late=True)
    assert len(late) == len(at_once) == 4
    for one, other in zip(at_once, late, strict=True):
        assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in other.iterdir())
        assert (one / BEST).read_bytes() == (other / BEST).read_bytes()
        assert (one / METRICS).read_text().count("\n") == (other / METRICS).read_text().count("\n")
    for one, other in zip(at_once[:-1], late[:-1], strict=True):
        expected, found = load_file(one / STATE), load_file(other / STATE)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)
    states = [load_file(folder / STATE) for folder in late[:-1]]
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0]), "the network learned nothing"
    assert not (late[-1] / STATE).exists()


@pytest.mark.parametrize("later", [True, False])
def test_what_is_written_is_dense_and_shares_nothing(later: bool) -> None:
    tensor = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    before = tensor.clone()
    snapshot = TensorSnapshot({"one": tensor, "same": tensor}, copy=later)
    if later:
        tensor += 1
    copies = snapshot.to_cpu()
    assert all(torch.equal(copy, before) and copy.is_contiguous() for copy in copies.values())
    assert copies["one"].data_ptr() != copies["same"].data_ptr()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: copies beside queued work need one")
def test_on_a_device_a_copy_is_of_its_moment_however_much_work_is_queued() -> None:
    device = torch.device("cuda")
    weights, factor = torch.ones(2**24, device=device), torch.eye(2048, device=device)
    snapshot = TensorSnapshot({"weights": weights}, copy=True)
    for _ in range(200):
        factor = factor @ factor
        weights.mul_(2)
    found: list[torch.Tensor] = []
    thread = threading.Thread(target=lambda: found.append(snapshot.to_cpu()["weights"]))
    thread.start()
    thread.join()
    assert torch.equal(found[0], torch.ones(2**24))
