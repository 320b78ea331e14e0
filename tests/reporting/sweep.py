"""A finished sweep with invented but plausible numbers: a learning rate that matters, and keys that hardly do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import yaml

from hep2flow.reporting.report_content import SweepResult
from hep2flow.search.space import yaml_text

SPACE: dict[str, Any] = {
    "optim.lr": {"loguniform": [1.0e-6, 3.0e-4]},
    "optim.name": {"choice": ["adam", "adamw"]},
    "optim.weight_decay": {"uniform": [0, 0.3], "when": {"optim.name": ["adamw"]}},
    "schedule.warmup_updates": {"integer": [0, 120]},
    "augment.color_jitter": {"choice": [None, {"brightness": 0.3, "contrast": 0.3}]},
    "train.sampler": {"choice": ["none", "balanced"]},
    "batch.mixup": {"choice": [0, 0.2, 0.8]},
    "batch.label_smoothing": {"uniform": [0, 0.2]},
    "model.drop_path_rate": {"uniform": [0, 0.3]},
}
OWN: dict[str, Any] = {
    "optim.lr": 4e-6,
    "optim.name": "adam",
    "optim.weight_decay": 0.0,
    "schedule.warmup_updates": 0,
    "augment.color_jitter": "null",
    "train.sampler": "none",
    "batch.mixup": "0",
    "batch.label_smoothing": 0.0,
    "model.drop_path_rate": 0.0,
}


def make_sweep(
    trials: int = 40,
    *,
    space: dict[str, Any] = SPACE,
    name: str = "convnext-b",
    epochs: int = 20,
    fail: frozenset[int] = frozenset({5, 11}),
    metric: str = "accuracy",
    importance: bool = True,
    draw: int = 0,
    **changes: Any,
) -> SweepResult:
    """A sweep around ``space``; ``changes`` override fields of the result."""
    rng = np.random.default_rng(draw)
    rows, curves = list[dict[str, Any]](), list[dict[str, Any]]()
    for trial in range(trials):
        values = {key: OWN.get(key) for key in space} if trial == 0 else _drawn(rng, space)
        rate = values.get("optim.lr") or 3e-5
        skill = 0.83 - 0.035 * (math.log10(rate) - math.log10(5e-5)) ** 2 + rng.normal(0, 0.012)
        status = "failed" if trial in fail else "stopped" if trial and rng.random() < 0.55 else "finished"
        length = {"failed": 0, "stopped": int(rng.integers(2, 8)), "finished": epochs}[status]
        points = [_point(rng, trial, epoch, skill) for epoch in range(1, length + 1)]
        best = max(points, key=lambda point: (point["val_accuracy"], -point["val_loss"]), default=None)
        rows.append(
            {
                "trial": trial,
                "status": status,
                "val_accuracy": best and best["val_accuracy"],
                "val_loss": best and best["val_loss"],
                "best_epoch": best and best["epoch"],
                "epochs": length,
                "updates": 12 * length,
                "seconds": 14.2 * length if length else None,
                "reason": "out of memory: 2.1 GiB more were asked for" if status == "failed" else None,
                **values,
            }
        )
        curves += points
    result = SweepResult(
        title=f"convnext_base @ 224 px ({name})",
        recipe=_recipe(name, space, metric),
        manifest=_manifest(pd.DataFrame(rows), pd.DataFrame(curves), metric, space if importance else None),
        trials=pd.DataFrame(rows),
        curves=pd.DataFrame(curves),
        judgement=make_judgement(0.021, (-0.006, 0.047)),
    )
    return SweepResult(**(vars(result) | changes))


def make_judgement(difference: float, ci95: tuple[float, float]) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    default = [float(value) for value in 0.79 + rng.normal(0, 0.01, 5)]
    tuned = [value + difference for value in reversed(default)]
    return {
        "difference": difference,
        "ci95": list(ci95),
        "ci95_method": "specimen-clustered bootstrap",
        "first": float(np.mean(tuned)),
        "second": float(np.mean(default)),
        "seeds": [5, 5],
        "seed_sd": [float(np.std(tuned, ddof=1)), float(np.std(default, ddof=1))],
        "cells": 181,
        "by": "specimen",
        "updates": 360,
        "each": {"tuned": tuned, "default": default},
    }


def _drawn(rng: np.random.Generator, space: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, domain in space.items():
        if not all(values.get(other) in allowed for other, allowed in domain.get("when", {}).items()):
            values[key] = None
        elif "loguniform" in domain:
            values[key] = float(np.exp(rng.uniform(*np.log(domain["loguniform"]))))
        elif "uniform" in domain:
            values[key] = float(rng.uniform(*domain["uniform"]))
        elif "integer" in domain:
            values[key] = int(rng.integers(*domain["integer"], endpoint=True))
        else:
            values[key] = yaml_text(domain["choice"][rng.integers(len(domain["choice"]))])
    return values


def _point(rng: np.random.Generator, trial: int, epoch: int, skill: float) -> dict[str, Any]:
    accuracy = skill * (1 - 0.6 * math.exp(-epoch / 3)) + rng.normal(0, 0.006)
    return {
        "trial": trial,
        "epoch": epoch,
        "updates": 12 * epoch,
        "train_loss": 2.0 - 1.9 * accuracy,
        "val_loss": 2.2 - 1.8 * accuracy,
        "val_accuracy": float(min(accuracy, 1)),
        "seconds": 14.2 * epoch,
    }


def _recipe(name: str, space: dict[str, Any], metric: str) -> dict[str, Any]:
    recipe: dict[str, Any] = {"name": name, "search": {"space": space, "metric": metric, "algorithm": "tpe"}}
    for key in space:
        tree = recipe
        *sections, leaf = key.split(".")
        for section in sections:
            tree = tree.setdefault(section, {})
        own = OWN.get(key)
        tree[leaf] = yaml.safe_load(own) if isinstance(own, str) else own
    return recipe


def _manifest(trials: pd.DataFrame, curves: pd.DataFrame, metric: str, ranked: dict[str, Any] | None) -> dict[str, Any]:
    alive = curves.sort_values(
        ["val_accuracy", "val_loss"] if metric == "accuracy" else ["val_loss"], ascending=metric != "accuracy"
    )
    best = alive.iloc[0]
    winner = int(best["trial"])
    row = (
        trials.set_index("trial")
        .loc[winner]
        .drop(["status", "val_accuracy", "val_loss", "best_epoch", "epochs", "updates", "seconds", "reason"])
    )
    importance = None
    if ranked is not None:
        weights = {key: 0.5**i for i, key in enumerate(ranked)}
        importance = {key: weight / sum(weights.values()) for key, weight in weights.items()}
    failed = trials[trials["status"] == "failed"]
    return {
        "trials": len(trials),
        **{status: int((trials["status"] == status).sum()) for status in ("finished", "stopped", "failed")},
        "best_trial": winner,
        "best": {} if winner == 0 else {key: str(value) for key, value in row.dropna().items()},
        "val_accuracy": best["val_accuracy"],
        "val_loss": best["val_loss"],
        "chosen_on": {"cells": 180, "by": "specimen"},
        "failures": {str(n): reason for n, reason in zip(failed["trial"], failed["reason"], strict=True)},
        "metric": metric,
        "importance": importance,
        "early_stopping": {"epochs_run": 412, "epochs_saved": 388, "seconds_run": 5850.4, "seconds_saved": 5510.0},
    }
