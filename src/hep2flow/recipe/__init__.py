"""The Recipe: every choice of an experiment as one validated object.

A recipe is a YAML file of sections. Unknown keys, wrong types and impossible combinations are refused with the key's path
and the values allowed there. ``hep2flow.recipes`` holds the shipped ones in two profiles: ``paper`` (the paper's Tables 1
and 2) and ``laptop`` (small networks from scratch, stand-ins that a two-core machine trains in minutes).
"""

from hep2flow.recipe.load import changed_values, load_recipe, parse_recipe, read_recipe, shipped_names
from hep2flow.recipe.schema import (
    Augment,
    Cutout,
    Data,
    Domain,
    Feature,
    Loss,
    MaskMode,
    MaskSource,
    Model,
    Optim,
    Profile,
    Protocol,
    RandAugment,
    Recipe,
    Resources,
    Split,
    Train,
    Workers,
    searchable_keys,
)

__all__ = [
    "Augment",
    "Cutout",
    "Data",
    "Domain",
    "Feature",
    "Loss",
    "MaskMode",
    "MaskSource",
    "Model",
    "Optim",
    "Profile",
    "Protocol",
    "RandAugment",
    "Recipe",
    "Resources",
    "Split",
    "Train",
    "Workers",
    "changed_values",
    "load_recipe",
    "parse_recipe",
    "read_recipe",
    "searchable_keys",
    "shipped_names",
]
