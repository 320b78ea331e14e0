"""How long a person waits: for help, for the version, for the store, and for a training's first update."""

from __future__ import annotations

import argparse
import statistics
from datetime import datetime

from measure import Command, hep2flow, machine, own_store, print_result

from training import RECIPES, twin_in_store

LIMIT_HELP_SECONDS = 0.3
LIMIT_STORE_SECONDS = 5.0
LIMIT_FIRST_UPDATE_SECONDS = 20.0


def main() -> None:
    """Measure medians over some rounds; the first call of each command is not counted, it reads from the disk."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with own_store() as folder:
        at = machine()
        shown = {name: median_seconds(rounds, name) for name in ("--help", "--version")}
        hep2flow("storage", "up")
        store = []
        for _ in range(rounds):
            hep2flow("storage", "down")
            store.append(hep2flow("storage", "up").seconds)
        dataset, division = twin_in_store(folder)
        train = ["train", f"--recipe={RECIPES[0]}", "--profile=laptop", f"--dataset={dataset}", f"--split={division}"]
        updates = [first_update([*train, "--set=train.max_updates=2", f"--set=train.seed={seed}"]) for seed in range(3)]
    store_seconds, update_seconds = round(statistics.median(store), 2), statistics.median(updates)
    print_result(
        "startup",
        shown["--help"],
        LIMIT_HELP_SECONDS,
        max(shown.values()) <= LIMIT_HELP_SECONDS
        and store_seconds <= LIMIT_STORE_SECONDS
        and update_seconds <= LIMIT_FIRST_UPDATE_SECONDS,
        at,
        f"help after {shown['--help']:.2f} s, the store after {store_seconds:.1f} s, "
        f"a first update after {update_seconds:.1f} s",
        version_seconds=shown["--version"],
        store_seconds=store_seconds,
        limit_store_seconds=LIMIT_STORE_SECONDS,
        first_update_seconds=updates,
        limit_first_update_seconds=LIMIT_FIRST_UPDATE_SECONDS,
    )


def median_seconds(rounds: int, *arguments: str) -> float:
    """Median wall seconds of a command, without its first call."""
    commands: list[Command] = [hep2flow(*arguments) for _ in range(1 + rounds)]
    return round(statistics.median(command.seconds for command in commands[1:]), 3)


def first_update(command: list[str]) -> float:
    """Seconds from the command to the end of its first update."""
    started = datetime.now().astimezone()
    result = hep2flow(*command, "--json").json()
    return round((datetime.fromisoformat(result["summary"]["timing"]["first_update"]) - started).total_seconds(), 2)


if __name__ == "__main__":
    main()
