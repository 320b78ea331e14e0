"""Halve: the validation cells in two, one half for a sweep to choose by, the other to judge what it chose."""

from __future__ import annotations

import pandas as pd

from hep2flow.errors import UserError
from hep2flow.stage_result import StageResult
from hep2flow.stages.split import by_specimen, stratified
from hep2flow.store.datasets import open_dataset
from hep2flow.store.s3 import Store
from hep2flow.store.splits import Split, Subset, read_split, write_split
from hep2flow.store.stage_cache import code_version, commit, lookup, stage_key

HALVES = "halves"


def halve(store: Store, dataset: str, split: str) -> StageResult:
    """Write a split of its own for a sweep: ``val`` is the half that chooses, ``test`` the half that judges.

    dataset: URI of a data set; split: URI of its division
    Whole specimens lie in one half where every pattern has two of them in validation, else cells are drawn within each
    pattern; the summary says which, under ``by``. The training cells stay; the test cells are in neither half, and so a
    sweep cannot even ask for them.
    Raises UserError where the validation cells of a pattern are too few to be halved, and for a division that chooses on
    the test set.
    """
    opened, divided = open_dataset(store, dataset), read_split(store, split)
    if divided.protocol == "whole-train":
        raise UserError(
            "data.split.protocol: whole-train validates on the test set, and no sweep may see it; choose another protocol"
        )
    key = stage_key("halve", {"dataset": opened.ref.digest, "split": divided.digest}, code_version("halve"))
    entry = lookup(store, "halve", key)
    if entry is not None:
        return StageResult(stage="halve", key=key, uri=entry["output"]["uri"], cached=True, summary=entry["summary"])
    columns = ["cell_id", "pattern", "specimen_id"]
    # The parts of the test cells are not even fetched.
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
    built = Split(
        assignment,
        protocol=HALVES,
        ratio=divided.ratio,
        seed=divided.seed,
        dataset_digest=divided.dataset_digest,
    )
    uri, counts = write_split(store, built), built.counts()
    summary = {"by": by, "trains": counts["train"], "chooses": counts["val"], "judges": counts["test"]}
    commit(store, "halve", key, {"output": {"uri": uri, "kind": "object"}, "summary": summary})
    return StageResult(stage="halve", key=key, uri=uri, summary=summary)
