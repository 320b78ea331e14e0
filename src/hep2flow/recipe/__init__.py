"""The Recipe: every choice of an experiment as one validated object.

A recipe is a YAML file of sections, see :mod:`hep2flow.recipe.schema`. Unknown keys, wrong types and impossible combinations
are refused with the key's path and the values allowed there. ``hep2flow.recipes`` holds the shipped ones in two profiles:
``paper`` (the paper's Tables 1 and 2) and ``laptop`` (small networks from scratch, stand-ins that a two-core machine trains
in minutes).
"""

from hep2flow.recipe.load import changed_values, load_recipe, parse_recipe, read_recipe, shipped_names
from hep2flow.recipe.schema import Data, Domain, Feature, Loss, Model, Optim, Profile, Recipe, Resources, Split

__all__ = ["Data", "Domain", "Feature", "Loss", "Model", "Optim", "Profile", "Recipe", "Resources", "Split"]
__all__ += ["changed_values", "load_recipe", "parse_recipe", "read_recipe", "shipped_names"]
