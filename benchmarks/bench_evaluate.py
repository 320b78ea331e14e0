"""How long ``hep2flow evaluate`` takes on the full synthetic twin's 734 test cells, in eight views and in one."""

from __future__ import annotations

import argparse

from measure import hep2flow, machine, own_store, print_result

from training import RECIPES, twin_in_store

LIMIT_SECONDS = 40.0


def main() -> None:
    """Measure both laptop recipes; the short trainings before them are not timed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=8, help="of each training")
    updates = parser.parse_args().updates
    done = {}
    with own_store() as folder:
        dataset, division = twin_in_store(folder)
        for name in RECIPES:
            choices = [f"--recipe={name}", "--profile=laptop", f"--dataset={dataset}", f"--split={division}"]
            choices.append(f"--set=train.max_updates={updates}")
            training = hep2flow("train", *choices, "--json").json()["uri"]
            at = machine()
            done[name] = hep2flow("evaluate", *choices, f"--training={training}", "--json")
    slowest = max(one.seconds for one in done.values())
    print_result(
        "evaluate",
        slowest,
        LIMIT_SECONDS,
        slowest <= LIMIT_SECONDS,
        at,
        ", ".join(f"{name} {one.seconds:.1f} s" for name, one in done.items()),
        cells=done[RECIPES[0]].json()["summary"]["n"],
        **{name: one.figures() for name, one in done.items()},
    )


if __name__ == "__main__":
    main()
