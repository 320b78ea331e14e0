"""Compiles pipelines to Kubeflow's intermediate representation, and adapts it to one cluster."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml


def load_pipeline(name: str) -> Any:
    """The pipeline ``reproduce`` or ``sweep`` that Kubeflow's page runs: it learns its models from its first task."""
    return getattr(import_module(f"hep2flow.pipelines.{name}"), name)


def compile_pipeline(pipeline: Any, path: Path) -> None:
    """Compile a Kubeflow pipeline to YAML, atomically."""
    from kfp.compiler import Compiler

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.partial.yaml")
    Compiler().compile(pipeline, str(temporary))
    temporary.replace(path)


def compile_for_cluster(pipeline: Any, images: Mapping[str, str], keys: Mapping[str, str], path: Path) -> None:
    """Compile a Kubeflow pipeline to YAML with a cluster's images and Secret.

    ``images`` maps a component's image to the one to run, ``keys`` a key of the pipeline's Secret to the cluster's.
    """
    compile_pipeline(pipeline, path)
    spec, platform = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    for executor in spec["deploymentSpec"]["executors"].values():
        executor["container"]["image"] = images[executor["container"]["image"]]
    for settings in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        for secret in settings["secretAsEnv"]:
            for variable in secret["keyToEnv"]:
                variable["secretKey"] = keys[variable["secretKey"]]
    path.write_text(yaml.safe_dump_all([spec, platform], sort_keys=False), encoding="utf-8")
