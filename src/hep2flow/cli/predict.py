"""``hep2flow predict``."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from typer import Argument, Option

from hep2flow.cli import options
from hep2flow.cli.common import connect_to_store, progress_counter


def predict(
    images: Annotated[list[str], Argument(metavar="IMAGE|DIR…", help="Images, folders or archives of them.")],
    run: options.RunOption,
    model: options.ModelOption = None,
    format: Annotated[options.Format, Option(help="folder: any images; recognised when not given.")] = "auto",
    mask: Annotated[
        str | None, Option(help="The image's mask, or a folder of masks; NAME_mask.png beside it if not.")
    ] = None,
    tta: Annotated[Literal["none", "dihedral"] | None, Option(help="As the run evaluates when not given.")] = None,
    specimen: Annotated[
        bool, Option("--specimen", help="One row per specimen (folder): what most of its cells are.")
    ] = False,
    abstain_below: Annotated[float, Option(metavar="P", min=0, max=1, help="Say abstain below this confidence.")] = 0.0,
) -> None:
    """Classify images by a finished run's network; CSV with probabilities on standard output."""
    from hep2flow.reporting.formatting import RESEARCH_ONLY
    from hep2flow.stages.predict import mark_abstentions, specimen_votes
    from hep2flow.stages.predict import predict as stage
    from hep2flow.stages.unlabelled_images import open_images
    from hep2flow.store.outage import log_to_stderr

    store, progress = connect_to_store(), progress_counter("predict")
    with open_images(images, format, mask) as source:
        table = stage(store, run, source, model=model, tta=tta, log=log_to_stderr, progress=progress)
    rows = specimen_votes(table) if specimen else table.drop(columns="specimen")
    log_to_stderr(RESEARCH_ONLY)
    mark_abstentions(rows, abstain_below).to_csv(sys.stdout, index=False, float_format="%.8f", lineterminator="\n")
