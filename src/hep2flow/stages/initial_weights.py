"""Initial weights of a training: from timm's hub, the store's mirror, a file, or another run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hep2flow.errors import UserError
from hep2flow.recipe import Model, Recipe
from hep2flow.stages.trained_models import finished_results, read_training_recipe
from hep2flow.store.runs import show_run
from hep2flow.store.s3 import Store
from hep2flow.store.weights_mirror import Mirrored, find_mirrored, mirror_file, put_weights

FILE = "model.safetensors"


@dataclass(frozen=True)
class InitialWeights:
    """A safetensors file in the store, by its key and SHA-256, and the training's manifest's entry on it."""

    key: str
    sha256: str
    origin: dict[str, Any]


def resolve_weights(store: Store, section: Model) -> InitialWeights | None:
    """Make a recipe's initial weights available in the store, for every worker; None for random initial weights.

    A local file is copied into the store by its SHA-256. ``pretrained`` prefers the store's mirror; missing weights are
    downloaded from timm's hub and mirrored.

    Raises:
        UserError: The weights are unavailable; names the alternatives.
    """
    if section.weights == "none":
        return None
    if section.weights == "pretrained":
        # A name with its tag is found in the mirror without timm.
        found = find_mirrored(store, section.network) or mirror_weights(store, section.network)
        origin = found.model_dump(mode="json", include={"network", "origin", "sha256"})
        return InitialWeights(found.key, found.sha256, origin)
    if section.weights.startswith("s3://"):
        key = store.key(section.weights)
        if not store.exists(key):
            raise UserError(f"model.weights: {section.weights} is not there; check the URI")
        sha256 = store.sha256(key)
        return InitialWeights(key, sha256, {"origin": section.weights, "sha256": sha256})
    if not (path := Path(section.weights)).is_file():
        raise UserError(
            f"model.weights: there is no file {section.weights}; give a path, an s3:// URI, 'pretrained' or 'none'"
        )
    key, sha256 = put_weights(store, path)
    return InitialWeights(key, sha256, {"origin": path.name, "sha256": sha256})


def with_stored_weights(store: Store, recipe: Recipe) -> Recipe:
    """The recipe with a local file of weights replaced by its copy in the store, where other machines find it."""
    if recipe.model.weights in {"none", "pretrained"} or recipe.model.weights.startswith("s3://"):
        return recipe
    weights = resolve_weights(store, recipe.model)
    assert weights is not None
    return recipe.changed({"model.weights": store.uri(weights.key)})


def mirror_weights(store: Store, network: str, file: Path | None = None) -> Mirrored:
    """Copy a network's pretrained weights into the store: from ``file``, or downloaded from timm's hub.

    ``network`` is timm's name of it; without a tag, timm's default weights.

    Raises:
        UserError: timm does not know the network, the file does not fit it, or the hub does not answer.
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
        origin = f"{repository}@{path.parent.name}"  # the hub's cache names the folder of a file by its revision
    _check_fit(path, name)
    return mirror_file(store, path, name, origin)


def initialize_from_run(store: Store, run_id: str, recipes: list[Recipe]) -> list[Recipe]:
    """The recipes with ``model.weights`` set to the best checkpoint of the run's training of the same network.

    Of several trainings of a network, the one of the recipe's own name is used, else the first by name.

    Raises:
        UserError: The run has no training of a recipe's network.
    """
    trainings = {name: result["uri"] for name, result in finished_results(show_run(store, run_id), "train").items()}
    # From the training itself: the record of a sweep's run is written before its tuned recipes are known.
    networks = {name: read_training_recipe(store, trainings[name]).model.network for name in sorted(trainings)}
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
        chosen.append(recipe.changed({"model.weights": f"{trainings[name]}/best.safetensors"}))
    return chosen


def _full_name(network: str) -> tuple[str, str]:
    """The network's name with its tag, and its repository on the hub."""
    from timm.models import get_pretrained_cfg, is_model

    config = get_pretrained_cfg(network) if is_model(network) else None
    if config is None or not config.hf_hub_id:
        raise UserError(
            f"model.weights: timm has no pre-trained weights for {network}; give a path or s3:// URI, or 'none'"
        )
    name = f"{config.architecture}.{config.tag}" if config.tag else str(config.architecture)
    # timm abbreviates "timm/{full name}" to "timm/".
    return name, config.hf_hub_id + name if config.hf_hub_id.endswith("/") else str(config.hf_hub_id)


def _check_fit(file: Path, network: str) -> None:
    # Imported here: finding mirrored weights needs no torch.
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
    # A broken download raises an error of the client's HTTP library, which changes between its releases.
    except Exception as error:
        raise UserError(
            f"model.weights: {repository} cannot be fetched from timm's hub ({type(error).__name__}), and the object store "
            f"has no mirror of it. Either, on a machine with internet and the same store: "
            f"`hep2flow weights mirror {network}` (or copy its {FILE} here and add --file PATH); or train from others: "
            "--set model.weights=PATH, s3://… or none"
        ) from error
