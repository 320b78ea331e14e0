"""Pipelines as Kubeflow's intermediate representation."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def pipeline_of(name: str) -> Any:
    """The pipeline ``reproduce`` or ``sweep`` as Kubeflow's page runs it: it learns from its first task what it trains."""
    from importlib import import_module

    return getattr(import_module(f"hep2flow.pipelines.{name}"), name)


def compile_to(pipeline: Any, path: Path) -> None:
    """Compile a Kubeflow pipeline to YAML, through a temporary name."""
    from kfp.compiler import Compiler

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.partial.yaml")
    Compiler().compile(pipeline, str(temporary))
    temporary.replace(path)
