"""``hep2flow predict``."""

from __future__ import annotations

import sys
from enum import Enum
from typing import Annotated

import typer

from hep2flow.cli.common import connect, counter
from hep2flow.cli.options import Format, ModelOption, RunOption

app = typer.Typer()


class Tta(str, Enum):
    """Test-time augmentations."""

    none = "none"
    dihedral = "dihedral"


@app.command()
def predict(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE|DIR…", help="Images, folders or archives of them.")],
    run: RunOption,
    model: ModelOption = None,
    format: Annotated[
        Format, typer.Option("--format", help="folder: any images; recognised when not given.")
    ] = Format.auto,
    mask: Annotated[
        str | None,
        typer.Option("--mask", help="The image's mask, or a folder of masks; NAME_mask.png beside it if not."),
    ] = None,
    tta: Annotated[Tta | None, typer.Option("--tta", help="As the run evaluates when not given.")] = None,
    specimen: Annotated[
        bool, typer.Option("--specimen", help="One row per specimen (folder): what most of its cells are.")
    ] = False,
    abstain_below: Annotated[
        float, typer.Option("--abstain-below", metavar="P", min=0, max=1, help="Say abstain below this confidence.")
    ] = 0.0,
) -> None:
    """Classify images by a finished run's network; CSV with probabilities on standard output."""
    from hep2flow.reporting.sentences import RESEARCH_ONLY
    from hep2flow.stages.predict import abstaining, vote
    from hep2flow.stages.predict import predict as stage

    def tell(text: str) -> None:
        print(text, file=sys.stderr)

    table = stage(
        connect(),
        run,
        images,
        model=model,
        format=format.value,
        mask=mask,
        tta=tta.value if tta else None,
        tell=tell,
        progress=counter("predict"),
    )
    shown = vote(table) if specimen else table.drop(columns="specimen")
    tell(RESEARCH_ONLY)
    abstaining(shown, abstain_below).to_csv(sys.stdout, index=False, float_format="%.8f", lineterminator="\n")
