"""What one trial of a sweep does: train on cells that its machine holds already, tell each epoch, publish nothing.

Apart from the rest, because the driver imports this module only to send it on: it needs no torch for that.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from hep2flow.recipe import Recipe
from hep2flow.store import layout, resume
from hep2flow.store.s3 import StoreAddress, open_store
from hep2flow.tuning.trials import Point, Trial

if TYPE_CHECKING:
    from hep2flow.learning.loop import Epoch

SCORE, EPOCH = "score", "epoch"


class SweepSpec(BaseModel):
    """One sweep.

    key:         of the sweep in the store
    recipe:      whose ``search`` says what is tried
    dataset, halves: URIs of the data set and of its division into training, choosing and judging cells
    trials:      in all, those that are there already included
    concurrency: trials at once, None for as many as the cluster has room for
    seconds:     after which no epoch is waited for any more, None for no limit
    weights:     key of safetensors to start from, None to start from scratch
    """

    model_config = ConfigDict(extra="forbid")

    store: StoreAddress
    key: str
    recipe: Recipe
    dataset: str
    halves: str
    trials: int
    concurrency: int | None = None
    seconds: float | None = None
    weights: str | None = None


class TrialSpec(BaseModel):
    """Everything a trial needs beside its cells, in plain values; credentials come from the worker's environment.

    sweep:   key of the sweep
    number:  of the trial
    recipe:  with the trial's values
    weights: key of safetensors to start from, None to start from scratch
    """

    model_config = ConfigDict(extra="forbid")

    store: StoreAddress
    sweep: str
    number: int
    recipe: Recipe
    weights: str | None = None

    @property
    def prefix(self) -> str:
        """Where its state lies while it runs."""
        return f"{layout.sweep_prefix(self.sweep)}/running/{self.number:05d}"


class Cells(BaseModel):
    """A sweep's cells, the same for all trials: Ray keeps them once on each machine.

    rows: of the training cells, and of the validation cells that choose
    """

    model_config = ConfigDict(extra="forbid")

    labels: list[str]
    bits: int
    training: list[dict[str, Any]]
    validation: list[dict[str, Any]]


def run_trial(config: Mapping[str, Any], cells: Cells) -> None:
    """Tune's trainable: reports ``epoch``, ``score``, all ``points`` so far and whether it is the ``last`` one.

    Where the user has to mend something, a diverged training or a full memory among it, it reports ``refused`` and ends.
    """
    from ray import tune

    from hep2flow.distributed.exhausted import exhausted

    spec = TrialSpec.model_validate(config["spec"])
    try:
        _train(spec, cells)
    except Exception as error:
        told = exhausted(error, tempfile.gettempdir())
        if told is None:
            raise
        tune.report({"refused": str(told), EPOCH: 0, SCORE: float("-inf")})


def _train(spec: TrialSpec, cells: Cells) -> None:
    import torch
    from ray import tune

    from hep2flow.learning.checkpoint import Description
    from hep2flow.learning.data import CellSet
    from hep2flow.learning.freezing import check_freezing
    from hep2flow.learning.loop import METRICS, STATE, fit, plan
    from hep2flow.learning.model import build_network, check_network
    from hep2flow.learning.randomness import derived_seed
    from hep2flow.learning.weights import load_weights

    recipe, store = spec.recipe, open_store(spec.store, print)
    check_network(recipe.model)
    check_freezing(recipe)
    torch.set_num_threads(recipe.resources.cpus_per_worker)
    training = CellSet(cells.training, cells.labels, cells.bits, recipe, training=True)
    validation = CellSet(cells.validation, cells.labels, cells.bits, recipe, training=False)
    torch.manual_seed(derived_seed(recipe.train.seed, "weights"))
    network = build_network(recipe.model, len(cells.labels))
    last, points = plan(recipe, training.labels).epochs, list[Point]()
    with tempfile.TemporaryDirectory(prefix="hep2flow-trial-") as scratch:
        folder = Path(scratch) / "training"
        folder.mkdir()
        if spec.weights is not None:
            store.get_file(spec.weights, Path(scratch) / "weights.safetensors")
            load_weights(network, Path(scratch) / "weights.safetensors", recipe.model.weights, cells.labels)
        saved = resume.load(store, spec.prefix, folder, print)
        if saved is not None:
            lines = (folder / METRICS).read_text(encoding="utf-8").splitlines()
            points = [point for line in lines if (point := _point(json.loads(line)))]

        def on_epoch(epoch: Epoch) -> None:
            nonlocal saved
            if (folder / STATE).exists():
                # The best network of a trial is of no use: its recipe is trained again.
                saved = resume.save(
                    store, spec.prefix, folder, (epoch.epoch, epoch.updates), [STATE, METRICS], saved, keep=1
                )
            if (point := _point(epoch.to_dict())) is not None:
                points.append(point)
                tune.report(_told(points, recipe, last=epoch.epoch == last))

        fit(
            network,
            recipe,
            training,
            validation,
            Description(recipe, cells.labels, cells.bits),
            folder,
            device=torch.device("cuda" if recipe.resources.gpus_per_worker else "cpu"),
            on_epoch=on_epoch,
            on_batch=lambda progress: None,
            leave=lambda: False,
        )


def _point(epoch: dict[str, Any]) -> Point | None:
    """Of a line of ``metrics.jsonl``; None where the epoch was not validated."""
    return None if epoch["val_loss"] is None else Point(**{name: epoch[name] for name in Point.model_fields})


def _told(points: list[Point], recipe: Recipe, *, last: bool) -> dict[str, Any]:
    so_far = Trial(number=0, changes={}, points=points)
    plain = [point.model_dump() for point in points]
    return {EPOCH: points[-1].epoch, SCORE: so_far.score(recipe.search.metric), "points": plain, "last": last}
