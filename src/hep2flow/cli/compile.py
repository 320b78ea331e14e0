"""``hep2flow compile``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


class Pipeline(str, Enum):
    """Pipelines."""

    reproduce = "reproduce"
    sweep = "sweep"


@app.command("compile")
def compile_pipeline(
    pipeline: Annotated[Pipeline, typer.Argument()],
    output: Annotated[Path, typer.Option("-o", "--output", help="YAML file to write.")],
) -> None:
    """Write a pipeline's Kubeflow IR YAML."""
    from hep2flow.execution.kubeflow.compile import compile_to, pipeline_of

    compile_to(pipeline_of(pipeline.value), output)
    print(output)
