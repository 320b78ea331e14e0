"""CPU seconds that a laptop recipe's training saves by keeping freed memory, and by overwriting its files in place.

Both save the system from clearing pages again and again. Each training is a process of its own, without Ray or a store.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import torch
from bench_gpu import drawn
from measure import machine, print_result
from safetensors.torch import save_file
from work import CPU, TrainingParts

from hep2flow.recipe import load_recipe
from training import RECIPES, cpu_seconds

SIDES = ("with both", "without kept memory", "without writing in place")


def main() -> None:
    """Interleaved rounds of the three sides; the figure is the greater gain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", choices=RECIPES, default=RECIPES[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", choices=SIDES, help="train this side in this process")
    given = parser.parse_args()
    if given.side:
        print(train(given.recipe, given.epochs, given.side))
        return
    at = machine()
    again = [sys.executable, __file__, f"--recipe={given.recipe}", f"--epochs={given.epochs}"]
    rounds = [
        {side: float(subprocess.check_output([*again, f"--side={side}"])) for side in SIDES}
        for _ in range(given.rounds)
    ]
    gains = {side: round(statistics.median(one[side] / one[SIDES[0]] - 1 for one in rounds), 4) for side in SIDES[1:]}
    sentence = ", ".join(f"{gain:+.1%} {side}" for side, gain in gains.items())
    print_result(
        "memory", max(gains.values()), None, True, at, sentence, recipe=given.recipe, gains=gains, cpu_seconds=rounds
    )


def train(recipe: str, epochs: int, side: str) -> float:
    """CPU seconds of one training on one thread."""
    torch.set_num_threads(1)
    shortened = load_recipe(recipe, "laptop", [f"train.epochs={epochs}", "train.max_updates=null"])
    parts = TrainingParts(shortened, drawn(721), CPU)
    with tempfile.TemporaryDirectory() as folder:
        if side == SIDES[1]:
            with patch("hep2flow.training.trainer.keep_freed_memory"):
                return cpu_seconds(lambda: parts.run_training(Path(folder)))
        if side == SIDES[2]:
            with patch("hep2flow.training.checkpoint.save_in_place", save_new):
                return cpu_seconds(lambda: parts.run_training(Path(folder)))
        return cpu_seconds(lambda: parts.run_training(Path(folder)))


def save_new(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """As safetensors does it: to a new file each time, which then replaces the one before."""
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, metadata)
    temporary.replace(path)


if __name__ == "__main__":
    main()
