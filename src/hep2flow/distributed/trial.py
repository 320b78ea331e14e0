"""What one trial of a sweep does: train on cells that its machine holds already, tell each epoch, publish nothing.

The trainings that judge a sweep's winner do the same, and predict. Apart from the rest, because the driver imports this
module only to send it on: it needs no torch for that.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from hep2flow.distributed import checkpoint_uploader
from hep2flow.recipe import Recipe
from hep2flow.search.trials import Point, Trial
from hep2flow.store.s3 import StoreAddress, open_store
from hep2flow.store.training_status import Live

if TYPE_CHECKING:
    import torch

    from hep2flow.data.cell_set import CellSet
    from hep2flow.training.trainer import Epoch

SCORE, EPOCH, REFUSED = "score", "epoch", "refused"

Held = Mapping[str, Any]  # data.mask -> reference of Cells that Ray keeps once on each machine
Report = Callable[[dict[str, Any]], None]


class TrialSpec(BaseModel):
    """Everything a trial needs beside its cells, in plain values; credentials come from the worker's environment.

    prefix:  where its state lies while it runs
    parent:  where the state lies that it begins with, where it has none of its own yet; None for one from the start
    recipe:  with the trial's values, and as long as a trial is
    until:   epoch after which it ends before the recipe does, None for the recipe's end
    weights: key of safetensors to start from, None to start from scratch
    """

    model_config = ConfigDict(extra="forbid")

    store: StoreAddress
    prefix: str
    parent: str | None = None
    recipe: Recipe
    until: int | None = None
    weights: str | None = None


class Cells(BaseModel):
    """The cells of a sweep, under one ``data.mask``.

    rows: of the training cells, of the validation cells that choose, and, where trainings judge, of those that judge
    """

    model_config = ConfigDict(extra="forbid")

    labels: list[str]
    bits: int
    training: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    judging: list[dict[str, Any]] = []


def run_trial(config: Mapping[str, Any], held: Held) -> None:
    """Tune's trainable: reports ``epoch``, ``score``, all ``points`` so far and whether it is the ``last`` one.

    Where the user has to mend something, a diverged training or a full memory among it, it reports ``refused`` and ends.
    """
    from ray import tune

    from hep2flow.errors import UserError

    spec = TrialSpec.model_validate(config["spec"])
    try:
        if spec.recipe.resources.workers.max > 1:
            from ray.tune.integration.ray_train import TuneReportCallback

            _on_several(spec, held, "trial", [TuneReportCallback()])
        else:
            _alone(spec, held, tune.report)
    except UserError as error:
        tune.report({REFUSED: str(error), EPOCH: 0, SCORE: float("-inf")})


def judged(spec: TrialSpec, held: Held) -> dict[str, str]:
    """Train, and return what the network of the best epoch predicts: cell_id -> pattern, of the cells that judge.

    Raises UserError where the user has to mend something.
    """
    found = (
        _on_several(spec, held, "judging", [])
        if spec.recipe.resources.workers.max > 1
        else _alone(spec, held, lambda told: None)
    )
    return dict(found)


def _alone(spec: TrialSpec, held: Held, report: Report) -> Any:
    import ray
    import torch

    device = torch.device("cuda" if spec.recipe.resources.gpus_per_worker else "cpu")
    with _named_errors():
        return _train(spec, ray.get(held[spec.recipe.data.mask]), device, report)


def _on_several(spec: TrialSpec, held: Held, name: str, callbacks: list[Any]) -> Any:
    from ray.train.v2.api.exceptions import TrainingFailedError

    from hep2flow.distributed.torch_trainer import together
    from hep2flow.errors import UserError

    live, resources = Live(open_store(spec.store), spec.prefix), spec.recipe.resources
    live.begin()
    config = {"spec": spec.model_dump(mode="json"), "held": dict(held), "reports": bool(callbacks)}
    try:
        return together(_one_of_several, config, name, resources.workers.max, resources, callbacks)
    except TrainingFailedError as error:
        refused = live.refusal()
        if refused is None:
            raise
        raise UserError(refused) from error


def _one_of_several(config: dict[str, Any]) -> Any:
    """Ray Train's loop per worker."""
    import ray.train.torch

    from hep2flow.errors import UserError

    spec = TrialSpec.model_validate(config["spec"])
    cells = ray.get(config["held"][spec.recipe.data.mask])
    report = ray.train.report if config["reports"] else lambda told: None
    try:
        with _named_errors():
            return _train(spec, cells, ray.train.torch.get_device(), report)
    except UserError as error:
        # The other workers wait for this one: only its failure ends them, and Ray does not hand on what it said.
        Live(open_store(spec.store), spec.prefix).refuse(str(error))
        raise


