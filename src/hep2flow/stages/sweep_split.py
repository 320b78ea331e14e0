"""Split the validation cells in two: one half for a sweep to select by, the other to judge what it selected."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from hep2flow.errors import UserError
from hep2flow.stage_result import StageResult
from hep2flow.stages.split import by_specimen, stratified
from hep2flow.store.datasets import open_dataset
from hep2flow.store.s3 import Store
from hep2flow.store.splits import Subset, read_split, write_split
from hep2flow.store.stage_cache import CachedStage, stage_key

HALVES = "halves"


def split_validation(store: Store, dataset: str, split: str) -> StageResult:
    """Write a sweep's own split: ``val`` is the half that selects, ``test`` the half that judges.

    A specimen's cells are all in one half where every pattern has two specimens in validation, else cells are drawn within
    each pattern; the summary's ``by`` says which. The training cells stay; the test cells are in neither half, so that a
    sweep has no access to them.

    Raises:
        UserError: The validation cells of a pattern are too few, or the split selects on the test set.
    """
    opened, divided = open_dataset(store, dataset), read_split(store, split)
    if divided.protocol == "whole-train":
        raise UserError(
            "data.split.protocol: whole-train validates on the test set, and no sweep may see it; choose another protocol"
        )
    inputs = {"dataset": opened.digest, "split": divided.digest}
    cache = CachedStage(store, "halve", stage_key("halve", inputs))
    if (cached := cache.lookup()) is not None:
        return cached
    columns = ["cell_id", "pattern", "specimen_id"]
    # The parts of the official test set are not even downloaded.
    rows = opened.rows(set(divided.ids("val")), columns, {"train", None})
    validation = pd.DataFrame.from_records(list(rows), columns=columns)
    few = [pattern for pattern, count in validation["pattern"].value_counts().items() if count < 2]
    if few:
        raise UserError(
            f"sweep: one validation cell of {', '.join(map(str, few))} cannot both choose and judge; "
            "add cells, or lower data.split.train_fraction"
        )
    try:
        by, sides = "specimen", by_specimen(validation, 0.5, 0)
    except UserError:
        by, sides = "cell", stratified(validation, 0.5, 0)
    subsets: dict[Subset, Subset] = {"train": "val", "val": "test"}
    assignment = {cell: subsets[side] for cell, side in sides.items()} | dict.fromkeys(divided.ids("train"), "train")
    built = replace(divided, subsets=assignment, protocol=HALVES)
    uri, counts = write_split(store, built), built.counts()
    summary = {"by": by, "trains": counts["train"], "chooses": counts["val"], "judges": counts["test"]}
    return cache.commit(uri, "object", summary)
