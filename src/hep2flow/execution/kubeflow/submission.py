"""What is submitted to Kubeflow for a run on a cluster: a pipeline, its images and its arguments."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import yaml

from hep2flow.errors import UserError
from hep2flow.execution.kubeflow.compile import load_pipeline, repository_images
from hep2flow.execution.kubeflow.image_digests import pin_image
from hep2flow.execution.kubernetes.cluster_options import NO_SECRET, ClusterOptions
from hep2flow.execution.run_request import RunRequest, pipeline_arguments
from hep2flow.search.settings import SweepSettings, parse_sweep_settings
from hep2flow.store.address import StoreAddress
from hep2flow.store.open_store import CREDENTIALS, open_store

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
# Python types of a pipeline parameter of each kind, as YAML reads it.
INTEGER, DOUBLE = "NUMBER_INTEGER", "NUMBER_DOUBLE"
TYPES: dict[str, tuple[type, ...]] = {"STRING": (str,), INTEGER: (int,), DOUBLE: (int, float)}
TYPES |= {"BOOLEAN": (bool,), "LIST": (list,), "STRUCT": (dict,)}
# Parameters of a pipeline that change what its run is asked to do.
REQUEST_PARAMETERS = {"seeds": INTEGER, "tune": "BOOLEAN", "trials": INTEGER, "hours": DOUBLE, "concurrency": INTEGER}
REQUEST_PARAMETERS |= {"earlier": "STRING", "judge": INTEGER}
DEFAULT_TRIALS = 32  # of a reproduction with tune=true
# Parameters that an option of the command sets already.
OPTION_PARAMETERS = ("source", "format", "recipes", "profile", "run_id")
# With more, Kubeflow's objects become too large: then a loop trains them.
UNROLLED_MODELS = 16


@dataclass(frozen=True)
class SubmitOptions:
    """Options of ``hep2flow submit`` beside the request and the cluster."""

    experiment: str
    service_account: str
    repository: str  # ``REGISTRY/NAME`` or ``REGISTRY/NAME:TAG``, of the images ``step`` and ``ray``
    # As the cluster reaches the store; None for the one from here, or where that is this machine the pipeline's own.
    store_endpoint: str | None
    cron: str  # times of a recurring run; empty for a single one
    parameters: list[str]  # ``KEY=VALUE`` of the pipeline, which override everything else


@dataclass(frozen=True)
class Submission:
    """Everything that is sent to Kubeflow; nothing of it is secret."""

    request: RunRequest  # of the run; its source and recipes as the steps find them
    name: str
    run_id: str  # of the run in the store; empty where each run of a recurring one names itself
    experiment: str  # Kubeflow's folder of runs
    service_account: str  # of the steps
    images: dict[str, str]  # ``step`` and ``ray``
    secret_keys: tuple[str, str]  # of the access key and of the secret key, in the Secret that ``store_secret`` names
    cron: str  # of a recurring run, in Kubeflow's six fields; empty for a single one
    arguments: dict[str, Any]

    @property
    def looped(self) -> bool:
        """Whether the pipeline learns its models from its first task: a recurring run, or one of many models."""
        return bool(self.cron) or len(self.request.models) > UNROLLED_MODELS

    def with_request(self, request: RunRequest) -> "Submission":
        """The same for a request whose cells and weights are in the cluster's store."""
        return replace(self, request=request, arguments={**self.arguments, "source": request.source})

    def with_recipes(self, references: list[str]) -> "Submission":
        """The same with the arguments of a looped pipeline: the URIs of its recipes, and what is done with them.

        Raises:
            UserError: A loop trains one model of each recipe that is swept, and no recipe as it is.
        """
        request, sweep = self.request, self.request.sweep
        added: dict[str, Any] = {"recipes": references, "profile": request.profile}
        if sweep is None:
            added["seeds"] = request.seeds
        elif sweep.beside or sweep.finals != 1:
            which = f"a recurring sweep, and one of more than {UNROLLED_MODELS} models"
            what = f"{which}, trains one model of each recipe and no recipe as it is"
            raise UserError(f"{what}; leave out --seeds and tune, or submit fewer recipes")
        else:
            added |= sweep.model_dump(exclude={"finals", "beside"})
        return replace(self, arguments={**self.arguments, **added})

    def with_digests(self) -> "Submission":
        """The same with each image by its digest; UserError where a registry gives none."""
        images = {name: pin_image(image) for name, image in self.images.items()}
        cluster = {**self.arguments["cluster"], "image": images["ray"]}
        return replace(self, images=images, arguments={**self.arguments, "cluster": cluster})


