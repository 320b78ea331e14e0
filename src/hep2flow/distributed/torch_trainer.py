"""Several workers, or one, as one Ray Train job."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

from hep2flow.distributed.capacity import per_worker
from hep2flow.recipe import Resources


class _Trainer(TorchTrainer):  # type: ignore[misc] # Ray's classes are untyped
    """Without Ray Data's part: cells come from the store, and its actor and imports cost seconds at every start.

    On a cluster of this run's own also without the watcher that frees a dead controller's workers: it asks Ray's dashboard,
    which is not there, and every training would wait 12 s at its end for the answer.
    """

    def _create_default_callbacks(self) -> list[object]:
        own = not os.environ.get("RAY_ADDRESS")
        unwanted = (DatasetsCallback, PlacementGroupCleanerCallback) if own else DatasetsCallback
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, unwanted)]


def together(
    work: Callable[[dict[str, Any]], Any],
    config: dict[str, Any],
    name: str,
    workers: int,
    resources: Resources,
    callbacks: Sequence[Any] = (),
) -> Any:
    """Run ``work(config)`` on each worker, once, as ranks of one torch.distributed group; returns what rank 0 returned.

    Raises Ray's TrainingFailedError where one of them failed: who calls decides whether to start again.
    """
    with tempfile.TemporaryDirectory(prefix="hep2flow-train-") as scratch:
        result = _Trainer(
            work,
            train_loop_config=config,
            scaling_config=ScalingConfig(
                num_workers=workers,
                use_gpu=resources.gpus_per_worker > 0,
                resources_per_worker=per_worker(resources),
            ),
            # Ray's storage holds nothing that is needed tomorrow: results go to our own store.
            run_config=RunConfig(
                name=name,
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=0, max_preemption_failures=0, controller_failure_limit=0),
                callbacks=list(callbacks),
            ),
        ).fit()
    return result.return_value
