"""Transfer: recipes that start from what another run has learnt (the paper: pre-train on a similar data set)."""

from __future__ import annotations

from hep2flow.errors import UserError
from hep2flow.recipe import Recipe, parse_recipe, read_recipe
from hep2flow.store.runs import show_run
from hep2flow.store.s3 import Store


def init_from(store: Store, run_id: str, recipes: list[Recipe]) -> list[Recipe]:
    """The recipes with ``model.weights`` set to the best checkpoint of the run's training of the same network.

    Where the run has several of a network, the one of the recipe's own name is taken, else the first by name.
    Raises UserError where the run has none.
    """
    view = show_run(store, run_id)
    trained = {
        record.model: record.result["uri"]
        for record in view.stages
        if record.stage == "train" and record.status == "succeeded" and record.model is not None
    }
    # From the training itself: a sweep's run does not know its tuned recipes when it begins.
    networks = {name: _trained(store, trained[name]).model.network for name in sorted(trained)}
    chosen = []
    for recipe in recipes:
        fitting = [name for name, network in networks.items() if network == recipe.model.network]
        if not fitting:
            has = ", ".join(sorted(set(networks.values()))) or "no finished training"
            raise UserError(
                f"--init-from {run_id}: has no training of {recipe.model.network} ({recipe.name}) to start from, it has "
                f"{has}; name a run of the same networks, or leave that recipe out with --recipe"
            )
        name = recipe.name if recipe.name in fitting else fitting[0]
        weights = f"model.weights={trained[name]}/best.safetensors"
        chosen.append(parse_recipe(recipe.model_dump(mode="json"), recipe.name, [weights]))
    return chosen


def _trained(store: Store, training: str) -> Recipe:
    return read_recipe(store.get_bytes(f"{store.key(training)}/recipe.yaml").decode(), training)
