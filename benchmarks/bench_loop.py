"""CPU seconds per image of a whole training over those of its bare step, on one thread.

The bare step is forward, backward and update on tensors that are there already. The whole training draws, augments and
mixes its batches, validates, writes a state and sends it to the store after every epoch, and tells where it is. What
augmentation and the validation's own forward passes cost is measured apart and named: the excess is what remains.
Interleaved, in one process.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial

from measure import machine, own_store, tell
from training import RECIPES, cpu_seconds, laptop_work, twin_in_store, whole

from hep2flow.store.s3 import open_store

LIMIT_EXCESS = 0.05


def main() -> None:
    """Measure the parts in turn, so that the machine's slow moments meet all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", choices=RECIPES, default=RECIPES[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=11)
    arguments = parser.parse_args()
    with own_store() as folder:
        cells = twin_in_store(folder)
        at = machine()
        work = laptop_work(open_store(), *cells, arguments.recipe, arguments.epochs)
        parts = {
            "bare": work.bare,
            "whole": partial(whole, work, open_store()),
            "augmented": work.augmented,
            "validated": work.validated,
        }
        for part in parts.values():  # the first passes are slower
            part()
        pairs = [{name: cpu_seconds(part) for name, part in parts.items()} for _ in range(arguments.pairs)]
    excesses = [(one["whole"] - one["augmented"] - one["validated"]) / one["bare"] - 1 for one in pairs]
    excess = round(statistics.median(excesses), 4)
    ratio = round(statistics.median(one["bare"] / one["whole"] for one in pairs), 4)
    each = {name: round(1000 * statistics.median(one[name] for one in pairs) / work.images, 3) for name in parts}
    tell(
        "loop",
        excess,
        LIMIT_EXCESS,
        excess <= LIMIT_EXCESS,
        at,
        f"{excess:.1%} over the bare step; {1000 / each['whole']:.0f} images per CPU second, {ratio:.2f} of the bare step's",
        recipe=work.recipe.title,
        epochs=arguments.epochs,
        images=work.images,
        excesses=[round(value, 4) for value in excesses],
        ratio_to_step=ratio,
        images_per_cpu_second=round(1000 / each["whole"], 1),
        cpu_milliseconds_per_image=each,
    )


if __name__ == "__main__":
    main()
