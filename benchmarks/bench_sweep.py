"""What a sweep costs beside its trainings, what early stopping saves, and what two trials at once gain.

Each trial's training is measured by its own clock, the sweep by the wall's: the overhead per trial is the difference, trials
one after another, Ray's start left out. The same 16 configurations (random search, one seed) run with and without ASHA; and
the same trials one and two at a time.
"""

from __future__ import annotations

import argparse
import io
from typing import Any

import pandas as pd
from measure import hep2flow, machine, own_store, tell

from hep2flow.store.s3 import Store, open_store

LIMIT_SECONDS = 4.0  # of overhead per trial: what starting a plain Tune function cost before


class Sweep:
    """One finished sweep: its table, its wall seconds from the first trial's begin to the last one's end, its command's."""

    def __init__(self, store: Store, result: dict[str, Any], seconds: float) -> None:
        folder = store.key(result["uri"])
        self.command_seconds = seconds
        self.trials = pd.read_parquet(io.BytesIO(store.get_bytes(f"{folder}/trials.parquet")))
        self.best = result["summary"]["val_accuracy"]
        self.early = store.get_json(f"{folder}/manifest.json")["early_stopping"]
        records = list(store.list(f"{folder}/trials"))
        self.written = max(item.modified for item in records)

    def facts(self) -> dict[str, Any]:
        return {
            "command_seconds": self.command_seconds,
            "trials": len(self.trials),
            "epochs": self.early["epochs_run"],
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
        trained = several.early["seconds_run"] - one.early["seconds_run"]
        overhead = round((several.command_seconds - one.command_seconds - trained) / 4, 2)
        two = sweep(5, 2, short, "search.early_stopping=none", "train.seed=2")
        full = sweep(arguments.trials, 2, "search.early_stopping=none")
        stopped = sweep(arguments.trials, 2, "search.early_stopping=asha")
    tell(
        "sweep",
        overhead,
        LIMIT_SECONDS,
        overhead <= LIMIT_SECONDS,
        at,
        f"{overhead:.2f} s per trial over its training; ASHA ran {stopped.early['epochs_run']} of "
        f"{full.early['epochs_run']} epochs, best {stopped.best:.1%} against {full.best:.1%}",
        recipe=arguments.recipe,
        one_trial_seconds=one.command_seconds,
        five_trials_seconds=several.command_seconds,
        five_trials_two_at_once_seconds=two.command_seconds,
        two_over_one=round(several.command_seconds / two.command_seconds, 3),
        two_over_one_of_the_trials=round(
            (several.command_seconds - (one.command_seconds - one.early["seconds_run"]))
            / (two.command_seconds - (one.command_seconds - one.early["seconds_run"])),
            3,
        ),
        without_early_stopping=full.facts(),
        asha=stopped.facts(),
        epochs_ratio=round(stopped.early["epochs_run"] / full.early["epochs_run"], 3),
    )


if __name__ == "__main__":
    main()
