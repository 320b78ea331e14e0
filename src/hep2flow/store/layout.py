"""Where things lie in the store: every key of the data contract, and the ids of runs. Pure functions."""

import hashlib
import re
import secrets
from datetime import datetime, timezone
from functools import partial

from hep2flow.errors import UserError

RUN_ID_LENGTH = 40
DATASETS = "datasets"
RUNS = "runs"
MANIFEST = "manifest.json"
WEIGHTS = "weights"
MIRRORS = f"{WEIGHTS}/hub"

# Of the stages whose output lies at their key.
OUTPUT_FOLDERS = {"train": "trainings", "tune": "sweeps", "evaluate": "evaluations", "external": "evaluations"}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_RUN_ID = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def _check(pattern: re.Pattern[str], error: str, text: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(f"{error}: {text!r}")
    return text


_name = partial(_check, _NAME, "not a name for the store")
# No hyphen: `{stage}-{model}` has one reading only.
_stage = partial(_check, re.compile(r"[a-z]+"), "not the name of a stage")
_digest = partial(_check, re.compile(r"[0-9a-f]{32}"), "not 32 hexadecimal digits")


def dataset_prefix(name: str, digest: str) -> str:
    """``datasets/{name}/{digest}``."""
    return f"{DATASETS}/{_name(name)}/{_digest(digest)}"


def split_key(digest: str) -> str:
    """``splits/{digest}.parquet``."""
    return f"splits/{_digest(digest)}.parquet"


def cache_key(stage: str, key: str) -> str:
    """``cache/{stage}/{key}.json``."""
    return f"cache/{_stage(stage)}/{_digest(key)}.json"


def output_prefix(stage: str, key: str) -> str:
    """``trainings/{key}``, ``sweeps/{key}`` or ``evaluations/{key}``: where the output of a stage lies."""
    return f"{OUTPUT_FOLDERS[stage]}/{_digest(key)}"


def recipe_key(digest: str) -> str:
    """``recipes/{digest}.yaml``: a complete recipe, for the runs of a recurring one."""
    return f"recipes/{_digest(digest)}.yaml"


def run_prefix(run_id: str) -> str:
    """``runs/{run_id}``."""
    return f"{RUNS}/{valid_run_id(run_id)}"


def run_record(run_id: str) -> str:
    """``runs/{run_id}/run.json``."""
    return f"{run_prefix(run_id)}/run.json"


def stages_prefix(run_id: str) -> str:
    """``runs/{run_id}/stages``."""
    return f"{run_prefix(run_id)}/stages"


def stage_record(run_id: str, stage: str, model: str | None = None) -> str:
    """``runs/{run_id}/stages/{stage}-{model}.json``; without ``-{model}`` for a stage that serves all models."""
    return f"{stages_prefix(run_id)}/{stage_name(stage, model)}.json"


def stage_name(stage: str, model: str | None = None) -> str:
    """``{stage}-{model}``, or ``{stage}`` for a stage that serves all models."""
    return _stage(stage) if model is None else f"{_stage(stage)}-{_name(model)}"


def spec_key(run_id: str, digest: str) -> str:
    """``runs/{run_id}/specs/{digest}.json``: what a job on a cluster runs."""
    return f"{run_prefix(run_id)}/specs/{_digest(digest)}.json"


def outcome_key(run_id: str, digest: str) -> str:
    """``runs/{run_id}/specs/{digest}-outcome.json``: how that job ended."""
    return f"{run_prefix(run_id)}/specs/{_digest(digest)}-outcome.json"


def log_key(run_id: str, job: str) -> str:
    """``runs/{run_id}/logs/{job}.log``: what a job on a cluster printed."""
    return f"{run_prefix(run_id)}/logs/{_name(job)}.log"


def report_prefix(run_id: str) -> str:
    """``runs/{run_id}/report``."""
    return f"{run_prefix(run_id)}/report"


def weights_file(sha256: str) -> str:
    """``weights/{digest}/model.safetensors``: initial weights by the start of their SHA-256."""
    return f"{WEIGHTS}/{_digest(sha256[:32])}/model.safetensors"


def mirror_entry(network: str) -> str:
    """``weights/hub/{network}.json``: which file holds the pre-trained weights of a timm network, by its full name.

    Raises:
        UserError: No network of timm's can have that name.
    """
    if not _NAME.fullmatch(network):
        form = "these have letters, digits, '.', '_' and '-' only, for example convnext_base.fb_in22k"
        raise UserError(f"model.network: {network!r} is no name of a timm network; {form}")
    return f"{MIRRORS}/{network}.json"


def valid_run_id(text: str) -> str:
    """Return the text if it can name Kubernetes objects (a DNS-1123 label of at most 40 characters), else UserError."""
    if len(text) > RUN_ID_LENGTH or not _RUN_ID.fullmatch(text):
        remedy = f"use at most {RUN_ID_LENGTH} characters of a-z, 0-9 and hyphen, with a letter or digit at both ends"
        raise UserError(f"run id {text!r}: not allowed; {remedy}")
    return text


def run_id_from_job(job_id: str) -> str:
    """Return the run id of a Kubeflow job: the job's own id where valid, else a readable part of it with a hash."""
    if not job_id:
        raise ValueError("a job id is never empty")
    if len(job_id) <= RUN_ID_LENGTH and _RUN_ID.fullmatch(job_id):
        return job_id
    readable = re.sub(r"[^a-z0-9]+", "-", job_id.lower()).strip("-")[:27].strip("-") or "job"
    return f"{readable}-{hashlib.sha256(job_id.encode()).hexdigest()[:12]}"


def new_run_id() -> str:
    """Make a run id of date, time (UTC) and a random end, for example ``20260131-174501-5f0c9a``: sorts by time."""
    return f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
