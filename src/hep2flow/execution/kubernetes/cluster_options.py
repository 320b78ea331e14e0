"""Cluster settings that are not in the recipe: image, Secret, queue, node selection, deadlines."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from hep2flow import __version__
from hep2flow.errors import UserError

Name = Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$")]
Namespace = Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$")]
SecretKey = Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]{1,253}$")]
_PREFIX, _WORD = r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?", r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
LabelValue = Annotated[str, Field(pattern=f"^({_WORD})?$")]
LabelKey = Annotated[str, Field(pattern=f"^{_PREFIX}{_WORD}$", max_length=253)]
Image = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]*$", max_length=512)]
# KFP accepts no empty Secret name; this stands for none, and no Secret may have it.
NO_SECRET = "none"  # noqa: S105 - no password
Seconds = Annotated[int, Field(ge=1, le=2**31 - 1)]


class Toleration(BaseModel, extra="forbid", frozen=True):
    """A toleration of Ray's workers, as Kubernetes has it; an empty effect stands for all."""

    key: LabelKey
    operator: Literal["Exists", "Equal"] = "Exists"
    value: LabelValue = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""


class ClusterOptions(BaseModel, extra="forbid", frozen=True):
    """The pipelines' parameter ``cluster``; an empty value stands for none."""

    namespace: Namespace = ""  # of the RayJobs; empty for the step's own
    image: Image = f"hep2flow/ray:{__version__}"  # of Ray's pods, with hep2flow in it; a digest rather than a tag
    pull_secret: Name = ""  # Secret to pull the image with
    # With the object store's credentials; empty where the service account has access itself. In a pipeline its parameter
    # ``store_secret`` names it, for Ray's pods and the steps alike.
    secret: Name = "mlpipeline-minio-artifact"  # noqa: S105 - the name of a Secret
    access_key: SecretKey = "accesskey"  # key of the Secret
    secret_key: SecretKey = "secretkey"  # noqa: S105 - likewise no secret, but its name
    service_account: Name = "hep2flow-ray"  # of Ray's pods
    user: int = Field(default=1000, ge=1, le=2**31 - 1)  # numeric id that the pods run as
    queue: LabelValue = ""  # Kueue's LocalQueue
    priority: LabelValue = ""  # Kueue's WorkloadPriorityClass; without a queue the pods' PriorityClass
    sweep_priority: LabelValue = ""  # of sweeps, which then leave room for the rest; empty for ``priority``
    node_selector: dict[LabelKey, LabelValue] = {}  # of workers with GPUs
    tolerations: tuple[Toleration, ...] = (Toleration(key="nvidia.com/gpu"),)  # of workers with GPUs
    spot: LabelKey | Literal[""] = ""  # key of the taint of spot nodes, which workers then may run on
    head_cpus: int = Field(default=1, ge=1)  # of the head, which trains nothing
    head_memory: int = Field(default=4, ge=1)  # of the head, in GiB
    scratch: int = Field(default=20, ge=1)  # GiB of disk for ``/tmp`` of each pod
    waiting_seconds: Seconds = 3600  # until the job runs, nodes and images included; then it is given up
    deadline_seconds: Seconds = 24 * 3600  # of the complete job
    retries: int = Field(default=2, ge=0, le=100)  # new Ray clusters after a lost head; the training then resumes
    ttl_seconds: int = Field(default=300, ge=0, le=2**31 - 1)  # how long a finished job's pods stay
    trials_at_once: int = Field(default=4, ge=1)  # of a sweep that names no concurrency itself
    ray_token: bool = False  # whether Ray requires a token, as with KubeRay's ``authOptions``
    # Of an existing Ray cluster, for engine ``ray`` alone: HOST:PORT or ray://HOST:PORT.
    address: Annotated[str, Field(pattern=r"^((ray://)?[A-Za-z0-9._-]+:[0-9]+)?$")] = ""

    def for_stage(self, stage: str) -> "ClusterOptions":
        """The options with ``priority`` as a stage has it."""
        return self.model_copy(update={"priority": self.sweep_priority or self.priority}) if stage == "tune" else self


def parse_engine(engine: str, cluster: dict[str, Any]) -> ClusterOptions:
    """Validate the pipelines' parameters ``engine`` and ``cluster``; UserError naming what is wrong."""
    if engine not in ("local", "ray", "rayjob"):
        known = "local (in the step itself), ray (on the cluster at cluster.address) or rayjob"
        raise UserError(f"engine: {known}, not {engine!r}")
    options = parse_cluster_options(cluster)
    if (engine == "ray") != bool(options.address):
        raise UserError("cluster.address: goes with engine ray, and with no other")
    return options


def with_secret(cluster: dict[str, Any], secret: str) -> dict[str, Any]:
    """Add the parameter ``store_secret`` to the parameter ``cluster``; UserError where both name a Secret."""
    if "secret" in cluster:
        raise UserError("cluster.secret: in a pipeline the parameter store_secret says it; leave it out here")
    return {**cluster, "secret": "" if secret == NO_SECRET else secret}


def parse_cluster_options(given: dict[str, Any]) -> ClusterOptions:
    """Validate the pipelines' parameter ``cluster``; UserError naming the key."""
    try:
        return ClusterOptions.model_validate(given)
    except ValidationError as error:
        faults = [(".".join(map(str, item["loc"])), str(item["msg"])) for item in error.errors()]
        text = "; ".join(f"cluster.{key}: {what.removeprefix('Value error, ')}" for key, what in faults)
        raise UserError(f"{text} (its keys: {', '.join(ClusterOptions.model_fields)})") from error
