"""One side of bench_timm as a process of its own: the loop of timm's train.py, from its parts, on a folder of images.

    timm_loop.py RECIPE EPOCHS IMAGES WORKERS

Imports nothing that such a program would not need: its memory is compared.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from timm.data import create_dataset, create_loader
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, CheckpointSaver, accuracy, dispatch_clip_grad, update_summary

from hep2flow.learning.model import build_network
from hep2flow.learning.optim import build_optimizer
from hep2flow.recipe import Recipe, load_recipe

CPU = torch.device("cpu")


def main() -> None:
    """Train, and tell what it cost."""
    name, epochs, images, workers = sys.argv[1:]
    torch.set_num_threads(1)
    recipe = load_recipe(name, "laptop", [f"train.epochs={epochs}", "train.max_updates=null"])
    print(json.dumps(measured(lambda folder: train(recipe, Path(images), int(workers), folder))))


def measured(train: Callable[[Path], int]) -> dict[str, float]:
    """Seconds per image of a training in this process; train: folder for its files -> images it has trained on."""
    with tempfile.TemporaryDirectory() as folder:
        began, before = time.monotonic(), cpu_of_all()
        images = train(Path(folder))
        seconds, used = time.monotonic() - began, cpu_of_all() - before
    return {
        "milliseconds_per_image": round(1000 * seconds / images, 3),
        "cpu_milliseconds_per_image": round(1000 * used / images, 3),
    }


def cpu_of_all() -> float:
    """CPU seconds of this process, of the workers it has, and of those it had."""
    own = psutil.Process()
    return sum(own.cpu_times()[:4]) + sum(sum(one.cpu_times()[:2]) for one in own.children(recursive=True))


def train(recipe: Recipe, images: Path, workers: int, folder: Path) -> int:
    """Train on ``images/train``, validate on ``images/val``; returns how many images it has trained on."""
    length, augment, data, size = recipe.train, recipe.augment, recipe.data, recipe.model.image_size
    shared: dict[str, Any] = {
        "input_size": (3, size, size),
        "mean": (data.mean,) * 3,
        "std": (data.std,) * 3,
        "interpolation": data.interpolation,
        "num_workers": workers,
        "device": CPU,
    }
    loader = create_loader(
        create_dataset("", root=str(images), split="train", is_training=True),
        batch_size=length.batch_size,
        is_training=True,
        scale=(1.0, 1.0),
        ratio=(1.0, 1.0),
        hflip=augment.horizontal_flip,
        vflip=augment.vertical_flip,
        color_jitter=0.0,
        **shared,
    )
    shown = create_loader(
        create_dataset("", root=str(images), split="val"), batch_size=recipe.eval.batch_size, crop_pct=1.0, **shared
    )
    model = build_network(recipe.model, len(loader.dataset.reader.class_to_idx))
    smoothing = recipe.batch.label_smoothing
    binary = recipe.loss.name == "binary_cross_entropy"
    loss_of = BinaryCrossEntropy(smoothing=smoothing) if binary else LabelSmoothingCrossEntropy(smoothing)
    optimizer = build_optimizer(model, recipe)
    scheduler, _ = create_scheduler_v2(
        optimizer, num_epochs=length.epochs, step_on_epochs=False, updates_per_epoch=len(loader)
    )
    saver = CheckpointSaver(model, optimizer, checkpoint_dir=str(folder), recovery_dir=str(folder))
    seen = updates = 0
    for epoch in range(length.epochs):
        model.train()
        losses = AverageMeter()
        for input, target in loader:
            loss = loss_of(model(input), target)
            loss.backward()
            if length.clipping is not None:
                dispatch_clip_grad(model.parameters(), value=length.clipping)
            optimizer.step()
            optimizer.zero_grad()
            updates, seen = updates + 1, seen + len(target)
            losses.update(loss.item(), len(target))
            scheduler.step_update(num_updates=updates, metric=losses.avg)
        if (epoch + 1) % length.validate_every == 0:
            validated = validate(model, shown)
            update_summary(epoch, {"loss": losses.avg}, validated, folder / "summary.csv", write_header=epoch == 1)
            saver.save_checkpoint(epoch, metric=validated["top1"])
        else:
            saver.save_checkpoint(epoch)
        scheduler.step(epoch + 1)
    return seen


@torch.inference_mode()
def validate(model: torch.nn.Module, loader: Any) -> dict[str, float]:
    """As train.py does."""
    model.eval()
    losses, top1, loss_of = AverageMeter(), AverageMeter(), torch.nn.CrossEntropyLoss()
    for input, target in loader:
        output = model(input)
        (right,) = accuracy(output, target, topk=(1,))
        losses.update(loss_of(output, target).item(), len(target))
        top1.update(right.item(), len(target))
    return {"loss": losses.avg, "top1": top1.avg}


if __name__ == "__main__":
    main()
