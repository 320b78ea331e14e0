"""What is sent to Kubeflow for a run on a cluster: a pipeline, its images and its arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import yaml

from hep2flow import __version__
from hep2flow.cluster.options import NO_SECRET, ClusterOptions
from hep2flow.cluster.registry import pinned
from hep2flow.cluster.request import Request, pipeline_of
from hep2flow.errors import UserError
from hep2flow.store.s3 import CREDENTIALS, StoreAddress, open_store

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
# What a pipeline's parameter of each kind may be, as YAML reads it.
KINDS: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}


@dataclass(frozen=True)
class Submission:
    """Everything that Kubeflow is told; nothing of it is secret.

    images: ``step`` and ``ray``; caching: whether Kubeflow may answer a step from its own cache
    secret_keys: of the Secret that ``store_secret`` names: of the access key and of the secret key
    cron: of a recurring run, in Kubeflow's six fields; empty for a single one
    """

    pipeline: str
    name: str
    experiment: str
    service_account: str
    images: dict[str, str]
    secret_keys: tuple[str, str]
    caching: bool
    cron: str
    arguments: dict[str, Any]

    def of(self, request: Request) -> Submission:
        """The same, for a request whose cells and weights are where the cluster finds them."""
        recipes = [recipe.to_yaml() for recipe in request.recipes]
        return replace(self, arguments={**self.arguments, "source": request.source, "recipes": recipes})

    def pinned(self) -> Submission:
        """The same with each image by its digest; UserError where a registry does not tell it."""
        images = {name: pinned(image) for name, image in self.images.items()}
        cluster = {**self.arguments["cluster"], "image": images["ray"]}
        return replace(self, images=images, caching=True, arguments={**self.arguments, "cluster": cluster})


def store_address() -> StoreAddress | None:
    """The store that the environment names; None where it names none. Reaches out to nobody."""
    named = any(os.environ.get(name) for name in ("AWS_ENDPOINT_URL", *CREDENTIALS))
    return open_store().address if named else None


def submission(
    store: StoreAddress | None,
    *,
    request: Request,
    options: ClusterOptions,
    run_id: str,
    experiment: str,
    service_account: str,
    repository: str,
    store_endpoint: str | None,
    cron: str,
    parameters: list[str],
) -> Submission:
    """What is sent for a request; images by their tags, and Kubeflow's cache switched off, until they are pinned.

    store:    as it is reached from here; None where that is not known, and the pipeline's own defaults hold
    request:  its source and recipes as they are told to the steps; :meth:`Submission.of` tells others
    repository: ``REGISTRY/NAME`` or ``REGISTRY/NAME:TAG``, under which ``step`` and ``ray`` lie
    store_endpoint: as the cluster reaches it; None for the one from here, or where that is this machine the pipeline's own
    parameters: ``KEY=VALUE`` of the pipeline, which win
    Raises UserError for what does not fit together.
    """
    recipes = [recipe.to_yaml() for recipe in request.recipes]
    pipeline, arguments = pipeline_of(
        request, request.source, recipes, "" if cron else run_id, store or StoreAddress(bucket="unknown")
    )
    if store is None:
        arguments = {key: value for key, value in arguments.items() if not key.startswith("store_")}
    elif store_endpoint is None and store.endpoint and urlsplit(store.endpoint).hostname in LOOPBACK:
        del arguments["store_endpoint"]
    if store_endpoint is not None:
        arguments["store_endpoint"] = store_endpoint
    images = _images(repository)
    if "image" in options.model_fields_set:
        images["ray"] = options.image
    cluster = options.model_dump(mode="json", exclude_unset=True, exclude={"secret", "image"})
    arguments |= {
        "engine": "ray" if options.address else "rayjob",
        "cluster": {**cluster, "image": images["ray"]},
        "store_secret": options.secret or NO_SECRET,
    }
    return Submission(
        pipeline=pipeline,
        name=run_id or experiment,
        experiment=experiment,
        service_account=service_account,
        images=images,
        secret_keys=(options.access_key, options.secret_key),
        caching=False,
        cron=_six_fields(cron),
        arguments={**arguments, **_parameters(pipeline, parameters)},
    )


def _images(repository: str) -> dict[str, str]:
    if "@" in repository:
        raise UserError(f"--image {repository}: names where the images step and ray lie, for example REGISTRY/hep2flow")
    head, slash, last = repository.rpartition("/")
    name, _, tag = last.partition(":")
    return {kind: f"{head}{slash}{name}/{kind}:{tag or __version__}" for kind in ("step", "ray")}


def _six_fields(cron: str) -> str:
    """Kubeflow's form begins with the second."""
    fields = cron.split()
    if fields and len(fields) not in (5, 6):
        raise UserError(f"--cron {cron!r}: has five fields, or six with the second first, for example '0 3 * * *'")
    return " ".join(["0", *fields] if len(fields) == 5 else fields)


def _parameters(pipeline: str, given: list[str]) -> dict[str, Any]:
    known = parameters_of(pipeline) if given else {}
    read: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--param {text}: write KEY=VALUE")
        if key not in known:
            raise UserError(f"--param {key}: {pipeline} has no such parameter; it has {', '.join(sorted(known))}")
        try:
            read[key] = value if known[key] == "STRING" else yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"--param {key}: {value!r} is no YAML ({str(error).splitlines()[0]})") from error
        fits = isinstance(read[key], KINDS[known[key]]) and not (
            known[key] != "BOOLEAN" and isinstance(read[key], bool)
        )
        if not fits:
            raise UserError(f"--param {key}: is a {known[key].lower().replace('_', ' ')}, not {value!r}")
    return read


def parameters_of(pipeline: str) -> Mapping[str, str]:
    """Kind of each parameter of a pipeline."""
    from importlib import import_module

    spec = getattr(import_module(f"hep2flow.pipelines.{pipeline}"), pipeline).pipeline_spec
    from kfp.pipeline_spec.pipeline_spec_pb2 import ParameterType

    inputs = spec.root.input_definitions.parameters
    return {name: ParameterType.ParameterTypeEnum.Name(inputs[name].parameter_type) for name in inputs}
