"""Our training loop against one of timm's parts, built as timm's train.py builds it: the same network on the same cells.

timm reads and decodes each image file again in every epoch, in loader workers of its own, augments it as a PIL image, and
writes a checkpoint after each epoch; its crop is fixed to the full image, and it has no quarter turns. Both sides make the
same optimizer's updates on batches of the same size, validate as often, and write their states to disk. What counts is CPU
seconds of all processes per trained image, on one thread each; reading our cells from the store is not counted.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from measure import Peak, machine, own_store, print_result
from PIL import Image
from timm_loop import measured
from work import TrainingParts

from hep2flow.store.datasets import open_dataset
from hep2flow.store.open_store import open_store
from hep2flow.store.splits import read_split
from training import RECIPES, laptop_training, twin_in_store

LIMIT_RATIO = 1.0


def main() -> None:
    """Interleaved pairs, each side a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", choices=RECIPES, default=RECIPES[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=4, help="loader workers of timm's; 4 is its default")
    parser.add_argument("--ours", nargs=2, metavar="URI", help="train our side in this process: data set, split")
    arguments = parser.parse_args()
    if arguments.ours:
        parts = laptop_training(open_store(), *arguments.ours, arguments.recipe, arguments.epochs)
        print(json.dumps(measured(partial(train_ours, parts))))
        return
    with own_store() as folder:
        cells = twin_in_store(folder)
        write_images(folder / "images", *cells)
        at = machine()
        loop, images = Path(__file__).with_name("timm_loop.py"), str(folder / "images")
        sides = {
            "ours": [__file__, *sys.argv[1:], "--ours", *cells],
            "timm": [
                *(str(loop), arguments.recipe, "--images", images, "--workers", str(arguments.workers)),
                *("--set", f"train.epochs={arguments.epochs}", "--set", "train.max_updates=null"),
            ],
        }
        rounds = [{side: one_side([sys.executable, *sides[side]]) for side in sides} for _ in range(arguments.pairs)]
    ratios = [one["timm"]["cpu_milliseconds_per_image"] / one["ours"]["cpu_milliseconds_per_image"] for one in rounds]
    ratio = round(statistics.median(ratios), 3)
    each = {
        side: {name: statistics.median(one[side][name] for one in rounds) for name in rounds[0][side]}
        for side in rounds[0]
    }
    within = ratio >= LIMIT_RATIO and each["ours"]["peak_mib"] <= each["timm"]["peak_mib"]
    print_result(
        "timm",
        ratio,
        LIMIT_RATIO,
        within,
        at,
        f"{ratio:.2f} times as many images per CPU second as timm's loop, in {each['ours']['peak_mib']:.0f} MiB against "
        f"{each['timm']['peak_mib']:.0f} MiB",
        recipe=arguments.recipe,
        epochs=arguments.epochs,
        workers=arguments.workers,
        ratios=[round(value, 3) for value in ratios],
        **each,
    )


def one_side(command: list[str]) -> dict[str, float]:
    """What the side reports, and the greatest memory of all its processes together, shared pages counted once."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output)
        with Peak(process.pid) as peak:
            process.wait()
        output.seek(0)
        if process.returncode:
            sys.exit(f"{' '.join(command)}: exit code {process.returncode}")
        figures: dict[str, float] = json.loads(output.read().splitlines()[-1])
    return {**figures, "peak_mib": peak.mib}


def write_images(folder: Path, dataset: str, split: str) -> None:
    """The cells as files, ``train/PATTERN/ID.png`` and ``val/…``: how timm reads them."""
    store = open_store()
    subset = dict(read_split(store, split).cells.itertuples(index=False, name=None))
    for row in open_dataset(store, dataset).rows(columns=["cell_id", "pattern", "image"]):
        path = folder / subset[row["cell_id"]] / row["pattern"] / f"{row['cell_id'].replace('/', '-')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.open(io.BytesIO(row["image"])).save(path)


def train_ours(parts: TrainingParts, folder: Path) -> int:
    """Our loop, with its checkpoints in the folder; returns how many images it trained on."""
    parts.run_training(folder)
    return parts.images


if __name__ == "__main__":
    main()
