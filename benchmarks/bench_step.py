"""Forward, backward and update on prepared batches: the minimum of any training of these networks."""

from __future__ import annotations

import argparse
import statistics
from functools import partial

from measure import machine, own_store, print_result

from hep2flow.store.open_store import open_store
from training import RECIPES, cpu_seconds, laptop_training, twin_in_store


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
            parts = laptop_training(open_store(), *cells, name, epochs=1)
            epoch = partial(parts.run_updates, parts.build_step())
            epoch()  # the first pass is slower, and prepares the batches
            seconds = statistics.median(cpu_seconds(epoch) for _ in range(rounds))
            each[parts.recipe.title] = round(1000 * seconds / parts.images, 3)
    figure = max(each.values())
    print_result(
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
