"""Weights: where a training's first weights come from, settled before any data is read."""

from __future__ import annotations

from pathlib import Path

from hep2flow.errors import UserError
from hep2flow.recipe import Model
from hep2flow.store import layout
from hep2flow.store.s3 import Store, file_sha256

FILE = "model.safetensors"


def resolve_weights(store: Store, section: Model) -> tuple[str | None, str | None]:
    """Key of the safetensors in the store, and their SHA-256; both None for a training from scratch.

    A local file or timm's hub file is copied into the store by its SHA-256, where every worker finds it.
    Raises UserError where the weights cannot be had, naming the ways out.
    """
    if section.weights == "none":
        return None, None
    if section.weights.startswith("s3://"):
        key = store.key(section.weights)
        if not store.exists(key):
            raise UserError(f"model.weights: {section.weights} is not there; check the URI")
        return key, store.sha256(key)
    path = _from_hub(section.network) if section.weights == "pretrained" else Path(section.weights)
    if not path.is_file():
        raise UserError(
            f"model.weights: there is no file {section.weights}; give a path, an s3:// URI, 'pretrained' or 'none'"
        )
    sha256 = file_sha256(path)
    key = f"{layout.weights_prefix(sha256[:32])}/{FILE}"
    if not store.exists(key):
        store.put_file(path, key)
    return key, sha256


def _from_hub(network: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(network)
    repository = config.hf_hub_id if config is not None else None
    if not repository:
        raise UserError(f"model.weights: timm has no pre-trained weights for {network}; give a path or 'none'")
    # timm writes "timm/" for "timm/{architecture}.{tag}".
    repository = repository + f"{config.architecture}.{config.tag}" if repository.endswith("/") else repository
    try:
        return Path(hf_hub_download(repository, FILE))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise UserError(
            f"model.weights: {repository} cannot be fetched from timm's hub ({type(error).__name__}); copy its {FILE} "
            "here and --set model.weights=PATH, or train from scratch with --set model.weights=none"
        ) from error
