"""``hep2flow data``: make or check a data set."""

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option, Typer

from hep2flow.cli.options import FormatOption, JsonOption

app = Typer(name="data", no_args_is_help=True, help="Make or check a data set.")


@app.command()
def synth(
    folder: Annotated[Path, Argument(help="Folder to make; must not exist, or be empty.")],
    seed: Annotated[int, Option(min=0)] = 0,
    specimens: Annotated[int | None, Option(help="Keep this many of the 28.")] = None,
) -> None:
    """Generate a synthetic twin of ICPR 2012: same layout, same counts, drawn cells."""
    from hep2flow.sources.synthetic import write_twin

    write_twin(folder, seed, specimens)
    print(f"{folder}: synthetic cells in the ICPR 2012 layout (seed {seed}); they say nothing about real ones")


@app.command()
def check(
    path: Annotated[str, Argument(help="Folder, archive or s3:// prefix.")],
    format: FormatOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Count cells, compare with published counts, and list every fault."""
    from hep2flow.sources import open_source
    from hep2flow.sources.check import check as check_source

    download = None
    if path.startswith("s3://"):
        from hep2flow.store.open_store import open_store

        download = open_store().download
    with open_source(path, format, download) as source:
        report = check_source(source)
    print(json.dumps(report.to_dict(), indent=2) if as_json else report.render())
    if report.faults:
        raise Exit(2)
