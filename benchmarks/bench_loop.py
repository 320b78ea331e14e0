"""CPU seconds per image of a complete training over those of its bare step, on one thread.

The bare step is forward, backward and update on prepared batches. The complete training draws, augments and mixes its
batches, validates, writes a state and uploads it after every epoch, and reports progress. What augmentation and the
validation's own forward passes cost is measured separately: the excess is what remains.

All of them take turns within every epoch, in one process: a machine that others share may be half as fast a minute later.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

from measure import machine, own_store, print_result
from work import TrainingParts

from hep2flow.store.open_store import open_store
from hep2flow.store.s3 import Store
from hep2flow.training.train_step import TrainStep
from training import RECIPES, laptop_training, run_as_worker, twin_in_store

LIMIT_EXCESS = 0.05


def main() -> None:
    """The median of some trainings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", choices=RECIPES, default=RECIPES[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--trainings", type=int, default=11)
    arguments = parser.parse_args()
    with own_store() as folder:
        cells = twin_in_store(folder)
        at = machine()
        store = open_store()
        parts = laptop_training(store, *cells, arguments.recipe, arguments.epochs)
        one_training(parts, store)  # the first is slower
        trainings = [one_training(parts, store) for _ in range(arguments.trainings)]
    excesses = [(one["whole"] - one["augmented"] - one["validated"]) / one["bare"] - 1 for one in trainings]
    excess = round(statistics.median(excesses), 4)
    ratio = round(statistics.median(one["bare"] / one["whole"] for one in trainings), 4)
    each = {
        name: round(1000 * statistics.median(one[name] for one in trainings) / parts.images, 3) for name in trainings[0]
    }
    print_result(
        "loop",
        excess,
        LIMIT_EXCESS,
        excess <= LIMIT_EXCESS,
        at,
        f"{excess:.1%} over the bare step; {1000 / each['whole']:.0f} images per CPU second, {ratio:.2f} of the bare step's",
        recipe=parts.recipe.title,
        epochs=arguments.epochs,
        images=parts.images,
        excesses=[round(value, 4) for value in excesses],
        ratio_to_step=ratio,
        images_per_cpu_second=round(1000 / each["whole"], 1),
        cpu_milliseconds_per_image=each,
    )


def one_training(parts: TrainingParts, store: Store) -> dict[str, float]:
    """CPU seconds of a training and of its parts: these run in the middle of each epoch, while it is paused.

    What its other threads do meanwhile, a request to the store every two seconds, counts on neither side.
    """
    seconds = dict.fromkeys(("bare", "augmented", "validated"), 0.0)
    paused = 0.0

    @contextmanager
    def measured(name: str) -> Iterator[None]:
        start = time.thread_time()
        yield
        seconds[name] += time.thread_time() - start

    steps: list[TrainStep] = []

    def mid_epoch(epoch: int) -> None:
        nonlocal paused
        start = time.process_time()
        with measured("bare"):
            if epoch == 1:
                steps.append(parts.build_step())
            parts.run_updates(steps[0])
        with measured("augmented"):
            parts.run_augmentation(epoch)
        if parts.is_validated(epoch):
            with measured("validated"):
                parts.run_validation(steps[0].network)
        paused += time.process_time() - start

    start = time.process_time()
    run_as_worker(parts, store, mid_epoch)
    return {"whole": time.process_time() - start - paused, **seconds}


if __name__ == "__main__":
    main()
