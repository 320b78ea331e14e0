"""CPU seconds per image of a whole training over those of its bare step, on one thread.

The bare step is forward, backward and update on tensors that are there already. The whole training draws, augments and
mixes its batches, validates, writes a state and sends it to the store after every epoch, and tells where it is. What
augmentation and the validation's own forward passes cost is measured apart and named: the excess is what remains.

All of them take turns within every epoch, in one process: a machine that others share may be half as fast a minute later.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

from measure import machine, own_store, tell
from work import Work

from hep2flow.store.s3 import Store, open_store
from hep2flow.training.train_step import Step
from training import RECIPES, laptop_work, twin_in_store, whole

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
        work = laptop_work(store, *cells, arguments.recipe, arguments.epochs)
        one_training(work, store)  # the first is slower
        trainings = [one_training(work, store) for _ in range(arguments.trainings)]
    excesses = [(one["whole"] - one["augmented"] - one["validated"]) / one["bare"] - 1 for one in trainings]
    excess = round(statistics.median(excesses), 4)
    ratio = round(statistics.median(one["bare"] / one["whole"] for one in trainings), 4)
    each = {
        name: round(1000 * statistics.median(one[name] for one in trainings) / work.images, 3) for name in trainings[0]
    }
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


def one_training(work: Work, store: Store) -> dict[str, float]:
    """CPU seconds of a training and of its parts: these run in the middle of each epoch, while it stands still.

    What its other threads do meanwhile, every two seconds a look at the store, counts on neither side.
    """
    parts = dict.fromkeys(("bare", "augmented", "validated"), 0.0)
    stood_still = 0.0

    @contextmanager
    def counted(name: str) -> Iterator[None]:
        began = time.thread_time()
        yield
        parts[name] += time.thread_time() - began

    steps: list[Step] = []

    def in_epoch(epoch: int) -> None:
        nonlocal stood_still
        began = time.process_time()
        with counted("bare"):
            if epoch == 1:
                steps.append(work.step())
            work.updated(steps[0])
        with counted("augmented"):
            work.augmented(epoch)
        if work.validates(epoch):
            with counted("validated"):
                work.validated(steps[0].network)
        stood_still += time.process_time() - began

    began = time.process_time()
    whole(work, store, in_epoch)
    return {"whole": time.process_time() - began - stood_still, **parts}


if __name__ == "__main__":
    main()
