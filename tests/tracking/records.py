"""The record of a training, as ``metrics.jsonl`` and ``manifest.json`` have it."""

from __future__ import annotations

from typing import Any

KEY = "0123456789abcdef" * 2
MANIFEST = {
    "network": "convnext_base",
    "dataset": "s3://hep2flow/datasets/twin/abc/",
    "split": "s3://hep2flow/splits/def.json",
    "selected_on_test": False,
}


def history(epochs: int) -> list[dict[str, Any]]:
    """Epochs of which every second is validated."""
    return [
        {
            "epoch": epoch,
            "updates": 10 * epoch,
            "train_loss": 2.0 / epoch,
            "val_loss": None if epoch % 2 else 1.0 / epoch,
            "val_accuracy": None if epoch % 2 else 1 - 1 / epoch,
            "learning_rate": 1e-4 / epoch,
            "images_per_second": 100.0 + epoch,
            "seconds": 1.5 * epoch,
            "best": epoch % 2 == 0,
        }
        for epoch in range(1, epochs + 1)
    ]
