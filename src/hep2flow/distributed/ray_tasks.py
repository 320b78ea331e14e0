"""Single functions on the Ray cluster: one on a GPU worker, one over all cells of a large data set."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import ray

from hep2flow.cells import Cell
from hep2flow.distributed.capacity import check_room, per_worker
from hep2flow.distributed.ray_cluster import connected
from hep2flow.recipe import Resources
from hep2flow.store.datasets import Dataset, open_dataset
from hep2flow.store.s3 import StoreAddress, open_store

Result = TypeVar("Result")


def on_a_worker(resources: Resources, work: Callable[..., Result], *given: Any) -> Result:
    """Call ``work`` where there is room for one worker of these resources, and return what it returns.

    work: importable there too; a lost worker's is begun again
    Raises UserError where no machine of the cluster could hold it, and whatever ``work`` raises.
    """
    check_room(
        resources.model_copy(update={"workers": resources.workers.model_copy(update={"min": 1, "max": 1})}),
        grows=bool(os.environ.get("RAY_ADDRESS")),
    )
    asked = per_worker(resources)
    task = ray.remote(num_cpus=asked.get("CPU", 0), num_gpus=asked.get("GPU", 0), max_retries=2)(work)
    try:
        result: Result = ray.get(task.remote(*given))
    except ray.exceptions.RayTaskError as error:
        raise error.as_instanceof_cause() from error
    return result


Row = dict[str, Any]


def over_machines(work: Callable[[Cell], Row], dataset: Dataset) -> Iterator[Row]:
    """``work`` of every cell of a data set, in their order; what it makes of them comes as it is asked for.

    work: importable on the cluster too; a row of plain values
    Raises UserError where the cluster cannot be reached, and what ``work`` raises.
    """
    with connected():
        from ray.data import DataContext, from_items

        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = DataContext.get_current().copy()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = context.print_on_execution_start = False
        files = [part["file"] for part in dataset.manifest["parts"]]
        with DataContext.current(context):
            parts = from_items(files, override_num_blocks=len(files))
        yield from parts.flat_map(partial(_rows, work, dataset.store.address, dataset.ref.uri)).iter_rows()


def _rows(work: Callable[[Cell], Row], store: StoreAddress, dataset: str, part: Row) -> Iterator[Row]:
    for row in open_dataset(open_store(store), dataset).rows_of(part["item"]):
        yield work(Cell(**row))
