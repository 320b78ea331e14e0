"""A compiled pipeline made fit for one cluster: its images, and the keys of its Secret."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hep2flow.cluster.compiling import compile_to


def package(pipeline: Any, images: Mapping[str, str], keys: Mapping[str, str], path: Path) -> None:
    """Compile a Kubeflow pipeline to ``path``.

    Args:
        pipeline: Of :mod:`hep2flow.pipelines`.
        images: Image of a component -> the one to run.
        keys: Key of the Secret in the pipeline -> the one it has.
        path: Of the YAML.
    """
    compile_to(pipeline, path)
    spec, platform = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    for executor in spec["deploymentSpec"]["executors"].values():
        executor["container"]["image"] = images[executor["container"]["image"]]
    for settings in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        for secret in settings["secretAsEnv"]:
            for variable in secret["keyToEnv"]:
                variable["secretKey"] = keys[variable["secretKey"]]
    path.write_text(yaml.safe_dump_all([spec, platform], sort_keys=False), encoding="utf-8")
