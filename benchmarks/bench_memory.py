"""CPU seconds that a laptop recipe's training saves by keeping freed memory, which the system would clear again.

Each training is a process of its own, without Ray or a store.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import torch
from bench_gpu import drawn
from measure import machine, print_result
from work import CPU, TrainingParts

from hep2flow.recipe import load_recipe
from training import RECIPES, cpu_seconds


def main() -> None:
    """The median of some interleaved pairs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", choices=RECIPES, default=RECIPES[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--side", choices=("kept", "freed"), help="train in this process, and print its CPU seconds")
    given = parser.parse_args()
    if given.side:
        print(train(given.recipe, given.epochs, keep=given.side == "kept"))
        return
    at = machine()
    command = [sys.executable, __file__, f"--recipe={given.recipe}", f"--epochs={given.epochs}"]
    pairs = [
        {side: float(subprocess.check_output([*command, f"--side={side}"])) for side in ("kept", "freed")}
        for _ in range(given.pairs)
    ]
    gain = round(statistics.median(pair["freed"] / pair["kept"] - 1 for pair in pairs), 4)
    sentence = f"{gain:.1%} more CPU seconds where memory is not kept"
    print_result("memory", gain, None, True, at, sentence, recipe=given.recipe, cpu_seconds=pairs)


def train(recipe: str, epochs: int, *, keep: bool) -> float:
    """CPU seconds of one training on one thread."""
    torch.set_num_threads(1)
    shortened = load_recipe(recipe, "laptop", [f"train.epochs={epochs}", "train.max_updates=null"])
    parts = TrainingParts(shortened, drawn(721), CPU)
    disabled = nullcontext() if keep else patch("hep2flow.training.trainer.keep_freed_memory")
    with tempfile.TemporaryDirectory() as folder, disabled:
        return cpu_seconds(lambda: parts.run_training(Path(folder)))


if __name__ == "__main__":
    main()
