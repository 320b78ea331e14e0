"""One trial of a sweep: train on cells that Ray shares on its node, report each epoch, publish nothing.

The trainings that judge a sweep's winner do the same, and predict. The driver imports this module only to send its
functions to workers, so torch is imported in them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from hep2flow.distributed.checkpoint_uploader import CheckpointUploader, download_state
from hep2flow.distributed.sweep_spec import SweepCells
from hep2flow.errors import UserError
from hep2flow.recipe import Recipe
from hep2flow.search.trials import CurvePoint, Trial
from hep2flow.store.address import StoreAddress
from hep2flow.store.open_store import open_store
from hep2flow.store.training_status import TrainingStatus

if TYPE_CHECKING:
    import torch

    from hep2flow.training.checkpoint import CheckpointFiles
    from hep2flow.training.trainer import Epoch

EPOCH, SCORE, REJECTED = "epoch", "score", "rejected"  # keys of what a trial reports to Tune

SharedCells = Mapping[str, Any]  # data.mask -> Ray's reference of SweepCells, stored once on each node
Report = Callable[[dict[str, Any]], None]


class TrialSpec(BaseModel, extra="forbid"):
    """What a trial needs beside its cells, in plain values; credentials come from the worker's environment."""

    store: StoreAddress
    prefix: str  # of its state in the store while it runs
    # Prefix of the state that it starts from, until it has one of its own; None to start from scratch.
    parent: str | None = None
    recipe: Recipe  # with the trial's values and length
    end_epoch: int | None = None  # epoch after which it ends before its recipe does; None for the recipe's end
    weights: str | None = None  # store key of the initial weights (safetensors), None for none


def run_trial(config: Mapping[str, Any], shared: SharedCells) -> None:
    """Tune's trainable: report ``epoch``, ``score``, all ``points`` so far, and whether it is the ``last`` epoch.

    A UserError, of a diverged training or a full memory for example, is reported as ``rejected``.
    """
    from ray import tune

    try:
        _run(TrialSpec.model_validate(config["spec"]), shared, "trial", tune.report)
    except UserError as error:
        tune.report({REJECTED: str(error), EPOCH: 0, SCORE: float("-inf")})


def train_and_predict(spec: TrialSpec, shared: SharedCells) -> dict[str, str]:
    """Train, and predict the judging cells with the best epoch's network: cell_id -> pattern.

    Raises:
        UserError: The user has to fix something.
    """
    return dict(_run(spec, shared, "judging", None))


def _run(spec: TrialSpec, shared: SharedCells, name: str, report: Report | None) -> Any:
    """Train in this process, or as a Ray Train job where the recipe has several workers."""
    import ray
    import torch

    resources = spec.recipe.resources
    if resources.workers.max == 1:
        device = torch.device("cuda" if resources.gpus_per_worker else "cpu")
        return _train(spec, ray.get(shared[spec.recipe.data.mask]), device, report)
    from ray.train.v2.api.exceptions import TrainingFailedError
    from ray.tune.integration.ray_train import TuneReportCallback

    from hep2flow.distributed.torch_trainer import fit_on_workers

    status = TrainingStatus(open_store(spec.store), spec.prefix)
    status.start_attempt()
    config = {"spec": spec.model_dump(mode="json"), "shared": dict(shared), "reports": report is not None}
    callbacks = [TuneReportCallback()] if report else []  # hands each worker group's report on to Tune
    try:
        return fit_on_workers(_worker_loop, config, name, resources.workers.max, resources, *callbacks)
    except TrainingFailedError as error:
        if (rejection := status.rejection()) is None:
            raise
        raise UserError(rejection) from error


def _worker_loop(config: dict[str, Any]) -> Any:
    import ray.train.torch

    spec = TrialSpec.model_validate(config["spec"])
    cells = ray.get(config["shared"][spec.recipe.data.mask])
    try:
        return _train(spec, cells, ray.train.torch.get_device(), ray.train.report if config["reports"] else None)
    except UserError as error:
        # Only this worker's failure ends the others, which wait for it; Ray does not pass its message on, the store does.
        TrainingStatus(open_store(spec.store), spec.prefix).reject(str(error))
        raise


