"""Forward, backward and update on tensors that are there already: what no training of these networks can go below."""

from __future__ import annotations

import argparse
import statistics
from functools import partial

from measure import machine, own_store, tell

from hep2flow.store.s3 import open_store
from training import RECIPES, cpu_seconds, laptop_work, twin_in_store


def main() -> None:
    """Both laptop recipes, one thread, the median of some rounds of one epoch each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    each = {}
    with own_store() as folder:
        cells = twin_in_store(folder)
        at = machine()
        for name in RECIPES:
            work = laptop_work(open_store(), *cells, name, epochs=1)
            epoch = partial(work.updated, work.step())
            epoch()  # the first pass is slower, and draws the batches
            seconds = statistics.median(cpu_seconds(epoch) for _ in range(rounds))
            each[work.recipe.title] = round(1000 * seconds / work.images, 3)
    figure = max(each.values())
    tell(
        "step",
        figure,
        None,
        True,
        at,
        ", ".join(f"{milliseconds} CPU ms per image of {title}" for title, milliseconds in each.items()),
        cpu_milliseconds_per_image=each,
    )


if __name__ == "__main__":
    main()
