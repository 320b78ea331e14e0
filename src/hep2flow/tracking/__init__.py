"""A training's history and parameters for experiment trackers: TensorBoard and MLflow."""

from collections.abc import Mapping
from typing import Any

NAMES = {
    "train_loss": "train/loss",
    "val_loss": "validation/loss",
    "val_accuracy": "validation/accuracy",
    "learning_rate": "train/learning_rate",
    "images_per_second": "train/images_per_second",
}


def scalars(epoch: Mapping[str, Any]) -> dict[str, float]:
    """The values of one line of ``metrics.jsonl`` by the trackers' names, without those that are None."""
    return {name: float(epoch[key]) for key, name in NAMES.items() if epoch[key] is not None}
