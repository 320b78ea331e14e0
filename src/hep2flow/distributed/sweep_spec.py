"""The specification of a sweep, and the cells that its trials share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from hep2flow.recipe import Recipe
from hep2flow.store import layout
from hep2flow.store.address import StoreAddress
from hep2flow.store.datasets import open_dataset
from hep2flow.store.s3 import Store
from hep2flow.store.splits import Subset, read_split

if TYPE_CHECKING:
    import torch


class SweepSpec(BaseModel):
    """One sweep.

    Attributes:
        key: Of the sweep in the store.
        recipe: Its ``search`` section says what is tried.
        datasets: data.mask -> URI of the data set masked so, for every value that is tried.
        halves: URI of the split into training, choosing (val) and judging (test) cells.
        trials: Total number, existing ones included.
        concurrency: Trials at once, None for as many as fit on the cluster.
        seconds: Time budget, None for no limit.
        weights: Store key of the initial weights (safetensors), None for none.
    """

    model_config = ConfigDict(extra="forbid")

    store: StoreAddress
    key: str
    recipe: Recipe
    datasets: dict[str, str]
    halves: str
    trials: int
    concurrency: int | None = None
    seconds: float | None = None
    weights: str | None = None

    @property
    def prefix(self) -> str:
        """Of the sweep in the store."""
        return layout.output_prefix("tune", self.key)

    def state_prefix(self, number: int) -> str:
        """Where a trial's state is while it runs, and while another trial may start from it."""
        return f"{self.prefix}/running/{number:05d}"


class SweepCells(BaseModel):
    """Rows of a sweep's cells under one ``data.mask``; without trainings that judge, ``judging`` is empty."""

    model_config = ConfigDict(extra="forbid")

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

    return SweepCells(
        labels=dataset.manifest["labels"],
        bits=dataset.manifest["bits"],
        training=rows("train"),
        validation=rows("val"),
        judging=rows("test") if judging else [],
    )
