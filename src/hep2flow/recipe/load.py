"""Recipes from shipped names, YAML files and mappings, with ``key=value`` overrides; every refusal names the key."""

import contextlib
import difflib
from collections.abc import Iterable, Mapping
from functools import reduce
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from hep2flow.errors import UserError
from hep2flow.recipe.schema import Profile, Recipe, section_type


def load_recipe(reference: str, profile: Profile = "paper", overrides: Iterable[str] = ()) -> Recipe:
    """The recipe of a shipped name in a profile, or of a YAML file.

    ``reference`` is a shipped name or the path of a ``.yaml`` or ``.yml`` file; ``overrides`` are ``key=value`` with dotted
    keys, the value in YAML.

    Raises:
        UserError: There is no such recipe, or it is not valid: the key's path, and what is allowed there.

    Example:
        >>> load_recipe("convnext-b", "laptop", ["optim.lr=2e-3"]).optim.lr
        0.002
    """
    if Path(reference).suffix in {".yaml", ".yml"}:
        try:
            text = Path(reference).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{reference}: cannot read the recipe ({error}); name a readable YAML file") from error
    else:
        shipped = resources.files("hep2flow.recipes") / f"{reference}{_shipped_suffix(profile)}"
        if not shipped.is_file():
            raise UserError(
                f"--recipe {reference}: no such recipe in profile {profile}; "
                f"shipped: {', '.join(shipped_names(profile))}; or name a .yaml file"
            )
        text = shipped.read_text(encoding="utf-8")
    return read_recipe(text, reference, overrides)


def read_recipe(text: str, where: str = "recipe", overrides: Iterable[str] = ()) -> Recipe:
    """The recipe of a YAML text; UserError where it is not one, otherwise as :func:`load_recipe`."""
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error
    return parse_recipe(tree, where, overrides)


def parse_recipe(tree: Any, where: str, overrides: Iterable[str] = ()) -> Recipe:
    """Validate a nested mapping as a recipe; UserError where it is not one, otherwise as :func:`load_recipe`."""
    if not isinstance(tree, dict):
        raise UserError(f"{where}: a recipe is a mapping of sections, this is {type(tree).__name__}")
    for override in overrides:
        _apply_override(tree, override)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{where}: " + "; ".join(_explain(item) for item in error.errors())) from error


def shipped_names(profile: Profile) -> list[str]:
    """Names of the recipes shipped in one profile."""
    files, suffix = resources.files("hep2flow.recipes").iterdir(), _shipped_suffix(profile)
    names = [file.name.removesuffix(suffix) for file in files if file.name.endswith(suffix)]
    return sorted(name for name in names if "." not in name)


def _shipped_suffix(profile: Profile) -> str:
    return ".yaml" if profile == "paper" else f".{profile}.yaml"


def changed_values(change: str) -> tuple[str, list[str]]:
    """``key=value,value`` as the key and its values as YAML text; UserError for fewer than two different ones."""
    key, separator, text = change.partition("=")
    try:
        values = yaml.safe_load(f"[{text}]") if separator and key else None
    except yaml.YAMLError:
        values = None
    texts = [yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip() for value in values or []]
    if len(texts) < 2 or len(set(texts)) < len(texts):
        raise UserError(f"{change}: write key=value,value with two different values or more, e.g. data.mask=none,apply")
    return key, texts


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError(f"--set {override}: write key=value, for example --set optim.lr=2e-5")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override}: the value is not valid YAML") from error
    if isinstance(value, str):
        # YAML 1.1 reads 2e-5 as text because it has no dot.
        with contextlib.suppress(ValueError):
            value = float(value)
    *sections, leaf = key.split(".")
    for section in sections:
        if tree.get(section) is None:
            tree[section] = {}
        tree = tree[section]
        if not isinstance(tree, dict):
            raise UserError(f"--set {override}: {section} is a value, not a section")
    tree[leaf] = value


def _explain(item: Mapping[str, Any]) -> str:
    """One pydantic error as ``key.path: what is wrong, what is allowed``."""
    if item["type"] == "extra_forbidden":
        *sections, unknown = keys = [str(part) for part in item["loc"]]
        root: type[BaseModel] | None = Recipe
        known = list(section.model_fields) if (section := reduce(section_type, sections, root)) else []
        close = difflib.get_close_matches(unknown, known, n=1)
        hint = f", did you mean {close[0]}?" if close else ""
        return f"{'.'.join(keys)}: unknown key{hint} (known here: {', '.join(known)})"
    # Union branches (a number or a range) appear in the location as type descriptions: not part of the key.
    path = ".".join(str(part) for part in item["loc"] if isinstance(part, int) or str(part).isidentifier())
    if item["type"] == "missing":
        return f"{path}: missing"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{path}: {message}, not {item['input']!r}" if path else message
