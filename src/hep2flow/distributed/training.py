"""Ray Train around the training loop: start it, and tell what went wrong in it as the worker told it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from hep2flow.distributed.worker import TrainingSpec, forget_refusal, refusal, work
from hep2flow.errors import UserError
from hep2flow.store.s3 import open_store

MAX_FAILURES = 3  # of workers; each goes on from the last epoch


def run_training(spec: TrainingSpec) -> None:
    """Train on the connected Ray cluster; on return the training is published at ``spec.prefix``.

    Raises UserError where the cluster lacks what the recipe asks for, or as the worker raised it.
    """
    resources = spec.recipe.resources
    _check_cluster(resources.cpus_per_worker, resources.gpus_per_worker)
    with tempfile.TemporaryDirectory(prefix="hep2flow-train-") as scratch:
        trainer = TorchTrainer(
            work,
            train_loop_config=spec.model_dump(mode="json"),
            scaling_config=ScalingConfig(
                num_workers=resources.workers,
                use_gpu=resources.gpus_per_worker > 0,
                resources_per_worker={
                    "CPU": resources.cpus_per_worker,
                    **({"GPU": resources.gpus_per_worker} if resources.gpus_per_worker else {}),
                },
            ),
            # Ray's storage holds nothing that is needed tomorrow: results go to our own store.
            run_config=RunConfig(
                name=Path(spec.prefix).name,
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
            ),
        )
        store = open_store(spec.store)
        forget_refusal(store, spec.prefix)
        try:
            trainer.fit()
        except ray.train.TrainingFailedError:
            if refusal(store, spec.prefix) is None:
                raise
        refused = refusal(store, spec.prefix)
        if refused is not None:
            forget_refusal(store, spec.prefix)
            raise UserError(refused)


def _check_cluster(cpus: int, gpus: int) -> None:
    have = ray.cluster_resources()
    for kind, want, key in (("CPU", cpus, "resources.cpus_per_worker"), ("GPU", gpus, "resources.gpus_per_worker")):
        if want > have.get(kind, 0):
            raise UserError(
                f"{key}: the recipe asks for {want} {kind}s on a worker, the Ray cluster has {have.get(kind, 0):g}; "
                f"give it more, or --set {key}={int(have.get(kind, 0))}"
            )
