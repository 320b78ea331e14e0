"""A compiled pipeline made fit for one cluster: its images, and the keys of its Secret."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from hep2flow.cluster.compiling import compile_to


def package(name: str, images: Mapping[str, str], keys: Mapping[str, str], path: Path) -> None:
    """Compile a pipeline of :mod:`hep2flow.pipelines` to ``path``.

    images: image of a component -> the one to run; keys: key of the Secret in the pipeline -> the one it has
    """
    compile_to(name, path)
    pipeline, platform = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    for executor in pipeline["deploymentSpec"]["executors"].values():
        if "container" in executor:  # an importer has none
            container = executor["container"]
            container["image"] = images[container["image"]]
    for settings in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        for secret in settings["secretAsEnv"]:
            for variable in secret["keyToEnv"]:
                variable["secretKey"] = keys[variable["secretKey"]]
    path.write_text(yaml.safe_dump_all([pipeline, platform], sort_keys=False), encoding="utf-8")