def store_address() -> StoreAddress | None:
    """The store that the environment names, without a connection to it; None where it names none."""
    named = any(os.environ.get(name) for name in ("AWS_ENDPOINT_URL", *CREDENTIALS))
    return open_store().address if named else None


def build_submission(
    store: StoreAddress | None, request: RunRequest, cluster: ClusterOptions, run_id: str, options: SubmitOptions
) -> Submission:
    """The submission of a request, with images by their tags.

    ``store`` is as it is reached from here; None where that is not known, and the pipeline's own defaults hold.

    Raises:
        UserError: Something does not fit together.
    """
    given = _parse_parameters(request.pipeline, options.parameters)
    changes = {name: given.pop(name) for name in REQUEST_PARAMETERS if name in given}
    request = _change_request(request, changes)
    named = "" if options.cron else run_id
    arguments = pipeline_arguments(request, request.source, named, store or StoreAddress(bucket="unknown"))
    if store is None:
        arguments = {key: value for key, value in arguments.items() if not key.startswith("store_")}
    elif options.store_endpoint is None and store.endpoint and urlsplit(store.endpoint).hostname in LOOPBACK:
        del arguments["store_endpoint"]
    if options.store_endpoint is not None:
        arguments["store_endpoint"] = options.store_endpoint
    images = repository_images(options.repository) | (
        {"ray": cluster.image} if "image" in cluster.model_fields_set else {}
    )
    settings = cluster.model_dump(mode="json", exclude_unset=True, exclude={"secret", "image"})
    arguments |= {
        "engine": "ray" if cluster.address else "rayjob",
        "cluster": {**settings, "image": images["ray"]},
        "store_secret": cluster.secret or NO_SECRET,
    }
    return Submission(
        request=request,
        name=run_id or options.experiment,
        run_id=named,
        experiment=options.experiment,
        service_account=options.service_account,
        images=images,
        secret_keys=(cluster.access_key, cluster.secret_key),
        cron=_six_fields(options.cron),
        arguments={**arguments, **given},
    )


def _six_fields(cron: str) -> str:
    """Kubeflow's cron starts with the second."""
    fields = cron.split()
    if fields and len(fields) not in (5, 6):
        raise UserError(f"--cron {cron!r}: has five fields, or six with the second first, for example '0 3 * * *'")
    return " ".join(["0", *fields] if len(fields) == 5 else fields)


def _change_request(request: RunRequest, changes: dict[str, Any]) -> RunRequest:
    """The request as parameters of the pipeline change it."""
    tune, sweep = changes.pop("tune", False), request.sweep
    if request.pipeline == "reproduce":
        request = replace(request, seeds=changes.pop("seeds", request.seeds))
        if tune and sweep is None:
            sweep = SweepSettings(trials=DEFAULT_TRIALS, finals=request.seeds, beside=True)
        if sweep is None:
            if changes:
                raise UserError(f"--param {next(iter(changes))}: is of a sweep; add --param tune=true")
            return request
    assert sweep is not None, "a pipeline that is no reproduction sweeps"
    if "seeds" in changes:
        changes["finals"] = changes.pop("seeds")
    return replace(request, sweep=parse_sweep_settings({**sweep.model_dump(), **changes}, "--param "))


def _parse_parameters(pipeline: str, given: list[str]) -> dict[str, Any]:
    offered = {**parameters_of(pipeline), **REQUEST_PARAMETERS} if given else {}
    known = {name: kind for name, kind in offered.items() if name not in OPTION_PARAMETERS}
    values: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--param {text}: write KEY=VALUE")
        if key not in known:
            raise UserError(f"--param {key}: {pipeline} has no such parameter; it has {', '.join(sorted(known))}")
        try:
            values[key] = value if known[key] == "STRING" else yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"--param {key}: {value!r} is no YAML ({str(error).splitlines()[0]})") from error
        wrong_bool = isinstance(values[key], bool) and known[key] != "BOOLEAN"  # a bool is an int to Python
        if wrong_bool or not isinstance(values[key], TYPES[known[key]]):
            raise UserError(f"--param {key}: is a {known[key].lower().replace('_', ' ')}, not {value!r}")
    return values


def parameters_of(pipeline: str) -> Mapping[str, str]:
    """Kind of each parameter of a pipeline."""
    spec = load_pipeline(pipeline).pipeline_spec
    from kfp.pipeline_spec.pipeline_spec_pb2 import ParameterType

    inputs = spec.root.input_definitions.parameters
    return {name: ParameterType.ParameterTypeEnum.Name(inputs[name].parameter_type) for name in inputs}
