"""Functions as Ray tasks: one on a worker, or one over all cells of a large data set."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import ray

from hep2flow.cells import Cell
from hep2flow.distributed.capacity import check_capacity, worker_resources
from hep2flow.distributed.ray_cluster import connected
from hep2flow.recipe import Resources
from hep2flow.store.address import StoreAddress
from hep2flow.store.datasets import Dataset, open_dataset
from hep2flow.store.open_store import open_store

RETRIES = 2  # of a task whose process or node was lost

Result = TypeVar("Result")
Row = dict[str, Any]


def remote_task(function: Callable[..., Any], requested: dict[str, float]) -> Any:
    """The function as a Ray task with these resources, retried when its worker is lost but not when it raises."""
    return ray.remote(num_cpus=requested.get("CPU", 0), num_gpus=requested.get("GPU", 0), max_retries=RETRIES)(function)


def task_result(reference: Any) -> Any:
    """Wait for a task and return its result; raise what it raised, as its own class."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.as_instanceof_cause() from error


def run_on_worker(resources: Resources, function: Callable[..., Result], *arguments: Any) -> Result:
    """Call an importable function on one worker with these resources, and return its result.

    Raises:
        UserError: No node of the cluster can hold the worker.
        Exception: Whatever ``function`` raises.
    """
    check_capacity(resources, 1)
    result: Result = task_result(remote_task(function, worker_resources(resources)).remote(*arguments))
    return result


def map_cells(function: Callable[[Cell], Row], dataset: Dataset) -> Iterator[Row]:
    """Map an importable function over all cells of a data set on the cluster, in their order and lazily.

    Raises:
        UserError: The cluster is unreachable.
        Exception: Whatever ``function`` raises.
    """
    with connected():
        from ray.data import DataContext, from_items

        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = DataContext.get_current().copy()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = context.print_on_execution_start = False
        files = [part["file"] for part in dataset.manifest["parts"]]
        with DataContext.current(context):
            # One block, so one task, per Parquet part: each worker reads its part from the store itself.
            parts = from_items(files, override_num_blocks=len(files))
        yield from parts.flat_map(partial(_map_part, function, dataset.store.address, dataset.uri)).iter_rows()


def _map_part(function: Callable[[Cell], Row], store: StoreAddress, dataset: str, part: Row) -> Iterator[Row]:
    for row in open_dataset(open_store(store), dataset).rows_of(part["item"]):
        yield function(Cell(**row))
