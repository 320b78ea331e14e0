"""The paper's two recipes on a GPU, complete, against the bare step, and against timm's loop at the same settings.

721 drawn cells of the training cells' size, 361 to train and 360 to validate, 224 px, weights from scratch. Needs neither
Ray nor a store, and no GPU to be tried:

    bench_gpu.py --device cpu --cells 80 --pairs 1 --set model.network=convnext_atto --set model.image_size=32
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from measure import machine, print_result
from timm_loop import measured
from work import Cells, TrainingParts

from hep2flow.cells import encode_png
from hep2flow.recipe import load_recipe
from hep2flow.training.checkpoint import CheckpointFiles
from hep2flow.training.trainer import Callbacks

RECIPES = ("convnext-b", "coat-mini")
LIMIT_SECONDS = 60.0  # both recipes, all epochs, compilation counted in
LIMIT_RATIO = 0.9  # images per second of the complete training over those of its bare step and validation passes
LIMIT_TIMM = 1.0
PATTERNS = ("centromere", "coarse_speckled", "cytoplasmatic", "fine_speckled", "homogeneous", "nucleolar")
SIDES = (60, 90)  # pixels, of most real cells
# What helps a GPU and changes no recipe; compiling is asked for with --set train.compile=true.
SETTINGS = ["model.weights=none", "train.precision=bf16", "train.channels_last=true"]
FUSED = {"convnext-b": ["optim.fused=true"], "coat-mini": []}  # AdamP has no fused form


def main() -> None:
    """Pairs of complete and bare training for each recipe, then timm's loop with each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", type=torch.device, default="cuda")
    parser.add_argument("--cells", type=int, default=721)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument(
        "--workers", type=int, nargs="*", default=[4, 8, 16], help="of timm's loader; none: without timm"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override both recipes' leaf")
    parser.add_argument("--ours", metavar="RECIPE", help="train our side in this process")
    given = parser.parse_args()
    if given.device.type == "cuda" and not torch.cuda.is_available():
        print("gpu: not measured, there is none; --device cpu tries the same paths, for no figure", file=sys.stderr)
        return
    if given.ours:
        print(json.dumps(ours(given.ours, given)))
        return
    at = machine()
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), drawn(given.cells))
        recipes = {name: compared(name, Path(folder), given) for name in RECIPES}
    seconds = round(sum(one["seconds"] for one in recipes.values()), 1)
    ratio = min(one["ratio_to_step"] for one in recipes.values())
    timm = min((one["timm_over_ours"] for one in recipes.values() if "timm_over_ours" in one), default=LIMIT_TIMM)
    print_result(
        "gpu",
        seconds,
        LIMIT_SECONDS,
        seconds <= LIMIT_SECONDS and ratio >= LIMIT_RATIO and timm >= LIMIT_TIMM,
        at,
        f"both recipes in {seconds} s, at least {ratio:.2f} of the bare step, {timm:.2f} times as fast as timm's loop",
        device=torch.cuda.get_device_name() if given.device.type == "cuda" else "cpu",
        limit_ratio_to_step=LIMIT_RATIO,
        limit_timm=LIMIT_TIMM,
        settings=[*SETTINGS, *given.set],
        recipes=recipes,
    )


def compared(name: str, images: Path, given: argparse.Namespace) -> dict[str, Any]:
    """One recipe: medians of our figures, and of timm's with the number of workers that suits it best."""
    again = ["--device", str(given.device), "--cells", str(given.cells), *(f"--set={one}" for one in given.set)]
    mine, theirs = [], {count: list[float]() for count in given.workers}
    loop = [str(Path(__file__).with_name("timm_loop.py")), name, "--profile", "paper", "--images", str(images)]
    for _ in range(given.pairs):
        mine.append(figures_of([__file__, "--ours", name, *again]))
        for count, found in theirs.items():
            settings = [f"--set={one}" for one in overrides(name, given)]
            side = figures_of([*loop, "--workers", str(count), "--device", str(given.device), *settings])
            found.append(side["milliseconds_per_image"])
    result: dict[str, Any] = {key: round(median(one[key] for one in mine), 3) for key in mine[0]}
    if theirs:
        best = min(theirs, key=lambda count: median(theirs[count]))
        ratios = [other / one["milliseconds_per_image"] for one, other in zip(mine, theirs[best], strict=True)]
        timm = {str(count): round(median(found), 3) for count, found in theirs.items()}
        result |= {
            "timm_over_ours": round(median(ratios), 3),
            "timm_workers": best,
            "timm_milliseconds_per_image": timm,
        }
    return result


def ours(name: str, given: argparse.Namespace) -> dict[str, float]:
    """The complete training, and the minimum of any training of the recipe, in one process."""
    if given.device.type == "cpu":
        torch.set_num_threads(1)
    parts = TrainingParts(load_recipe(name, "paper", overrides(name, given)), drawn(given.cells), given.device)
    readings = list[float]()
    start = time.monotonic()

    def train(folder: Path) -> int:
        with ThreadPoolExecutor(1) as thread:
            pending: list[Future[None]] = []

            def save(files: CheckpointFiles) -> None:
                while pending:
                    pending.pop().result()
                if files.deferred:
                    pending.append(thread.submit(files.write))
                else:
                    files.write()

            parts.run_training(folder, Callbacks(save, on_progress=lambda _: readings.append(time.monotonic())))
        return parts.images

    whole = measured(train)
    bare = timed(partial(parts.run_bare, parts.build_step()), given.device)
    seconds = whole["milliseconds_per_image"] * parts.images / 1000
    return {
        **whole,
        "seconds": seconds,
        "first_reading_seconds": readings[0] - start,  # of the loss: compilation is in it
        "bare_seconds": bare,
        "ratio_to_step": bare / seconds,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if given.device.type == "cuda" else 0.0,
    }


def timed(part: Callable[[], None], device: torch.device) -> float:
    """Seconds of a part's second run, the device synchronised: the first prepares batches, compiles, and warms up."""
    for _ in range(2):
        start = time.monotonic()
        part()
        if device.type == "cuda":
            torch.cuda.synchronize()
    return time.monotonic() - start


def overrides(name: str, given: argparse.Namespace) -> list[str]:
    """Of the recipe, on both sides."""
    on_cpu = ["resources.gpus_per_worker=0"] if given.device.type == "cpu" else []
    return [*SETTINGS, *FUSED[name], *on_cpu, *given.set]


def drawn(count: int) -> Cells:
    """Noise: what is in a cell costs nothing. Every other one validates."""
    generator = np.random.default_rng(0)

    def rows(subset: int) -> list[dict[str, Any]]:
        return [
            {
                "cell_id": f"{number:05d}",
                "pattern": PATTERNS[number // 2 % len(PATTERNS)],
                "image": encode_png(generator.integers(256, size=generator.integers(*SIDES, size=2), dtype=np.uint8)),
                "mask": None,
            }
            for number in range(subset, count, 2)
        ]

    return Cells(list(PATTERNS), 8, rows(0), rows(1))


def write_images(folder: Path, cells: Cells) -> None:
    """The cells as files, ``train/PATTERN/ID.png`` and ``val/…``: how timm reads them."""
    for subset, rows in (("train", cells.training), ("val", cells.validation)):
        for row in rows:
            path = folder / subset / row["pattern"] / f"{row['cell_id']}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(row["image"])


def figures_of(command: list[str]) -> dict[str, float]:
    """The JSON object that a process prints in its last line."""
    done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


if __name__ == "__main__":
    main()
