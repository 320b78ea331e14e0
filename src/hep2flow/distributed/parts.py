"""A large data set's cells spread over a Ray cluster by Ray Data: each machine fetches parts of its own from the store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from hep2flow.cells import Cell
from hep2flow.distributed.cluster import connected
from hep2flow.store.datasets import Dataset, open_dataset
from hep2flow.store.s3 import StoreAddress, open_store

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