@contextmanager
def _named_errors() -> Iterator[None]:
    """A full memory or disk becomes the UserError that names it."""
    from hep2flow.distributed.resource_errors import exhausted
    from hep2flow.errors import UserError

    try:
        yield
    except UserError:
        raise
    except Exception as error:
        told = exhausted(error, tempfile.gettempdir())
        if told is None:
            raise
        raise told from error


class _Until(Exception):
    """The epoch after which the trial ends has been saved and told."""


def _train(spec: TrialSpec, cells: Cells, device: torch.device, report: Report) -> dict[str, str] | None:
    """Train on this worker; returns predictions of the cells that judge, on the first worker and where there are any."""
    import torch

    from hep2flow.data.cell_set import CellSet
    from hep2flow.data.seeding import derived_seed
    from hep2flow.network.freezing import check_freezing
    from hep2flow.network.model import build_network, check_network
    from hep2flow.training.checkpoint import BEST, METRICS, Description, Files
    from hep2flow.training.load_weights import load_weights
    from hep2flow.training.process_group import Ranks
    from hep2flow.training.trainer import fit, plan

    recipe, store, ranks = spec.recipe, open_store(spec.store, print), Ranks.current()
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
        saved = checkpoint_uploader.load(store, spec.prefix, folder, print)
        if saved is None and spec.parent is not None:
            checkpoint_uploader.load(store, spec.parent, folder, print)
        if (folder / METRICS).exists():
            lines = (folder / METRICS).read_text(encoding="utf-8").splitlines()
            points = [point for line in lines if (point := _point(json.loads(line)))]

        def keep(files: Files) -> None:
            nonlocal saved
            files.write()
            if files.goes_on:
                # The best network of a trial is of no use: its recipe is trained again.
                fresh = [name for name in files.fresh if name != BEST or cells.judging]
                saved = checkpoint_uploader.save(
                    store, spec.prefix, folder, (files.epoch, files.updates), fresh, saved, keep=1
                )

        def on_epoch(epoch: Epoch) -> None:
            if (validated := _point(epoch.to_dict())) is not None:
                points.append(validated)
                report(_told(points, recipe, last=epoch.epoch in (last, spec.until)))
            if epoch.epoch == spec.until:
                raise _Until

        try:
            fit(
                network,
                recipe,
                training,
                validation,
                Description(recipe, cells.labels, cells.bits),
                folder,
                device=device,
                keep=keep,
                on_epoch=on_epoch,
                on_batch=lambda progress: None,
                leave=lambda: False,
            )
        except _Until:
            return None
        return _predicted(folder / BEST, cells, device) if cells.judging and ranks.first else None


def _predicted(best: Path, cells: Cells, device: torch.device) -> dict[str, str]:
    from hep2flow.data.cell_set import CellSet
    from hep2flow.evaluation.predict import predict
    from hep2flow.training.checkpoint import load_checkpoint

    network, description = load_checkpoint(best, device)
    shown: CellSet = CellSet(cells.judging, cells.labels, cells.bits, description.recipe, training=False)
    _, probabilities = predict(network, shown, description.recipe, device)
    patterns = [cells.labels[index] for index in probabilities.argmax(1).tolist()]
    return dict(zip(shown.ids, patterns, strict=True))


def _point(epoch: dict[str, Any]) -> Point | None:
    """Of a line of ``metrics.jsonl``; None where the epoch was not validated."""
    return None if epoch["val_loss"] is None else Point(**{name: epoch[name] for name in Point.model_fields})


def _told(points: list[Point], recipe: Recipe, *, last: bool) -> dict[str, Any]:
    so_far = Trial(number=0, changes={}, points=points)
    plain = [point.model_dump() for point in points]
    return {EPOCH: points[-1].epoch, SCORE: so_far.score(recipe.search.metric), "points": plain, "last": last}
