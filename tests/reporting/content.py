"""A report's content with invented but plausible numbers, of the size of ICPR 2012."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from hep2flow.cells import encode_png
from hep2flow.evaluation.metrics import evaluate_predictions, most_confident_mistakes
from hep2flow.reporting.report_content import ModelResult, ReportContent

LABELS = ["centromere", "coarse_speckled", "cytoplasmatic", "fine_speckled", "homogeneous", "nucleolar"]
# subset -> pattern -> specimens as (number, intensity, cells), as published with the data set.
SPECIMENS = {
    "train": {
        "homogeneous": ["1p61", "18p42", "5i47"],
        "fine_speckled": ["9p46", "2i48"],
        "centromere": ["3p89", "7i56", "14i63"],
        "coarse_speckled": ["6p68", "11i41"],
        "nucleolar": ["8p56", "20i46"],
        "cytoplasmatic": ["26p34", "25i24"],
    },
    "test": {
        "homogeneous": ["22p119", "21i61"],
        "fine_speckled": ["23p51", "15i63"],
        "centromere": ["13p46", "16p38", "19i65"],
        "coarse_speckled": ["12p49", "17p19", "10i33"],
        "nucleolar": ["24p73", "4i66"],
        "cytoplasmatic": ["27p38", "28i13"],
    },
}


def make_cells(labels: list[str] = LABELS) -> pd.DataFrame:
    rename = dict(zip(LABELS, labels, strict=True))
    rows: list[dict[str, Any]] = []
    for subset, patterns in SPECIMENS.items():
        for pattern, specimens in patterns.items():
            for text in specimens:
                letter = "p" if "p" in text else "i"
                specimen, n = text.split(letter)
                for _ in range(int(n)):
                    rows.append(
                        {
                            "cell_id": f"{subset}-{len(rows):04d}",
                            "official_split": subset,
                            "pattern": rename[pattern],
                            "intensity": "positive" if letter == "p" else "intermediate",
                            "specimen_id": specimen,
                            "width": 60 + len(rows) % 41,
                            "height": 58 + len(rows) % 43,
                        }
                    )
    return pd.DataFrame(rows)


def make_model(
    cells: pd.DataFrame, labels: list[str], recipe: str, network: str, skill: float, draw: int, **metrics: Any
) -> ModelResult:
    """A model that is right more often the greater its skill, and shifted by a difficulty of each specimen."""
    rng = np.random.default_rng(draw)
    subset = metrics.get("subset", "test")
    table = (
        cells[cells["official_split"] == "test"] if subset == "test" else cells[cells["official_split"] == "train"][::2]
    )
    truth = table["pattern"].map(labels.index).to_numpy()
    shared = np.random.default_rng(7)  # what is hard for one model is hard for the other
    logits = rng.normal(0, 0.8, (len(table), len(labels))) + shared.normal(0, 0.8, (len(table), len(labels)))
    difficulty = {specimen: shared.normal(0, 1.0) for specimen in sorted(cells["specimen_id"].unique())}
    dim = (table["intensity"] == "intermediate").to_numpy() * 0.7
    logits[np.arange(len(table)), truth] += skill - table["specimen_id"].map(difficulty).to_numpy() - dim
    probabilities = np.exp(1.5 * logits)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predictions = pd.DataFrame(probabilities, columns=[f"p_{label}" for label in labels])
    predictions.insert(0, "cell_id", table["cell_id"].to_numpy())
    predictions.insert(1, "truth", table["pattern"].to_numpy())
    predictions.insert(2, "predicted", [labels[k] for k in probabilities.argmax(axis=1)])
    result = evaluate_predictions(predictions, cells, labels)
    result |= {
        "tta": recipe.startswith("convnext"),
        "tta_off": {"aca": result["aca"] - 0.011, "mca": result["mca"] - 0.01, "macro_f1": result["macro_f1"] - 0.012},
        "protocol": "paper",
        "subset": "test",
        "selected_on_test": False,
        "network": network,
        "seed": 0,
        "updates": 360,
        "timing": {"train_seconds": 133.7, "images_per_second": 81.2, "evaluate_seconds": 9.1},
        "recipe": recipe,
        "profile": "laptop",
        "paper_model": False,
    }
    if not recipe.startswith("convnext"):
        result |= {"tta_off": None}
    result |= metrics
    epochs = 30
    history = []
    for epoch in range(1, epochs + 1):
        progress = 1 - np.exp(-epoch / 9)
        history.append(
            {
                "epoch": epoch,
                "updates": 12 * epoch,
                "train_loss": float(1.8 - 1.2 * progress + rng.normal(0, 0.02)),
                "val_loss": float(1.8 - 0.9 * progress + 0.012 * max(0, epoch - 15) + rng.normal(0, 0.02)),
                "val_accuracy": float(min(0.2 + 0.6 * progress + rng.normal(0, 0.01), 1)),
                "learning_rate": 4e-6,
                "images_per_second": 81.0,
                "best": False,
            }
        )
    so_far = 0.0
    for entry in history:
        entry["best"] = entry["val_accuracy"] > so_far
        so_far = max(so_far, entry["val_accuracy"])
    size = 64 if result["profile"] == "laptop" else 224
    title = f"{network} @ {size} px" + (" (laptop stand-in)" if result["profile"] == "laptop" else "")
    tree: dict[str, Any] = {
        "name": recipe,
        "model": {
            "name": network,
            "weights": "none" if result["profile"] == "laptop" else "pretrained",
            "image_size": size,
        },
        "data": {"mask": "apply"},
        "augment": {"horizontal_flip": 0.5, "vertical_flip": 0.5, "cutout": recipe.startswith("convnext")},
        "loss": {"name": "soft_target_cross_entropy" if recipe.startswith("convnext") else "binary_cross_entropy"},
        "optim": {"name": "adam" if recipe.startswith("convnext") else "adamp", "lr": 4e-6, "betas": [0.9, 0.999]},
        "train": {"epochs": epochs, "batch_size": 32, "ema": None, "seed": result["seed"]},
    }
    training = {"weights": {"origin": f"timm/{network}@abc", "sha256": "5e" * 32}, "weights_replaced": ["head.weight"]}
    if result["profile"] == "laptop":
        training = {"weights": None, "weights_replaced": []}
    return ModelResult(
        title=title,
        family=recipe.removesuffix(f"-seed-{result['seed']}"),
        recipe=tree,
        training=training | {"hardware": {"cpus": 2}},
        metrics=result,
        history=history,
        predictions=predictions,
    )


def make_examples(labels: list[str] = LABELS) -> dict[str, list[tuple[bytes, bytes]]]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:70, :70] - 35.0
    inside = (x / 26) ** 2 + (y / 30) ** 2 < 1
    examples = {}
    for label in labels:
        pairs = []
        for _ in range(4):
            green = np.clip(inside * 120 + rng.normal(30, 18, inside.shape), 0, 255).astype(np.uint8)
            cell = np.stack([green // 8, green, green // 6], axis=-1)
            pairs.append((encode_png(cell), encode_png(cell * inside[..., None])))
        examples[label] = pairs
    return examples


def make_content(
    *, synthetic: bool = False, shared_specimens: int | None = 14, labels: list[str] = LABELS, **metrics: Any
) -> ReportContent:
    """Two models on the ICPR 2012 cells; ``metrics`` overrides entries of both models' metrics."""
    cells = make_cells(labels)
    paper = metrics.get("paper_model", False)
    networks = ("convnext_base", "coat_mini") if paper else ("convnext_atto", "coat_lite_tiny")
    train = cells[cells["official_split"] == "train"]
    counts = train["pattern"].value_counts().to_dict()
    test = cells[cells["official_split"] == "test"]["pattern"].value_counts().to_dict()
    return ReportContent(
        run_id="20261123-1701-k3fq",
        dataset={
            "name": "icpr2012-synthetic" if synthetic else "icpr2012",
            "digest": "0f9c1b6a2c8a4f2e9d3b7a5c1e0f8d6b",
            "count": len(cells),
            "labels": labels,
            "synthetic": synthetic,
            "counts": {"train": counts, "test": test},
            "notes": ["the spelling 'centromeric' was read as 'centromere' in 63 rows"],
            "parent": "5b0e7d6c9a8f4e3d2c1b0a9f8e7d6c5b",
            "mask": {"mode": "given", "source": "supplied with the data", "derived": 0},
            "bits": 8,
        },
        split={
            "protocol": "paper",
            "ratio": 0.5,
            "seed": 0,
            "digest": "aa11bb22cc33dd44ee55ff6677889900",
            "counts": {"train": 361, "val": 360, "test": 734},
            "shared_specimens": shared_specimens,
            "pattern_counts": {
                "train": {label: (n + 1) // 2 for label, n in counts.items()},
                "val": {label: n // 2 for label, n in counts.items()},
                "test": test,
            },
        },
        models=[
            make_model(cells, labels, "convnext-b", networks[0], 2.9, 1, **metrics),
            make_model(cells, labels, "coat-mini", networks[1], 3.1, 2, **metrics),
        ],
        cells=cells,
        examples=make_examples(labels),
        provenance={
            "started": "2026-11-23T17:01:44+00:00",
            "versions": {"python": "3.11.2", "hep2flow": "0.1.0", "torch": "2.14.1", "timm": "1.0.31"},
            "hardware": {"cpus": 2, "gpus": 0, "host": "laptop"},
            "seconds": {"ingest": 4.1, "mask": 2.2, "split": 0.4, "train-convnext-b": 133.7, "evaluate": 9.1},
            "keys": {"train-convnext-b": "91ab" * 8, "train-coat-mini": "77cd" * 8},
        },
    )


def make_content_of_seeds(seeds: int, **metrics: Any) -> ReportContent:
    """As :func:`make_content`, each model trained under so many seeds."""
    content = make_content(**metrics)
    models = [
        make_model(
            content.cells,
            LABELS,
            f"{name}-seed-{seed}",
            network,
            skill,
            10 * number + seed,
            seed=seed,
            **metrics,
        )
        for number, (name, network, skill) in enumerate(
            [("convnext-b", "convnext_atto", 2.9), ("coat-mini", "coat_lite_tiny", 3.1)]
        )
        for seed in range(seeds)
    ]
    return replace(content, models=models)


def with_pictures(content: ReportContent, *, heat: bool = True) -> ReportContent:
    """As evaluations leave it: each model's mistakes with their heat maps, and its augmented batch; mixed for convnext-b."""
    pairs = [pair for pattern in content.examples.values() for pair in pattern]
    y, x = np.mgrid[:70, :70]
    warm = encode_png((255 * np.exp(-((x - 20) ** 2 + (y - 30) ** 2) / 200)).astype(np.uint8))
    mask = encode_png(((x - 35) / 26) ** 2 + ((y - 35) / 30) ** 2 < 1)
    labels = content.dataset["labels"]
    models, originals = [], {}
    for model in content.models:
        wrong = most_confident_mistakes(model.predictions, labels)
        pictures = pairs[: len(wrong)]
        mixed = model.family == "convnext-b"
        batch = pd.DataFrame(
            {
                "cell_id": [f"train-{index:04d}" for index in range(16)],
                "pattern": [labels[index % len(labels)] for index in range(16)],
                "mixed_with": [labels[-1 - index % len(labels)] if mixed else None for index in range(16)],
                "image": [masked for _, masked in pairs[:16]],
            }
        )
        augment = {"horizontal_flip": 0.5, "vertical_flip": 0.0, "quarter_turns": True, "cutout": {"side": 0.5}}
        recipe = {**model.recipe, "augment": augment, "batch": {"mixup": 0.8 if mixed else 0.0, "cutmix": 0.0}}
        mistakes = wrong.assign(seen=[masked for _, masked in pictures], heat=warm if heat else None)
        models.append(replace(model, recipe=recipe, mistakes=mistakes, batch=batch))
        originals |= {cell: (original, mask) for cell, (original, _) in zip(wrong["cell_id"], pictures, strict=True)}
    return replace(content, models=models, originals=originals)
