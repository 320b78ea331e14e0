"""Workers as one Ray Train job."""

import os
import tempfile
from collections.abc import Callable
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

from hep2flow.distributed.capacity import worker_resources
from hep2flow.recipe import Resources


class _Trainer(TorchTrainer):  # type: ignore[misc] # Ray's classes are untyped
    def _create_default_callbacks(self) -> list[object]:
        # Cells come from the store: Ray Data's actor and imports would cost seconds at every start. The cleaner frees a
        # dead controller's workers by asking Ray's dashboard, which the local cluster does not run: every training would
        # wait 12 s at its end for the answer.
        cleaner = () if os.environ.get("RAY_ADDRESS") else (PlacementGroupCleanerCallback,)
        unused = (DatasetsCallback, *cleaner)
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, unused)]


def fit_on_workers(
    loop: Callable[..., Any], config: dict[str, Any], name: str, workers: int, resources: Resources, *callbacks: Any
) -> Any:
    """Run ``loop(config)`` once on each worker, as ranks of one torch.distributed group; return rank 0's result.

    Raises:
        TrainingFailedError: Ray's, when a worker failed; the caller decides whether to restart.
    """
    each, on_gpu = worker_resources(resources), resources.gpus_per_worker > 0
    scale = ScalingConfig(num_workers=workers, use_gpu=on_gpu, resources_per_worker=each)
    # No restarts by Ray: it would neither wait for the state's upload nor change the number of workers.
    failures = FailureConfig(max_failures=0, max_preemption_failures=0, controller_failure_limit=0)
    # Ray insists on a storage folder; checkpoints and results go to the object store instead.
    with tempfile.TemporaryDirectory(prefix="hep2flow-train-") as scratch:
        run = RunConfig(name=name, storage_path=scratch, failure_config=failures, callbacks=list(callbacks))
        return _Trainer(loop, train_loop_config=config, scaling_config=scale, run_config=run).fit().return_value
