"""Options that several commands share."""

import os
from pathlib import Path
from typing import Annotated, Literal

from typer import Option


def _set_ray_address(address: str | None) -> None:
    """Set Ray's own variable, so that the steps of a run and their workers find the same cluster."""
    if address is not None:
        os.environ["RAY_ADDRESS"] = address


# What is run, on which cells, by which recipe. A name is the flag where none is spelled out.
Pipeline = Literal["reproduce", "sweep"]
Format = Literal["auto", "icpr2012", "i3a", "folder"]
Profile = Literal["paper", "laptop"]
SourceOption = Annotated[str, Option(help="Folder, .zip, .tar(.gz), or s3:// prefix of cell images.")]
FormatOption = Annotated[Format, Option(help="Form of the source; recognised when not given.")]
RecipeOption = Annotated[str, Option(help="A shipped recipe's name, or a .yaml file.")]
RecipesOption = Annotated[list[str] | None, Option(help="Shipped name or .yaml file; several are compared.")]
ProfileOption = Annotated[Profile, Option(help="paper: the paper's values; laptop: small stand-ins.")]
SetOption = Annotated[list[str] | None, Option(help="Override a value of the recipe, for example optim.lr=2e-5.")]
SeedsOption = Annotated[
    int, Option(min=1, help="Trainings of each recipe under successive seeds; mean and deviation are reported.")
]
JudgeOption = Annotated[
    int, Option(min=0, help="Fresh trainings of the winner, and of the unchanged recipe, to compare them; 0: none.")
]

# Objects in the store.
DatasetOption = Annotated[str, Option(help="URI of a data set.")]
SplitOption = Annotated[str, Option(help="URI of a split.")]
RunOption = Annotated[str, Option(help="A run whose trainings are finished.")]
ModelOption = Annotated[
    str | None, Option(help="Recipe's name in the run; the only one, or the best by ACA, if not given.")
]
SpecOption = Annotated[
    str | None, Option(metavar="URI", help="Job specification in the store, in place of all other options.")
]

# A run on this machine.
Runner = Literal["subprocess", "docker"]
RunIdOption = Annotated[str, Option(help="Name of the run; made from date and time when not given.")]
OutOption = Annotated[Path | None, Option(help="Folder for the results; out/RUN_ID when not given.")]
RunnerOption = Annotated[
    Runner, Option(help="subprocess: each step a process of this Python; docker: a container of the images below.")
]
StepImageOption = Annotated[str | None, Option(help="With --runner docker; `make images` builds it if not given.")]
RayImageOption = Annotated[str | None, Option(help="As --step-image, for training and evaluation.")]
AddressOption = Annotated[
    str | None,
    Option(
        callback=_set_ray_address,
        help="Ray cluster to train on: auto (the one on this machine), host:port or ray://host:port; else a local one.",
    ),
]

# Clusters.
ClusterFileOption = Annotated[Path | None, Option("--options", help="Cluster options, a JSON file as in k8s/overlays.")]
HostOption = Annotated[str, Option(envvar="KF_PIPELINES_ENDPOINT", help="URL of Kubeflow Pipelines.")]
NamespaceOption = Annotated[str, Option(help="Profile, in a Kubeflow with users.")]
TokenFileOption = Annotated[Path | None, Option(help="File with the bearer token for the host.")]
CookiesFileOption = Annotated[Path | None, Option(help="File with the Cookie header of a browser that is logged in.")]
CaFileOption = Annotated[Path | None, Option(help="Certificate authority of the host, a PEM file.")]

JsonOption = Annotated[bool, Option("--json", help="Print the result as one JSON object.")]
