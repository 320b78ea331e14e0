"""Recipes in the store, for a pipeline that is told their names only: whole ones are too long for its parameters."""

from __future__ import annotations

import hashlib

from hep2flow.recipe import Recipe
from hep2flow.store import layout
from hep2flow.store.s3 import Store


def put_recipe(store: Store, recipe: Recipe) -> str:
    """Write a complete recipe to ``recipes/{digest}.yaml``; returns its URI."""
    text = recipe.to_yaml().encode()
    key = layout.recipe_key(hashlib.sha256(text).hexdigest()[:32])
    store.put_bytes(key, text)
    return store.uri(key)
