"""The networks of a finished run, for those who use them: predict, evaluate on other cells, export."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hep2flow.cells import temporary_folder
from hep2flow.errors import UserError
from hep2flow.recipe import Recipe, parse_recipe, read_recipe
from hep2flow.selected_on_test import OPTIMISTIC_WARNING
from hep2flow.store.outage import Log
from hep2flow.store.runs import RunView, show_run
from hep2flow.store.s3 import Store

if TYPE_CHECKING:
    import torch

    from hep2flow.training.checkpoint import Description


@dataclass(frozen=True)
class TrainedModel:
    """One finished training of a run, by the name of its recipe there."""

    name: str
    uri: str
    recipe: Recipe  # as the run has it: two runs may share a training and evaluate it differently


def finished_results(view: RunView, stage: str) -> dict[str, dict[str, Any]]:
    """What a run's finished stages of this name returned, by their models."""
    finished = [record for record in view.stages if record.stage == stage and record.status == "succeeded"]
    return {record.model: record.result for record in finished if record.model is not None}


def find_model(store: Store, run_id: str, model: str | None, log: Log) -> TrainedModel:
    """Find a finished training of a run, by its recipe's name; by None the only one, else the one of the highest ACA.

    ``log`` is called with a line that names the model, where there was a choice.

    Raises:
        UserError: There is no such run or model, or no evaluation by which to choose among several.
    """
    view = show_run(store, run_id)
    trainings = {name: str(result["uri"]) for name, result in finished_results(view, "train").items()}
    names = ", ".join(sorted(trainings))
    if not trainings:
        raise UserError(f"run {run_id} ({view.status}): has no finished training; `hep2flow runs show {run_id}`")
    if model is None and len(trainings) > 1:
        summaries = {name: result["summary"] for name, result in finished_results(view, "evaluate").items()}
        if not (evaluated := sorted(summaries.keys() & trainings.keys())):
            raise UserError(f"run {run_id}: no evaluation tells its models apart; add --model, one of {names}")
        model = max(evaluated, key=lambda name: float(summaries[name]["aca"]))
        best = summaries[model]
        log(f"--model {model}, the best of {names} by ACA: {best['aca']:.3f} on the {best['subset']} cells")
    name = next(iter(trainings)) if model is None else model
    if name not in trainings:
        raise UserError(f"--model {name}: run {run_id} has no finished training of that name; it has {names}")
    if name in view.run.recipes:
        recipe = parse_recipe(view.run.recipes[name], f"run {run_id}")
    else:  # the record of a sweep's run is written before its tuned recipes are known
        recipe = read_training_recipe(store, trainings[name])
    return TrainedModel(name, trainings[name], recipe)


def read_training_recipe(store: Store, training: str) -> Recipe:
    """Read the recipe of a training, by its URI."""
    return read_recipe(store.get_bytes(f"{store.key(training)}/recipe.yaml").decode(), training)


class LoadedModel(NamedTuple):
    """A network in evaluation mode, its checkpoint's description with the run's own ``eval``, and its device."""

    network: "torch.nn.Module"
    description: "Description"
    device: "torch.device"


def load_network(
    store: Store, trained: TrainedModel, log: Log | None = None, device: "torch.device | None" = None
) -> LoadedModel:
    """Load the best checkpoint of a training, by default onto the GPU, where there is one.

    ``log`` is called with a warning where the checkpoint was selected on the test set.
    """
    import torch

    from hep2flow.training.checkpoint import load_checkpoint

    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with temporary_folder() as scratch:
        path = scratch / "best.safetensors"
        store.get_file(f"{store.key(trained.uri)}/{path.name}", path)
        network, description = load_checkpoint(path, device)
    if description.selected_on_test and log is not None:
        log(f"{trained.name}: {OPTIMISTIC_WARNING}")
    recipe = description.recipe.model_copy(update={"eval": trained.recipe.eval})
    return LoadedModel(network, replace(description, recipe=recipe), device)


def export(store: Store, run_id: str, model: str | None, onnx: Path, log: Log) -> float:
    """Write a trained network as an ONNX file; returns the largest difference of its probabilities from torch's.

    Arguments and errors are those of :func:`find_model` and :func:`hep2flow.evaluation.onnx_export.write_onnx`.
    """
    trained = find_model(store, run_id, model, log)
    # torch takes seconds to import: not for a run that does not exist.
    import torch

    from hep2flow.evaluation.onnx_export import write_onnx

    network, description, _ = load_network(store, trained, log, torch.device("cpu"))
    return write_onnx(network, description, onnx)
