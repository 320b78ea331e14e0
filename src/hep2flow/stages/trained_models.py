"""The networks of a finished run, for those who use them: predict, evaluate on other cells, export."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hep2flow.errors import UserError
from hep2flow.recipe import Recipe, parse_recipe, read_recipe
from hep2flow.selected_on_test import OPTIMISTIC
from hep2flow.store.runs import show_run
from hep2flow.store.s3 import Store

if TYPE_CHECKING:
    import torch

    from hep2flow.training.checkpoint import Description


@dataclass(frozen=True)
class Trained:
    """One finished training of a run.

    name:   of its recipe in the run
    uri:    of the training
    recipe: as the run has it: two runs may share a training and look at their test cells in different ways
    """

    name: str
    uri: str
    recipe: Recipe


def find_trained(store: Store, run_id: str, model: str | None, tell: Callable[[str], None]) -> Trained:
    """The training of a model's name; of None the run's only one, else the one of the highest ACA.

    tell: told in one line which one was taken, where there was a choice
    Raises UserError where there is no such run or model, and where nothing tells several models apart.
    """
    view = show_run(store, run_id)
    finished = [record for record in view.stages if record.status == "succeeded" and record.model is not None]
    trained = {str(record.model): str(record.result["uri"]) for record in finished if record.stage == "train"}
    names = ", ".join(sorted(trained))
    if not trained:
        raise UserError(f"run {run_id} ({view.status}): has no finished training; `hep2flow runs show {run_id}`")
    if model is None and len(trained) > 1:
        scores = {
            str(record.model): (float(record.result["summary"]["aca"]), str(record.result["summary"]["subset"]))
            for record in finished
            if record.stage == "evaluate" and record.model in trained
        }
        if not scores:
            raise UserError(f"run {run_id}: no evaluation tells its models apart; add --model, one of {names}")
        model = max(sorted(scores), key=lambda name: scores[name][0])
        aca, subset = scores[model]
        tell(f"--model {model}, the best of {names} by ACA: {aca:.3f} on the {subset} cells")
    name = next(iter(trained)) if model is None else model
    if name not in trained:
        raise UserError(f"--model {name}: run {run_id} has no finished training of that name; it has {names}")
    if name in view.run.recipes:
        recipe = parse_recipe(view.run.recipes[name], f"run {run_id}")
    else:  # a sweep's run does not know its tuned recipes when it begins
        recipe = read_recipe(store.get_bytes(f"{store.key(trained[name])}/recipe.yaml").decode(), trained[name])
    return Trained(name, trained[name], recipe)


def load_network(
    store: Store, trained: Trained, device: torch.device, tell: Callable[[str], None]
) -> tuple[torch.nn.Module, Description]:
    """The network, ready to predict, and what its checkpoint says, with the run's own ``eval``.

    tell: told where the network was chosen on the test set
    """
    from dataclasses import replace

    from hep2flow.training.checkpoint import load_checkpoint

    with tempfile.TemporaryDirectory(prefix="hep2flow-network-") as scratch:
        path = Path(scratch) / "best.safetensors"
        store.get_file(f"{store.key(trained.uri)}/{path.name}", path)
        network, description = load_checkpoint(path, device)
    if description.selected_on_test:
        tell(f"{trained.name}: {OPTIMISTIC}")
    viewed = description.recipe.model_copy(update={"eval": trained.recipe.eval})
    return network, replace(description, recipe=viewed)
