"""Compiles pipelines to Kubeflow's intermediate representation, and adapts it to one cluster."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from hep2flow import __version__
from hep2flow.errors import UserError


def load_pipeline(name: str) -> Any:
    """The pipeline ``reproduce`` or ``sweep`` that Kubeflow's page runs: it learns its models from its first task."""
    return getattr(import_module(f"hep2flow.pipelines.{name}"), name)


def repository_images(repository: str) -> dict[str, str]:
    """The images ``step`` and ``ray`` of ``REGISTRY/NAME[:TAG]``, by this version's tag where it has none.

    Raises:
        UserError: It is a digest, which only one of the two can have.
    """
    if "@" in repository:
        raise UserError(f"--image {repository}: names where the images step and ray lie, for example REGISTRY/hep2flow")
    head, slash, last = repository.rpartition("/")
    name, _, tag = last.partition(":")
    return {kind: f"{head}{slash}{name}/{kind}:{tag or __version__}" for kind in ("step", "ray")}


def compile_pipeline(pipeline: Any, path: Path) -> None:
    """Compile a Kubeflow pipeline to YAML, atomically."""
    from kfp.compiler import Compiler

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.partial.yaml")
    Compiler().compile(pipeline, str(temporary))
    temporary.replace(path)


def compile_for_cluster(pipeline: Any, images: Mapping[str, str], keys: Mapping[str, str], path: Path) -> None:
    """Compile a Kubeflow pipeline to YAML with a cluster's images and Secret.

    ``images`` has the image of the steps, ``step``, and the one with Ray, ``ray``; ``keys`` maps a key of the pipeline's
    Secret to the cluster's.
    """
    from hep2flow.components.images import RAY, STEP

    compile_pipeline(pipeline, path)
    spec, platform = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    chosen = {STEP: images["step"], RAY: images["ray"]}
    for executor in spec["deploymentSpec"]["executors"].values():
        executor["container"]["image"] = chosen[executor["container"]["image"]]
    spec["root"]["inputDefinitions"]["parameters"]["cluster"]["defaultValue"] = {"image": images["ray"]}
    for settings in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        for secret in settings["secretAsEnv"]:
            for variable in secret["keyToEnv"]:
                variable["secretKey"] = keys.get(variable["secretKey"], variable["secretKey"])
    path.write_text(yaml.safe_dump_all([spec, platform], sort_keys=False), encoding="utf-8")
