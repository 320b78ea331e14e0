"""Pipelines as Kubeflow's intermediate representation."""

from __future__ import annotations

from pathlib import Path


def compile_to(name: str, path: Path) -> None:
    """Compile a pipeline of :mod:`hep2flow.pipelines` to YAML, through a temporary name."""
    from importlib import import_module

    from kfp.compiler import Compiler

    pipeline = getattr(import_module(f"hep2flow.pipelines.{name}"), name)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.partial.yaml")
    Compiler().compile(pipeline, str(temporary))
    temporary.replace(path)