@contextmanager
def _resource_errors_named() -> Iterator[None]:
    from hep2flow.distributed.resource_errors import as_resource_error

    try:
        yield
    except Exception as error:
        named = as_resource_error(error, tempfile.gettempdir())
        if named is None or named is error:
            raise
        raise named from error


class _EndEpochReached(Exception):
    """The epoch after which the trial ends has been saved and reported."""


@_resource_errors_named()
def _train(spec: TrialSpec, cells: SweepCells, device: torch.device, report: Report | None) -> dict[str, str] | None:
    """Train on this worker; rank 0 returns the predictions of the judging cells, if there are any."""
    from hep2flow.data.cell_set import CellSet
    from hep2flow.distributed.train_worker import initial_network
    from hep2flow.training.checkpoint import BEST, Description
    from hep2flow.training.process_group import ProcessGroup
    from hep2flow.training.trainer import Callbacks, Trainer

    recipe, store = spec.recipe, open_store(spec.store, print)
    with tempfile.TemporaryDirectory(prefix="hep2flow-trial-") as scratch:
        folder = Path(scratch) / "training"
        folder.mkdir()
        network, _ = initial_network(store, recipe, cells.labels, spec.weights, Path(scratch))
        state = download_state(store, spec.prefix, folder, print)
        if state is None and spec.parent is not None:
            download_state(store, spec.parent, folder, print)
        uploader = CheckpointUploader(store, spec.prefix, 1, state)

        def save(files: CheckpointFiles) -> None:
            # The best network is only needed to predict: a sweep's winner is trained again.
            names = [name for name in files.changed if name != BEST or cells.judging]
            uploader.upload(replace(files, changed=names))
            uploader.wait()  # before Tune may stop the trial, or start another one from this state

        def on_epoch(epoch: Epoch) -> None:
            if epoch.val_loss is not None and report is not None:
                last = epoch.epoch in (trainer.length.epochs, spec.end_epoch)
                report(_tune_result(trainer.history, recipe, last=last))
            if epoch.epoch == spec.end_epoch:
                raise _EndEpochReached

        training = CellSet(cells.training, cells.labels, cells.bits, recipe, training=True)
        validation = CellSet(cells.validation, cells.labels, cells.bits, recipe, training=False)
        description, callbacks = Description(recipe, cells.labels, cells.bits), Callbacks(save, on_epoch)
        trainer = Trainer(network, description, training, validation, folder, device, callbacks)
        try:
            trainer.run()
        except _EndEpochReached:
            return None
        return _predict(folder / BEST, cells, device) if cells.judging and ProcessGroup.current().is_first else None


def _tune_result(history: list[Epoch], recipe: Recipe, *, last: bool) -> dict[str, Any]:
    points = [CurvePoint.model_validate(epoch, from_attributes=True) for epoch in history if epoch.val_loss is not None]
    score = Trial(number=0, changes={}, points=points).score(recipe.search.metric)
    return {EPOCH: points[-1].epoch, SCORE: score, "points": [point.model_dump() for point in points], "last": last}


def _predict(checkpoint: Path, cells: SweepCells, device: torch.device) -> dict[str, str]:
    from hep2flow.data.cell_set import CellSet
    from hep2flow.evaluation.predict import predict_probabilities
    from hep2flow.training.checkpoint import load_checkpoint

    network, description = load_checkpoint(checkpoint, device)
    judging: CellSet = CellSet(cells.judging, cells.labels, cells.bits, description.recipe, training=False)
    _, probabilities = predict_probabilities(network, judging, description.recipe, device)
    patterns = [cells.labels[index] for index in probabilities.argmax(1).tolist()]
    return dict(zip(judging.ids, patterns, strict=True))
