"""How long ``make demo`` takes on a fresh store, its share without training, and how long the same run takes again."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from measure import RUNS, hep2flow, machine, median_of, own_store, print_result

LIMIT_SECONDS = 360.0
LIMIT_OTHER_SECONDS = 45.0
LIMIT_AGAIN_SECONDS = 10.0

Stage = dict[str, Any]  # one of `hep2flow runs show ID --json`
Interval = tuple[float, float]


def main() -> None:
    """Measure ``hep2flow run`` twice over the same cells, several times; generating them is not timed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe's leaf")
    parser.add_argument("--runs", type=int, default=RUNS)
    arguments = parser.parse_args()
    at = machine()
    runs = [one_run(arguments.set) for _ in range(arguments.runs)]
    first, other, again = (median_of(runs, name) for name in ("seconds", "other_seconds", "again_seconds"))
    print_result(
        "pipeline",
        first,
        LIMIT_SECONDS,
        first <= LIMIT_SECONDS
        and other <= LIMIT_OTHER_SECONDS
        and again <= LIMIT_AGAIN_SECONDS
        and not any(run["again_computed"] for run in runs),
        at,
        f"{first:.1f} s, of which {other:.1f} s neither train, evaluate nor draw; again in {again:.1f} s "
        f"(medians of {len(runs)})",
        overrides=arguments.set,
        other_seconds=other,
        limit_other_seconds=LIMIT_OTHER_SECONDS,
        again_seconds=again,
        limit_again_seconds=LIMIT_AGAIN_SECONDS,
        runs=runs,
    )


def one_run(overrides: list[str]) -> dict[str, Any]:
    """Run the pipeline in a fresh store, and the same again."""
    with own_store() as folder:
        twin, load = str(folder / "twin"), machine()["load"]
        hep2flow("data", "synth", twin)
        choices = ["--source", twin, "--profile", "laptop", *(f"--set={override}" for override in overrides)]
        first = hep2flow("run", *choices, "--run-id", "first", "--out", str(folder / "first"))
        again = hep2flow("run", *choices, "--run-id", "again", "--out", str(folder / "again"))
        stages, repeated = stages_of("first"), stages_of("again")
    result = {
        "load": load,
        "seconds": first.seconds,
        "other_seconds": round(first.seconds - covered_seconds(method_intervals(stages)), 2),
        "again_seconds": again.seconds,
        "again_computed": [
            name for name, stage in repeated.items() if not stage["cached"] and stage["stage"] != "report"
        ],
        "stages": {name: stage["seconds"] for name, stage in stages.items()},
        "train_seconds": {
            name: round(train_seconds(stage), 2) for name, stage in stages.items() if stage["stage"] == "train"
        },
        "again_stages": {name: stage["seconds"] for name, stage in repeated.items()},
        "first": first.figures(),
        "again": again.figures(),
    }
    print(json.dumps(result), file=sys.stderr, flush=True)
    return result


def stages_of(run_id: str) -> dict[str, Stage]:
    """Return the run's stages by ``stage-model``, in the order of their starts."""
    view = hep2flow("runs", "show", run_id, "--json").json()
    return {"-".join(filter(None, (stage["stage"], stage["model"]))): stage for stage in view["stages"]}


def train_seconds(stage: Stage) -> float:
    """Seconds that a train stage spent on data, updates and validation: the manifest's ``timing.train_seconds``."""
    return float(stage["result"]["summary"]["timing"]["train_seconds"])


def method_intervals(stages: dict[str, Stage]) -> list[Interval]:
    """Intervals of training, evaluation and drawing, in seconds since the epoch. Starts are known to the second."""
    intervals = []
    for stage in stages.values():
        start = datetime.fromisoformat(stage["started"].replace("Z", "+00:00")).timestamp()
        end = start + stage["seconds"]
        if stage["stage"] == "train":
            # Starting Ray and its workers comes first, and is no training.
            intervals.append((end - train_seconds(stage), end))
        elif stage["stage"] in {"evaluate", "report"}:
            intervals.append((start, end))
    return intervals


def covered_seconds(intervals: Iterable[Interval]) -> float:
    """Seconds that at least one of the intervals covers."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


if __name__ == "__main__":
    main()
