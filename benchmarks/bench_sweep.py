"""What a sweep costs beside its trainings, what early stopping saves, and what two trials at once gain.

A trial's training is measured by its own clock, a sweep by the wall's: the overhead per trial is the difference, trials one
after another, the start of Ray left out. The same configurations (random search, one seed) run with and without ASHA; and
the same six trials one and two at a time (``search.grid_points`` differs, which random search does not read: the sweep is
another one, and its trials run anew).
"""

from __future__ import annotations

import argparse
from typing import Any

from measure import hep2flow, machine, own_store, print_result

from hep2flow.store.open_store import open_store
from hep2flow.store.s3 import Store

LIMIT_SECONDS = 4.0  # of overhead per trial: what starting a plain Tune function cost before


class Sweep:
    """One finished sweep. seconds: of its command, Ray's start included; trained: of its trainings, by their own clocks."""

    def __init__(self, store: Store, result: dict[str, Any], seconds: float) -> None:
        early = store.get_json(f"{store.key(result['uri'])}/manifest.json")["early_stopping"]
        self.seconds, self.trained, self.epochs = seconds, early["seconds_run"], early["epochs_run"]
        self.trials, self.best = result["summary"]["trials"], result["summary"]["val_accuracy"]

    def facts(self) -> dict[str, Any]:
        """As the result tells it."""
        return {
            "seconds": self.seconds,
            "trials": self.trials,
            "epochs": self.epochs,
            "best_val_accuracy": round(self.best, 4),
        }


def main() -> None:
    """Four sweeps on the full synthetic twin."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="convnext-b")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--set", action="append", default=[], help="override a leaf of the recipe")
    arguments = parser.parse_args()
    with own_store() as folder:
        twin = str(folder / "twin")
        hep2flow("data", "synth", twin)
        dataset = hep2flow("ingest", "--source", twin, "--json").json()["uri"]
        division = hep2flow("split", "--dataset", dataset, "--json").json()["uri"]
        store, at = open_store(), machine()

        def sweep(trials: int, concurrency: int, *overrides: str) -> Sweep:
            changes = ["search.algorithm=random", *arguments.set, *overrides]
            done = hep2flow(
                "tune",
                f"--recipe={arguments.recipe}",
                "--profile=laptop",
                f"--dataset={dataset}",
                f"--split={division}",
                f"--trials={trials}",
                f"--concurrency={concurrency}",
                "--judge=0",
                "--json",
                *(f"--set={change}" for change in changes),
            )
            return Sweep(store, done.json(), done.seconds)

        short = "search.length=0.1"
        sweep(1, 1, short, "train.seed=99")  # the first start of Ray reads its files from disk
        one = sweep(1, 1, short, "search.early_stopping=none")
        several = sweep(5, 1, short, "search.early_stopping=none", "train.seed=1")
        # What one trial does not take of its command is the start of everything.
        start = one.seconds - one.trained
        overhead = round((several.seconds - start - several.trained) / several.trials, 2)
        long = "search.length=0.3"
        apart = sweep(6, 1, long, "search.early_stopping=none", "train.seed=2")
        beside = sweep(6, 2, long, "search.early_stopping=none", "train.seed=2", "search.grid_points=2")
        full = sweep(arguments.trials, 2, "search.early_stopping=none")
        stopped = sweep(arguments.trials, 2, "search.early_stopping=asha")
    print_result(
        "sweep",
        overhead,
        LIMIT_SECONDS,
        overhead <= LIMIT_SECONDS,
        at,
        f"{overhead:.2f} s per trial over its training; ASHA ran {stopped.epochs} of {full.epochs} epochs, "
        f"best {stopped.best:.1%} against {full.best:.1%}",
        recipe=arguments.recipe,
        one_trial=one.facts(),
        five_trials=several.facts(),
        six_one_at_a_time=apart.facts(),
        six_two_at_a_time=beside.facts(),
        speed_of_two_over_one=round((apart.seconds - start) / (beside.seconds - start), 3),
        without_early_stopping=full.facts(),
        asha=stopped.facts(),
        epochs_ratio=round(stopped.epochs / full.epochs, 3),
    )


if __name__ == "__main__":
    main()
