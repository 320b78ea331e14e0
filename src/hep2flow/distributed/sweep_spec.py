"""The specification of a sweep, and the cells that its trials share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from hep2flow.recipe import Recipe
from hep2flow.store import layout
from hep2flow.store.address import StoreAddress
from hep2flow.store.datasets import open_dataset
from hep2flow.store.s3 import Store
from hep2flow.store.splits import Subset, read_split

if TYPE_CHECKING:
    import torch


class SweepSpec(BaseModel, extra="forbid"):
    """One sweep."""

    store: StoreAddress
    key: str  # of the sweep in the store
    recipe: Recipe  # its ``search`` section says what is tried
    datasets: dict[str, str]  # data.mask -> URI of the data set masked so, for every value that is tried
    halves: str  # URI of the split into training, choosing (val) and judging (test) cells
    trials: int  # total number, existing ones included
    concurrency: int | None = None  # trials at once, None for as many as fit on the cluster
    seconds: float | None = None  # time budget, None for no limit
    weights: str | None = None  # store key of the initial weights (safetensors), None for none

    @property
    def prefix(self) -> str:
        """Of the sweep in the store."""
        return layout.output_prefix("tune", self.key)

    def state_prefix(self, number: int) -> str:
        """Where a trial's state is while it runs, and while another trial may start from it."""
        return f"{self.prefix}/running/{number:05d}"


class SweepCells(BaseModel, extra="forbid"):
    """Rows of a sweep's cells under one ``data.mask``; without trainings that judge, ``judging`` is empty."""

    labels: list[str]
    bits: int
    training: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    judging: list[dict[str, Any]] = []


def share_cells(store: Store, spec: SweepSpec, *, judging: bool = False) -> tuple[dict[str, Any], torch.Tensor]:
    """Put the cells of a sweep into Ray's object store, which keeps them once per node however many trials run there.

    Returns:
        data.mask -> Ray's reference of its SweepCells, and the training cells' labels, int64 (n,), the same for each mask.
    """
    import ray
    import torch

    cells = {mask: _read_cells(store, spec, uri, judging=judging) for mask, uri in spec.datasets.items()}
    first = next(iter(cells.values()))
    labels = torch.tensor([first.labels.index(row["pattern"]) for row in first.training])
    return {mask: ray.put(each) for mask, each in cells.items()}, labels


def _read_cells(store: Store, spec: SweepSpec, uri: str, *, judging: bool) -> SweepCells:
    from hep2flow.data.cell_set import required_columns

    dataset, split = open_dataset(store, uri), read_split(store, spec.halves)
    # A trial of a searched model.aux_features may measure cells, which needs their masks.
    measured = "model.aux_features" in spec.recipe.search.space and not spec.recipe.model.aux_features
    columns = [*required_columns(spec.recipe), *(["mask"] if measured else [])]

    def rows(subset: Subset) -> list[dict[str, Any]]:
        # The parts of an official test set are not even downloaded.
        return list(dataset.rows(set(split.ids(subset)), columns, {"train", None}))

    cells = {"training": rows("train"), "validation": rows("val"), "judging": rows("test") if judging else []}
    return SweepCells(labels=dataset.manifest["labels"], bits=dataset.manifest["bits"], **cells)
