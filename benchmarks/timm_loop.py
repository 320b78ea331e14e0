"""timm's side of bench_timm and bench_gpu, a process of its own: the loop of its train.py, from its parts, on image files.

Imports nothing that such a program would not need: its memory is compared.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from timm.data import FastCollateMixup, create_dataset, create_loader
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, CheckpointSaver, accuracy, dispatch_clip_grad, update_summary

from hep2flow.network.model import build_network
from hep2flow.recipe import Recipe, load_recipe
from hep2flow.training.optimizer import build_optimizer
from hep2flow.training.train_step import AUTOCAST


def main() -> None:
    """Train, and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    if given.device.type == "cpu":
        torch.set_num_threads(1)
    recipe = load_recipe(given.recipe, given.profile, given.set)
    print(json.dumps(measured(lambda folder: train(recipe, given.images, given.workers, given.device, folder))))


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


def train(recipe: Recipe, images: Path, workers: int, device: torch.device, folder: Path) -> int:
    """Train on ``images/train``, validate on ``images/val``; returns how many images it has trained on."""
    length, data, size = recipe.train, recipe.data, recipe.model.image_size
    shared: dict[str, Any] = {
        "input_size": (3, size, size),
        "mean": (data.mean,) * 3,
        "std": (data.std,) * 3,
        "interpolation": data.interpolation,
        "num_workers": workers,
        "device": device,
    }
    dataset = create_dataset("", root=str(images), split="train", is_training=True)
    classes = len(dataset.reader.class_to_idx)
    loader = create_loader(
        dataset, batch_size=length.batch_size, is_training=True, **augmentation(recipe, classes), **shared
    )
    shown = create_loader(
        create_dataset("", root=str(images), split="val"), batch_size=recipe.eval.batch_size, crop_pct=1.0, **shared
    )
    layout = torch.channels_last if length.channels_last else torch.contiguous_format
    model = build_network(recipe.model, classes).to(device, memory_format=layout)
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    compiled: Any = torch.compile(model, mode=mode, dynamic=False) if length.compile else model
    loss_of = loss(recipe)
    optimizer = build_optimizer(model, recipe)
    scheduler, _ = create_scheduler_v2(
        optimizer, num_epochs=length.epochs, step_on_epochs=False, updates_per_epoch=len(loader)
    )
    saver = CheckpointSaver(model, optimizer, checkpoint_dir=str(folder), recovery_dir=str(folder))
    precision, half = AUTOCAST[length.precision], length.precision != "fp32"
    seen = updates = 0
    for epoch in range(length.epochs):
        model.train()
        losses = AverageMeter()
        for input, target in loader:
            with torch.autocast(device.type, precision, half):
                part = loss_of(compiled(input.contiguous(memory_format=layout)), target)
            part.backward()
            if length.clipping is not None:
                dispatch_clip_grad(model.parameters(), value=length.clipping)
            optimizer.step()
            optimizer.zero_grad()
            updates, seen = updates + 1, seen + len(target)
            losses.update(part.item(), len(target))
            scheduler.step_update(num_updates=updates, metric=losses.avg)
        if (epoch + 1) % length.validate_every == 0:
            validated = validate(model, shown)
            update_summary(epoch, {"loss": losses.avg}, validated, folder / "summary.csv", write_header=epoch == 1)
            saver.save_checkpoint(epoch, metric=validated["top1"])
        else:
            saver.save_checkpoint(epoch)
        scheduler.step(epoch + 1)
    return seen


def augmentation(recipe: Recipe, classes: int) -> dict[str, Any]:
    """The recipe's, as arguments of timm's loader, which has no cutout and no quarter turns."""
    augment, batch = recipe.augment, recipe.batch
    crop, jitter = augment.random_resized_crop, augment.color_jitter
    erasing, rand = augment.random_erasing, augment.rand_augment
    mixup = FastCollateMixup(
        mixup_alpha=batch.mixup,
        cutmix_alpha=batch.cutmix,
        switch_prob=batch.switch_probability,
        label_smoothing=batch.label_smoothing,
        num_classes=classes,
    )
    return {
        "scale": crop.scale if crop else (1.0, 1.0),
        "ratio": crop.ratio if crop else (1.0, 1.0),
        "hflip": augment.horizontal_flip,
        "vflip": augment.vertical_flip,
        "color_jitter": (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) if jitter else 0.0,
        "auto_augment": f"rand-m{rand.magnitude:g}-n{rand.operations}" if rand else None,
        "re_prob": erasing.probability if erasing else 0.0,
        "collate_fn": mixup if batch.mixup or batch.cutmix else None,
    }


def loss(recipe: Recipe) -> torch.nn.Module:
    """As train.py chooses it."""
    if recipe.loss.name == "binary_cross_entropy":
        return BinaryCrossEntropy(recipe.batch.label_smoothing)
    if recipe.batch.mixup or recipe.batch.cutmix:
        return SoftTargetCrossEntropy()
    return LabelSmoothingCrossEntropy(recipe.batch.label_smoothing)


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
