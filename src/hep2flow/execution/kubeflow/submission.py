"""What is sent to Kubeflow for a run on a cluster: a pipeline, its images and its arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import yaml
from pydantic import ValidationError

from hep2flow import __version__
from hep2flow.errors import UserError
from hep2flow.execution.job_spec import Trials
from hep2flow.execution.kubeflow.compile import pipeline_of
from hep2flow.execution.kubernetes.cluster_options import NO_SECRET, ClusterOptions
from hep2flow.execution.kubernetes.image_digests import pinned
from hep2flow.execution.run_request import Request, Sweep, arguments_of
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


# Parameters of a pipeline that are a part of what its run is asked to do.
ASKED: dict[str, str] = {
    "seeds": "NUMBER_INTEGER",
    "tune": "BOOLEAN",
    "trials": "NUMBER_INTEGER",
    "hours": "NUMBER_DOUBLE",
    "concurrency": "NUMBER_INTEGER",
    "earlier": "STRING",
    "judge": "NUMBER_INTEGER",
}
# Of a reproduction that sweeps too, where nobody says how many.
DEFAULT_TRIALS = 32
# What an option of the command says already.
FROM_OPTIONS = ("source", "format", "recipes", "profile", "run_id")
# With more, Kubeflow's objects become too large: then a loop trains them.
UNROLLED_MODELS = 16


@dataclass(frozen=True)
class Submission:
    """Everything that Kubeflow is told; nothing of it is secret.

    Attributes:
        request: What the run is asked to do, its source and recipes as the steps find them.
        name: Of the run.
        run_id: Of the run in the store; empty where each run of a recurring one names itself.
        experiment: Kubeflow's folder of runs.
        service_account: Of the steps.
        images: ``step`` and ``ray``.
        secret_keys: Of the Secret that ``store_secret`` names: of the access key and of the secret key.
        cron: Of a recurring run, in Kubeflow's six fields; empty for a single one.
        arguments: Of the pipeline.
    """

    request: Request
    name: str
    run_id: str
    experiment: str
    service_account: str
    images: dict[str, str]
    secret_keys: tuple[str, str]
    cron: str
    arguments: dict[str, Any]

    @property
    def looped(self) -> bool:
        """Whether the pipeline learns from its first task what it trains: its runs are many, or its models."""
        return bool(self.cron) or len(self.request.models) > UNROLLED_MODELS

    def of(self, request: Request) -> Submission:
        """The same, for a request whose cells and weights are where the cluster finds them."""
        return replace(self, request=request, arguments={**self.arguments, "source": request.source})

    def with_recipes(self, references: list[str]) -> Submission:
        """The same with what a looped pipeline is told beside: its recipes, by their URIs, and what is done with them.

        Raises:
            UserError: A loop trains one model of each recipe that is swept, and none beside.
        """
        request, sweep = self.request, self.request.sweep
        beside: dict[str, Any] = {"recipes": references, "profile": request.profile}
        if sweep is None:
            beside["seeds"] = request.seeds
        elif sweep.beside or sweep.finals != 1:
            raise UserError(
                f"a recurring sweep, and one of more than {UNROLLED_MODELS} models, trains one model of each recipe and no "
                "recipe as it is; leave out --seeds and tune, or submit fewer recipes"
            )
        else:
            fields = ("trials", "hours", "concurrency", "earlier", "judge")
            beside |= {name: getattr(sweep, name) for name in fields}
        return replace(self, arguments={**self.arguments, **beside})

    def pinned(self) -> Submission:
        """The same with each image by its digest; UserError where a registry does not tell it."""
        images = {name: pinned(image) for name, image in self.images.items()}
        cluster = {**self.arguments["cluster"], "image": images["ray"]}
        return replace(self, images=images, arguments={**self.arguments, "cluster": cluster})


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
    """What is sent for a request; images by their tags until they are pinned.

    Args:
        store: As it is reached from here; None where that is not known, and the pipeline's own defaults hold.
        request: Its source and recipes as they are told to the steps; :meth:`Submission.of` tells others.
        options: What the cluster is.
        run_id: Name of the run.
        experiment: Kubeflow's folder of runs.
        service_account: Of the steps.
        repository: ``REGISTRY/NAME`` or ``REGISTRY/NAME:TAG``, under which ``step`` and ``ray`` lie.
        store_endpoint: As the cluster reaches it; None for the one from here, or where that is this machine the
            pipeline's own.
        cron: Times of a recurring run; empty for a single one.
        parameters: ``KEY=VALUE`` of the pipeline, which win.

    Raises:
        UserError: Something does not fit together.
    """
    given = _parameters(request.pipeline, parameters)
    request = _asked(request, {name: given.pop(name) for name in ASKED if name in given})
    named = "" if cron else run_id
    arguments = arguments_of(request, request.source, named, store or StoreAddress(bucket="unknown"))
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
        request=request,
        name=run_id or experiment,
        run_id=named,
        experiment=experiment,
        service_account=service_account,
        images=images,
        secret_keys=(options.access_key, options.secret_key),
        cron=_six_fields(cron),
        arguments={**arguments, **given},
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


def _asked(request: Request, given: dict[str, Any]) -> Request:
    """The request with what parameters of the pipeline say of it."""
    tune, sweep = given.pop("tune", False), request.sweep
    if request.pipeline == "reproduce":
        seeds = given.pop("seeds", request.seeds)
        request = replace(request, seeds=seeds)
        if tune and sweep is None:
            sweep = Sweep(trials=DEFAULT_TRIALS, finals=seeds, beside=True)
        if sweep is None:
            if given:
                raise UserError(f"--param {next(iter(given))}: is of a sweep; add --param tune=true")
            return request
    assert sweep is not None, "what is no reproduction sweeps"
    if "seeds" in given:
        given["finals"] = given.pop("seeds")
    sweep = replace(sweep, **given)
    try:
        Trials(**{name: getattr(sweep, name) for name in Trials.model_fields})
    except ValidationError as error:
        fault = error.errors()[0]
        raise UserError(f"--param {fault['loc'][0]}: {fault['msg']}, not {fault['input']!r}") from error
    return replace(request, sweep=sweep)


def _parameters(pipeline: str, given: list[str]) -> dict[str, Any]:
    known = {**parameters_of(pipeline), **ASKED} if given else {}
    for name in FROM_OPTIONS:
        known.pop(name, None)
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
    spec = pipeline_of(pipeline).pipeline_spec
    from kfp.pipeline_spec.pipeline_spec_pb2 import ParameterType

    inputs = spec.root.input_definitions.parameters
    return {name: ParameterType.ParameterTypeEnum.Name(inputs[name].parameter_type) for name in inputs}
