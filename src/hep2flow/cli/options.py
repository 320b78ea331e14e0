"""Options that several commands share."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Format(str, Enum):
    """Data set forms."""

    auto = "auto"
    icpr2012 = "icpr2012"
    i3a = "i3a"
    folder = "folder"


class ProfileName(str, Enum):
    """Recipe profiles."""

    paper = "paper"
    laptop = "laptop"


class Runner(str, Enum):
    """What the steps of a run on this machine are."""

    subprocess = "subprocess"
    docker = "docker"


SourceOption = Annotated[str, typer.Option("--source", help="Folder, .zip, .tar(.gz), or s3:// prefix of cell images.")]
FormatOption = Annotated[Format, typer.Option("--format", help="Form of the source; recognised when not given.")]
ProfileOption = Annotated[
    ProfileName, typer.Option("--profile", help="paper: the paper's values; laptop: small stand-ins.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a recipe's leaf, for example optim.lr=2e-5.")
]
SeedsOption = Annotated[
    int,
    typer.Option(
        "--seeds", min=1, help="Trainings of each recipe under successive seeds; mean and deviation are told."
    ),
]
RunnerOption = Annotated[
    Runner,
    typer.Option(
        "--runner", help="subprocess: each step a process of this Python; docker: a container of the images below."
    ),
]
StepImageOption = Annotated[
    str | None, typer.Option("--step-image", help="With --runner docker; what `make images` made if not given.")
]
RayImageOption = Annotated[
    str | None, typer.Option("--ray-image", help="As --step-image, of what trains and evaluates.")
]
RecipeArgument = Annotated[str, typer.Argument(help="A shipped recipe's name, or a .yaml file.")]
RecipeOption = Annotated[str, typer.Option("--recipe", help="A shipped recipe's name, or a .yaml file.")]
DatasetOption = Annotated[str, typer.Option("--dataset", help="URI of a data set.")]
SplitOption = Annotated[str, typer.Option("--split", help="URI of a split.")]
SpecOption = Annotated[
    str | None,
    typer.Option("--spec", metavar="URI", help="A specification in the store, which says everything; for jobs."),
]
RunOption = Annotated[str, typer.Option("--run", help="A run whose trainings are finished.")]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="Recipe's name in the run; the only one, or the best by ACA, if not given."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


def _use_cluster(address: str | None) -> None:
    """Ray's own variable, so that the steps of a run and their workers find the same cluster."""
    if address is not None:
        os.environ["RAY_ADDRESS"] = address


AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        callback=_use_cluster,
        help="Ray cluster to train on: auto (the one on this machine), host:port or ray://host:port; else a local one.",
    ),
]

HostOption = Annotated[str, typer.Option("--host", envvar="KF_PIPELINES_ENDPOINT", help="URL of Kubeflow Pipelines.")]
NamespaceOption = Annotated[str, typer.Option("--namespace", help="Profile, in a Kubeflow with users.")]
TokenFileOption = Annotated[Path | None, typer.Option("--token-file", help="File with the bearer token for the host.")]
CookiesFileOption = Annotated[
    Path | None, typer.Option("--cookies-file", help="File with the Cookie header of a browser that is logged in.")
]
CaFileOption = Annotated[Path | None, typer.Option("--ca-file", help="Certificate authority of the host, a PEM file.")]
