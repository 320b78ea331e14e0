"""Preflight: checks of recipes that need no data."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec

from hep2flow.recipe import Recipe
from hep2flow.stages.initial_weights import resolve_weights
from hep2flow.store.s3 import Store
from hep2flow.store.stage_cache import commit, lookup, stage_key
from hep2flow.store.weights_mirror import find_mirrored


def preflight(store: Store, recipes: list[Recipe]) -> None:
    """Check that timm accepts every network and image size, and that the initial weights are available.

    Where timm is not installed (a pipeline's step without torch), the training makes the other checks.

    Raises:
        UserError: A check failed.
    """
    timm = find_spec("timm") is not None
    for recipe in recipes:
        model = recipe.model
        if timm:
            inputs = {
                "model": model.model_dump(mode="json", exclude={"weights"}),
                "freeze": recipe.optim.freeze,
                "timm": metadata.version("timm"),
            }
            key = stage_key("network", inputs)
            # Cached, because timm takes seconds to import.
            if lookup(store, "network", key) is None:
                from hep2flow.network.freezing import check_freezing
                from hep2flow.network.model import check_network

                check_network(model)
                check_freezing(recipe)
                commit(store, "network", key, {"output": None})
        if timm or model.weights != "pretrained" or find_mirrored(store, model.network) is not None:
            resolve_weights(store, model)
