"""What a sweep is asked to do, and the cells its trials share."""

from __future__ import annotations

from typing import Any, Literal

import ray
from pydantic import BaseModel, ConfigDict

from hep2flow.distributed.trial import Cells
from hep2flow.recipe import Recipe
from hep2flow.store import layout
from hep2flow.store.datasets import open_dataset
from hep2flow.store.s3 import Store, StoreAddress
from hep2flow.store.splits import Subset, read_split


class SweepSpec(BaseModel):
    """One sweep.

    key:         of the sweep in the store
    recipe:      whose ``search`` says what is tried
    datasets:    data.mask -> URI of the data set in that form; all that are tried
    halves:      URI of the cells' division into training, choosing and judging ones
    trials:      in all, those that are there already included
    concurrency: trials at once, None for as many as the cluster has room for
    seconds:     after which no epoch is waited for any more, None for no limit
    weights:     key of safetensors to start from, None to start from scratch
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
        return layout.sweep_prefix(self.key)

    def running(self, number: int) -> str:
        """Where the state of a trial lies while it runs, and while another one may go on from it."""
        return f"{self.prefix}/running/{number:05d}"


def read_cells(store: Store, spec: SweepSpec, use: Literal["choose", "judge"]) -> dict[str, Cells]:
    """data.mask -> the cells of the sweep; those that judge only where they are wanted."""
    return {mask: _cells(store, spec, uri, judging=use == "judge") for mask, uri in spec.datasets.items()}


def held(cells: dict[str, Cells]) -> dict[str, Any]:
    """The same as references: Ray keeps them once on each machine, however many trials run there."""
    return {mask: ray.put(those) for mask, those in cells.items()}


def _cells(store: Store, spec: SweepSpec, uri: str, *, judging: bool) -> Cells:
    from hep2flow.data.cell_set import columns

    dataset, division = open_dataset(store, uri), read_split(store, spec.halves)
    searched = "model.aux_features" in spec.recipe.search.space  # some trials may measure the cells
    names = [*columns(spec.recipe), *(["mask"] if searched and not spec.recipe.model.aux_features else [])]

    def rows(subset: Subset) -> list[dict[str, Any]]:
        # The parts of an official test set are not even fetched.
        return list(dataset.rows(set(division.ids(subset)), names, {"train", None}))

    return Cells(
        labels=dataset.manifest["labels"],
        bits=dataset.manifest["bits"],
        training=rows("train"),
        validation=rows("val"),
        judging=rows("test") if judging else [],
    )
