"""What a Kubernetes cluster is and how jobs are admitted there: all that a training does not ask for itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hep2flow import __version__
from hep2flow.errors import UserError

Name = Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$")]
Namespace = Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$")]
SecretKey = Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]{1,253}$")]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$")]
LabelKey = Annotated[
    str,
    Field(
        pattern=r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$",
        max_length=253,
    ),
]
Image = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]*$", max_length=512)]
Engine = Literal["local", "ray", "rayjob"]
# Kubeflow takes no empty name: this stands for none, and no Secret may have it.
NO_SECRET = "none"  # noqa: S105 - no password
Seconds = Annotated[int, Field(ge=1, le=2**31 - 1)]


class Toleration(BaseModel):
    """A taint that workers bear: of this key, and with ``Equal`` of this value; an empty effect stands for all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: LabelKey
    operator: Literal["Exists", "Equal"] = "Exists"
    value: LabelValue = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""


class ClusterOptions(BaseModel):
    """The pipelines' parameter ``cluster``; empty stands for what is not there.

    namespace:          of the RayJobs; empty: the step's own
    image:              of Ray's pods, with hep2flow in it; a digest rather than a tag
    pull_secret:        Secret to pull it with
    secret:             Secret with the object store's credentials; empty where the service account has the right itself.
                        In a pipeline its parameter ``store_secret`` says it, for Ray's pods and the steps alike
    access_key, secret_key: the Secret's keys
    service_account:    of Ray's pods
    user:               numeric id that they run as
    queue:              Kueue's LocalQueue
    priority:           Kueue's WorkloadPriorityClass; without a queue the pods' PriorityClass
    node_selector, tolerations: of workers that have GPUs
    spot:               key of the taint of spot nodes, which workers then may run on
    head_cpus, head_memory: of the head, which trains nothing; memory in GiB
    scratch:            GiB of disk for ``/tmp`` of each pod
    waiting_seconds:    until the job runs, nodes and images included; then it is given up
    deadline_seconds:   of the whole job
    retries:            new Ray clusters after a lost head; the training goes on from its last state
    ttl_seconds:        that a finished job's pods stay
    trials_at_once:     of a sweep that names no concurrency itself
    ray_token:          Ray asks for a token, as KubeRay's ``authOptions`` has it
    address:            of a Ray cluster that is there already, for engine ``ray`` alone: HOST:PORT or ray://HOST:PORT
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    namespace: Namespace = ""
    image: Image = f"hep2flow/ray:{__version__}"
    pull_secret: Name = ""
    secret: Name = "mlpipeline-minio-artifact"  # noqa: S105 - the name of a Secret
    access_key: SecretKey = "accesskey"
    secret_key: SecretKey = "secretkey"  # noqa: S105 - the name of a key
    service_account: Name = "hep2flow-ray"
    user: int = Field(default=1000, ge=1, le=2**31 - 1)
    queue: LabelValue = ""
    priority: LabelValue = ""
    node_selector: dict[LabelKey, LabelValue] = {}
    tolerations: tuple[Toleration, ...] = (Toleration(key="nvidia.com/gpu"),)
    spot: LabelKey | Literal[""] = ""
    head_cpus: int = Field(default=1, ge=1)
    head_memory: int = Field(default=4, ge=1)
    scratch: int = Field(default=20, ge=1)
    waiting_seconds: Seconds = 3600
    deadline_seconds: Seconds = 24 * 3600
    retries: int = Field(default=2, ge=0, le=100)
    ttl_seconds: int = Field(default=300, ge=0, le=2**31 - 1)
    trials_at_once: int = Field(default=4, ge=1)
    ray_token: bool = False
    address: Annotated[str, Field(pattern=r"^((ray://)?[A-Za-z0-9._-]+:[0-9]+)?$")] = ""


def checked_engine(engine: str, cluster: dict[str, Any]) -> tuple[Engine, ClusterOptions]:
    """The pipelines' parameters of these names; UserError naming what is wrong in them."""
    if engine not in ("local", "ray", "rayjob"):
        raise UserError(
            f"engine: local (in the step itself), ray (on the cluster at cluster.address) or rayjob, not {engine!r}"
        )
    options = cluster_options(cluster)
    if (engine == "ray") != bool(options.address):
        raise UserError("cluster.address: goes with engine ray, and with no other")
    return cast("Engine", engine), options


def with_secret(cluster: dict[str, Any], secret: str) -> dict[str, Any]:
    """The parameter ``cluster`` with the parameter ``store_secret`` in it; UserError where both name a Secret."""
    if "secret" in cluster:
        raise UserError("cluster.secret: in a pipeline the parameter store_secret says it; leave it out here")
    return {**cluster, "secret": "" if secret == NO_SECRET else secret}


def cluster_options(given: dict[str, Any]) -> ClusterOptions:
    """The pipelines' parameter ``cluster``; UserError naming the key."""
    try:
        return ClusterOptions.model_validate(given)
    except ValidationError as error:
        faults = [(".".join(map(str, item["loc"])), str(item["msg"])) for item in error.errors()]
        raise UserError(
            "; ".join(f"cluster.{key}: {what.removeprefix('Value error, ')}" for key, what in faults)
            + f" (its keys: {', '.join(ClusterOptions.model_fields)})"
        ) from error
