"""How many workers fit on the Ray cluster, now and later."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray
from ray.util.client import ray as client

from hep2flow.errors import UserError
from hep2flow.process import in_background
from hep2flow.recipe import Resources

POLL_SECONDS = 3.0
STABLE_POLLS = 3  # capacity found in so many polls in a row is taken to be permanent


def worker_resources(resources: Resources) -> dict[str, float]:
    """Resources of one worker under Ray's names."""
    requested = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    return {kind: float(count) for kind, count in requested.items() if count}


def free_workers(resources: Resources) -> int:
    """Number of additional workers that fit on the cluster, counted node by node."""
    # Through Ray's client (ray://) only a task on the cluster can read its state.
    free = ray.get(ray.remote(num_cpus=0)(_free_resources).remote()) if client.is_connected() else _free_resources()
    return sum(_fitting(available, resources) for available in free.values())


def _free_resources() -> dict[str, dict[str, float]]:
    """Node id -> available resources."""
    return dict(ray._private.state.available_resources_per_node())


def check_capacity(resources: Resources, workers: int | None = None) -> None:
    """Refuse workers that the cluster can never hold.

    So many workers have to fit, by default the recipe's minimum; a cluster named by ``RAY_ADDRESS`` may autoscale, so that
    missing ones are waited for.

    Raises:
        UserError: No node can hold one worker, or the local machine cannot hold all; it names the recipe's key.
    """
    autoscales = bool(os.environ.get("RAY_ADDRESS"))
    minimum = resources.workers.min if workers is None else workers
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for kind, required in worker_resources(resources).items():
        key = f"resources.{kind.lower()}s_per_worker"
        largest = max((node.get(kind, 0.0) for node in nodes), default=0.0)
        if required > largest and not (autoscales and not nodes):
            what = f"the recipe asks for {required:g} {kind}s on a worker, the largest machine of the Ray cluster has"
            raise UserError(f"{key}: {what} {largest:g}; give it more, or --set {key}={int(largest)}")
    fitting = sum(_fitting(node, resources) for node in nodes)
    if minimum > fitting and not autoscales:
        what = f"the recipe asks for {minimum} workers, this machine has capacity for {fitting}"
        fix = f"--set resources.workers={fitting}, or name a larger cluster with --address"
        raise UserError(f"resources.workers: {what}; {fix}")


def _fitting(available: dict[str, float], resources: Resources) -> int:
    return min(int(available.get(kind, 0.0) // count) for kind, count in worker_resources(resources).items())


def alive_nodes() -> set[str]:
    """Ids of the cluster's nodes that are alive."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


@contextmanager
def watch_capacity(count: Callable[[], int], on_growth: Callable[[int], None]) -> Iterator[None]:
    """Call ``on_growth(n)`` once, as soon as ``count()`` has been positive in STABLE_POLLS polls in a row; n is the last."""

    def poll(over: threading.Event) -> None:
        positive = 0
        while positive < STABLE_POLLS:
            if over.wait(POLL_SECONDS):
                return
            free = count()
            positive = positive + 1 if free > 0 else 0
        on_growth(free)

    with in_background(poll, "capacity"):
        yield
