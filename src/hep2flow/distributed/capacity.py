"""How many workers the Ray cluster has room for, now and later."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray
from ray.util.client import ray as client

from hep2flow.errors import UserError
from hep2flow.recipe import Resources


def per_worker(resources: Resources) -> dict[str, float]:
    """What each worker asks for, as Ray names it."""
    asked = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    return {kind: float(count) for kind, count in asked.items() if count}


def room(resources: Resources) -> int:
    """Workers that fit beside what runs already, machine by machine."""
    # Through ray:// the question has to be asked on the cluster.
    free = ray.get(ray.remote(num_cpus=0)(_free).remote()) if client.is_connected() else _free()
    return sum(_fit(have, resources) for have in free.values())


def _free() -> dict[str, dict[str, float]]:
    """Node id -> resources that nobody holds."""
    return dict(ray._private.state.available_resources_per_node())


def check_room(resources: Resources, *, grows: bool) -> None:
    """Refuse a worker that no machine of the cluster could hold, and more workers than it ever holds.

    grows: machines may still come, as on a cluster that is not ours: then too few are waited for
    Raises UserError naming the key.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for kind, want in per_worker(resources).items():
        key = f"resources.{kind.lower()}s_per_worker"
        most = max((machine.get(kind, 0.0) for machine in machines), default=0.0)
        if want > most and not (grows and not machines):
            raise UserError(
                f"{key}: the recipe asks for {want:g} {kind}s on a worker, the largest machine of the Ray cluster has "
                f"{most:g}; give it more, or --set {key}={int(most)}"
            )
    fit = sum(_fit(machine, resources) for machine in machines)
    if resources.workers.min > fit and not grows:
        raise UserError(
            f"resources.workers: the recipe asks for {resources.workers.min} workers, this machine has room for {fit}; "
            f"--set resources.workers={fit}, or name a larger cluster with --address"
        )


def machines() -> set[str]:
    """Ids of the machines that live."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _fit(have: dict[str, float], resources: Resources) -> int:
    return min(int(have.get(kind, 0.0) // want) for kind, want in per_worker(resources).items())


SECONDS = 3.0
LOOKS = 3  # room that is there at so many looks in a row is there to stay


@contextmanager
def watched(room: Callable[[], int], grow: Callable[[int], None]) -> Iterator[None]:
    """Calls ``grow`` with the workers there is room for, once, as soon as ``room`` keeps saying more than none."""
    over = threading.Event()

    def watch() -> None:
        looks = 0
        while not over.wait(SECONDS):
            more = room()
            looks = looks + 1 if more > 0 else 0
            if looks == LOOKS:
                grow(more)
                return

    watcher = threading.Thread(target=watch, name="growth", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
