"""Where a training's first weights come from: timm's hub, a file, the store's mirror, or another run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hep2flow.errors import UserError
from hep2flow.recipe import Model, Recipe, parse_recipe, read_recipe
from hep2flow.store.runs import show_run
from hep2flow.store.s3 import Store
from hep2flow.store.weights_mirror import Mirrored, find_mirrored, mirror_file, put_weights

FILE = "model.safetensors"


@dataclass(frozen=True)
class Weights:
    """First weights of a training.

    key:    of the safetensors in the store, or their s3:// URI
    sha256: of the file
    origin: what the training's manifest tells of them
    """

    key: str
    sha256: str
    origin: dict[str, Any]


def resolve_weights(store: Store, section: Model) -> Weights | None:
    """The weights a recipe starts from, in the store, where every worker finds them; None for one from scratch.

    A local file is copied into the store by its SHA-256. ``pretrained`` prefers the store's mirror; what is not there is
    fetched from timm's hub, and mirrored from then on.
    Raises UserError where the weights cannot be had, naming the ways out.
    """
    if section.weights == "none":
        return None
    if section.weights == "pretrained":
        # A name with its tag is found in the mirror without timm.
        mirrored = find_mirrored(store, section.network) or mirror(store, section.network)
        told = mirrored.model_dump(mode="json", include={"network", "origin", "sha256"})
        return Weights(mirrored.key, mirrored.sha256, told)
    if section.weights.startswith("s3://"):
        key = store.key(section.weights)
        if not store.exists(key):
            raise UserError(f"model.weights: {section.weights} is not there; check the URI")
        sha256 = store.sha256(key)
        return Weights(key, sha256, {"origin": section.weights, "sha256": sha256})
    path = Path(section.weights)
    if not path.is_file():
        raise UserError(
            f"model.weights: there is no file {section.weights}; give a path, an s3:// URI, 'pretrained' or 'none'"
        )
    key, sha256 = put_weights(store, path)
    return Weights(key, sha256, {"origin": path.name, "sha256": sha256})


def shippable(store: Store, recipe: Recipe) -> Recipe:
    """The recipe with a local file of weights replaced by its copy in the store: other machines can train it then."""
    if recipe.model.weights in {"none", "pretrained"} or recipe.model.weights.startswith("s3://"):
        return recipe
    weights = resolve_weights(store, recipe.model)
    assert weights is not None
    return parse_recipe(recipe.model_dump(mode="json"), recipe.name, [f"model.weights={store.uri(weights.key)}"])


def mirror(store: Store, network: str, file: Path | None = None) -> Mirrored:
    """Copy a network's pre-trained weights into the store, from timm's hub or from a file fetched elsewhere.

    network: timm's name; without a tag, timm's default weights of it
    Raises UserError for a network timm does not know, a file that does not fit it, and a hub that does not answer.
    """
    name, repository = _full_name(network)
    if file is not None:
        if not file.is_file():
            raise UserError(f"--file {file}: there is no such file")
        path, origin = file, file.name
    elif (mirrored := find_mirrored(store, name)) is not None:
        return mirrored
    else:
        path = _from_hub(name, repository)
        # The hub's cache names the folder of a file by its revision.
        origin = f"{repository}@{path.parent.name}"
    _check_fit(path, name)
    return mirror_file(store, path, name, origin)


def _full_name(network: str) -> tuple[str, str]:
    """timm's name with its tag, and the hub's repository."""
    from timm.models import get_pretrained_cfg, is_model

    config = get_pretrained_cfg(network) if is_model(network) else None
    if config is None or not config.hf_hub_id:
        raise UserError(
            f"model.weights: timm has no pre-trained weights for {network}; give a path or s3:// URI, or 'none'"
        )
    name = f"{config.architecture}.{config.tag}" if config.tag else str(config.architecture)
    # timm writes "timm/" for "timm/{its full name}".
    return name, config.hf_hub_id + name if config.hf_hub_id.endswith("/") else str(config.hf_hub_id)


def _check_fit(file: Path, network: str) -> None:
    # Not at the top: it imports torch, which the mirror's readers do without.
    import torch
    from timm.models import get_pretrained_cfg

    from hep2flow.network.model import build_network
    from hep2flow.training.load_weights import fitting_weights

    with torch.device("meta"):
        built = build_network(Model(network=network, image_size=get_pretrained_cfg(network).input_size[-1]), classes=2)
    fitting_weights(built, file, str(file), labels=[])


def _from_hub(network: str, repository: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, FILE))
    # A download that breaks off raises what the client's HTTP library raises, and that changes between its releases.
    except Exception as error:
        raise UserError(
            f"model.weights: {repository} cannot be fetched from timm's hub ({type(error).__name__}), and the object store "
            f"has no mirror of it. Either, on a machine with internet and the same store: "
            f"`hep2flow weights mirror {network}` (or copy its {FILE} here and add --file PATH); or train from others: "
            "--set model.weights=PATH, s3://… or none"
        ) from error


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
