"""``hep2flow weights``: pre-trained weights in the object store, for machines without internet."""

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Option, Typer

from hep2flow.cli.common import connect_to_store
from hep2flow.cli.options import JsonOption

app = Typer(name="weights", no_args_is_help=True, help="Pre-trained weights in the object store.")


@app.command()
def mirror(
    network: Annotated[str, Argument(help="timm's name, for example convnext_base.fb_in22k.")],
    file: Annotated[
        Path | None, Option(help="Its model.safetensors, fetched elsewhere; timm's hub when not given.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a network's pre-trained weights into the object store, where every training finds them."""
    from hep2flow.stages.initial_weights import mirror_weights

    mirrored = mirror_weights(connect_to_store(), network, file)
    print(mirrored.model_dump_json(indent=2) if as_json else f"{mirrored.network}: {mirrored.key}  {mirrored.sha256}")


@app.command("list")
def list_all(as_json: JsonOption = False) -> None:
    """The mirrored weights."""
    from hep2flow.store.weights_mirror import list_mirrored

    mirrored = list_mirrored(connect_to_store())
    if as_json:
        print(json.dumps([one.model_dump(mode="json") for one in mirrored], indent=2))
        return
    for one in mirrored:
        print(f"{one.network:<40} {one.bytes / 2**20:8.1f} MiB  {one.sha256[:12]}  {one.origin}")
