"""A training that is broken off goes on as if it had not been: bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hep2flow.errors import UserError
from hep2flow.network.model import build_network
from hep2flow.recipe import Recipe
from hep2flow.training.checkpoint import BEST, METRICS, STATE, Description
from hep2flow.training.trainer import Callbacks, Epoch, Progress, Trainer
from tests.training.builders import CPU, PATTERNS, cell_set, tiny

TIMES = ("images_per_second", "seconds")


class BrokenOffError(Exception):
    """Stands for a killed process: nothing of it is left but what lies in its folder."""


def attempt(
    recipe: Recipe, folder: Path, *, after_epoch: int = 0, after_update: int = 0, stop_after: int = 0
) -> Epoch | None:
    """after_epoch, after_update: interrupted there; stop_after: a stop is requested after that update."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    at: list[int] = []

    def on_epoch(epoch: Epoch) -> None:
        if epoch.epoch == after_epoch:
            raise BrokenOffError

    def on_progress(progress: Progress) -> None:
        at.append(progress.update)
        if progress.update == after_update:
            raise BrokenOffError

    callbacks = Callbacks(on_epoch=on_epoch, on_progress=on_progress, stop_requested=lambda: at[-1] == stop_after)
    network, training, validation = (
        build_network(recipe.model, 2),
        cell_set(recipe),
        cell_set(recipe, 7, training=False),
    )
    return Trainer(network, Description(recipe, PATTERNS, 8), training, validation, folder, CPU, callbacks).run()


def history(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.ema=0.9", "model.drop_path_rate=0.2", "batch.mixup=0.8", "batch.cutmix=1", "optim.name=adam"],
        ["optim.name=adamp", "train.validate_every=2", "train.sampler=over", "schedule.cycles=2"],
        ["model.network=coat_lite_tiny", "model.layer_scale=null", "model.aux_features=[radius]", "optim.name=sgd"],
        ["model.weights=x", "optim.freeze=backbone", "optim.unfreeze_every=1", "train.max_updates=10"],
        [
            "optim.name=adamw",
            "optim.fused=true",
            "train.clipping=1",
            "train.precision=bf16",
            "train.channels_last=true",
        ],
    ],
)
def test_a_training_broken_off_again_and_again_ends_as_one_that_never_was(overrides: list[str], tmp_path: Path) -> None:
    recipe = tiny("train.epochs=4", *overrides)
    attempt(recipe, tmp_path / "whole")
    broken = tmp_path / "broken"
    for how in ({"after_epoch": 1}, {"after_update": 5}, {"after_epoch": 3}):
        with pytest.raises(BrokenOffError):
            attempt(recipe, broken, **how)
        torch.rand(5)
    attempt(recipe, broken)
    assert (broken / BEST).read_bytes() == (tmp_path / "whole" / BEST).read_bytes()
    assert history(broken) == history(tmp_path / "whole")
    assert [line["epoch"] for line in history(broken)] == list(range(1, len(history(broken)) + 1))
    assert not (broken / STATE).exists(), "a training that is done has nothing to go on from"


def test_a_training_that_leaves_in_the_middle_of_epochs_ends_as_one_that_never_did(tmp_path: Path) -> None:
    recipe = tiny("train.epochs=4", "batch.mixup=0.8", "train.ema=0.9", "model.drop_path_rate=0.2")
    attempt(recipe, tmp_path / "whole")
    updates = history(tmp_path / "whole")[0]["updates"]
    left = tmp_path / "left"
    # In the middle of an epoch, twice in one epoch, and after an epoch's last batch, before it was validated.
    for update in (updates + 1, updates + 2, 3 * updates):
        assert attempt(recipe, left, stop_after=update) is None
        assert (left / STATE).exists()
    assert attempt(recipe, left) is not None
    assert (left / BEST).read_bytes() == (tmp_path / "whole" / BEST).read_bytes()
    assert history(left) == history(tmp_path / "whole")


def test_a_damaged_state_is_told(tmp_path: Path) -> None:
    recipe = tiny()
    with pytest.raises(BrokenOffError):
        attempt(recipe, tmp_path, after_epoch=1)
    (tmp_path / STATE).write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"state\.safetensors: is no state of a training"):
        attempt(recipe, tmp_path)
