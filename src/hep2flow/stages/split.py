"""Split: the cells to train on, to select the epoch by, and to test on once at the end (paper section 3.2)."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from hep2flow.errors import UserError
from hep2flow.recipe import Split as SplitChoice
from hep2flow.stage_result import StageResult
from hep2flow.store.datasets import Dataset, open_dataset
from hep2flow.store.s3 import Store
from hep2flow.store.splits import Split, Subset, read_split, write_split
from hep2flow.store.stage_cache import CachedStage, stage_key

if TYPE_CHECKING:
    import pandas as pd

Assignment = dict[str, Subset]  # by cell_id

HALVES = "halves"  # the protocol of a sweep's own split
BLOCKS_PER_PATTERN = 14  # I3A: 83 specimens over six patterns


def split(store: Store, dataset: str, choice: SplitChoice, given_split: str = "") -> StageResult:
    """Divide a data set and write the split, ``splits/{digest}.parquet``.

    An official test set stays the test set; the protocol divides its official training cells:

    - ``stratified``: at random within each pattern, by ``train_fraction`` (the paper's 5:5)
    - ``specimen``: all cells of a specimen on the same side
    - ``id-block``: the same for contiguous blocks of IDs, a proxy for I3A's unpublished specimens
    - ``whole-train``: train on all official training cells, validate on the test set (the paper's Appendix A)
    - ``given``: the source's own ``public_split.csv``, at the URI ``given_split``
    - ``auto``: given where there is one, else stratified

    Raises:
        UserError: The data set cannot be divided so.
    """
    opened = open_dataset(store, dataset)
    protocol = choice.protocol
    if protocol == "auto":
        protocol = "given" if given_split else "stratified"
    ratio, seed = (None, None) if protocol in {"given", "whole-train"} else (choice.train_fraction, choice.seed)
    inputs = {"dataset": opened.digest, "protocol": protocol, "train_fraction": ratio, "seed": seed}
    inputs["given_split"] = given_split if protocol == "given" else None
    cache = CachedStage(store, "split", stage_key("split", inputs))
    if (cached := cache.lookup()) is not None:
        return cached
    cells = opened.table(["cell_id", "official_split", "pattern", "specimen_id"])
    if protocol == "given":
        assignment = _given(opened, cells, given_split)
    elif protocol == "whole-train":
        assignment = _whole_train(opened, cells)
    else:
        assignment = _divide(opened, cells, protocol, choice)
    built = Split(assignment, protocol, ratio, seed, opened.digest)
    uri = write_split(store, built)
    shared = shared_specimens(cells, assignment)
    return cache.commit(uri, "object", {"protocol": protocol, "counts": built.counts(), "shared_specimens": shared})


def split_validation(store: Store, dataset: str, split: str) -> StageResult:
    """Halve the validation cells for a sweep: its split's ``val`` is the half that selects, ``test`` the one that judges.

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
    import pandas as pd

    columns = ["cell_id", "pattern", "specimen_id"]
    # The parts of the official test set are not even downloaded.
    rows = opened.rows(set(divided.ids("val")), columns, {"train", None})
    validation = pd.DataFrame.from_records(list(rows), columns=columns)
    if few := [pattern for pattern, count in validation["pattern"].value_counts().items() if count < 2]:
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


def shared_specimens(cells: pd.DataFrame, assignment: Mapping[str, Subset]) -> int | None:
    """Number of specimens with cells in both train and validation (leakage); None where specimens are unknown."""
    known = cells.dropna(subset=["specimen_id"])
    if known.empty:
        return None
    sides = known.assign(subset=known["cell_id"].map(assignment)).groupby("subset")["specimen_id"].agg(set)
    return len(sides.get("train", set()) & sides.get("val", set()))


def stratified(cells: pd.DataFrame, train_fraction: float, seed: int) -> Assignment:
    """Divide at random within each pattern.

    The training set has ceil(train_fraction * n) cells; each pattern's number of them is found by largest remainder.
    Cells are ordered by a hash of seed and ID and not by a random generator: every version of every library divides the
    same cells in the same way. ``cells``: cell_id, pattern; at least two cells per pattern. ``train_fraction`` in (0, 1).
    """
    groups = {pattern: list(group["cell_id"]) for pattern, group in cells.groupby("pattern")}
    fraction = Fraction(str(train_fraction))  # as written: 0.55 of 100 cells are 55, the float's are more
    exact = {pattern: fraction * len(ids) for pattern, ids in groups.items()}
    quota = {pattern: math.floor(share) for pattern, share in exact.items()}
    missing = math.ceil(fraction * len(cells)) - sum(quota.values())
    for pattern in sorted(exact, key=lambda name: (quota[name] - exact[name], name))[:missing]:
        quota[pattern] += 1
    assignment: Assignment = {}
    for pattern, ids in groups.items():
        count = min(max(quota[pattern], 1), len(ids) - 1)
        ordered = sorted(ids, key=lambda cell_id: _hash(seed, cell_id))
        assignment |= dict.fromkeys(ordered[:count], "train") | dict.fromkeys(ordered[count:], "val")
    return assignment


def by_specimen(cells: pd.DataFrame, train_fraction: float, seed: int) -> Assignment:
    """Assign each specimen, in an order drawn from the seed, to the side that lacks its patterns most.

    A pattern's last specimen goes to the side that has none of the pattern yet.

    Raises:
        UserError: A cell's specimen is unknown, or a pattern would be on one side only.
    """
    if unknown := int(cells["specimen_id"].isna().sum()):
        raise UserError(
            f"data.split.protocol: specimen needs every cell's specimen, {unknown} cells have none; choose stratified"
        )
    return _by_group(cells, cells["specimen_id"], "specimen", train_fraction, seed)


def by_id_block(cells: pd.DataFrame, train_fraction: float, seed: int) -> Assignment:
    """Assign contiguous blocks of IDs within each pattern, a proxy for specimens, as :func:`by_specimen` does."""
    return _by_group(cells, id_blocks(cells), "ID block", train_fraction, seed)


def id_blocks(cells: pd.DataFrame) -> pd.Series[str]:
    """Name of each cell's block of contiguous IDs within its pattern; cells: cell_id, pattern."""
    patterns = cells.sort_values("cell_id").groupby("pattern")["cell_id"]
    size = patterns.transform("size")
    block = (patterns.cumcount() * size.clip(upper=BLOCKS_PER_PATTERN) // size).map("{:02d}".format)
    named: pd.Series[str] = cells["pattern"] + "/" + block.reindex(cells.index)
    return named


def _given(opened: Dataset, cells: pd.DataFrame, given_split: str) -> Assignment:
    if not given_split:
        raise UserError(
            f"data.split.protocol: {opened.manifest['name']} comes with no public_split.csv; "
            "choose stratified, specimen or id-block"
        )
    assignment = dict(read_split(opened.store, given_split).subsets)
    if unmatched := len(assignment.keys() ^ set(cells["cell_id"])):
        raise UserError(
            f"{given_split}: not a division of {opened.uri}, {unmatched} cells are in one of the two only; "
            "give the split that this data set's ingest returned"
        )
    return assignment


def _whole_train(opened: Dataset, cells: pd.DataFrame) -> Assignment:
    tested = set(cells.loc[cells["official_split"] == "test", "cell_id"])
    if not tested:
        raise UserError(
            f"data.split.protocol: whole-train needs an official test set, {opened.manifest['name']} has none"
        )
    return {cell_id: "val" if cell_id in tested else "train" for cell_id in cells["cell_id"]}


def _divide(opened: Dataset, cells: pd.DataFrame, protocol: str, choice: SplitChoice) -> Assignment:
    if protocol == "id-block" and not opened.manifest["facts"]["id_order_is_proxy"]:
        raise UserError(
            f"data.split.protocol: id-block is for data whose ID order stands for specimens (I3A), "
            f"not for {opened.manifest['name']}"
        )
    official_test = cells["official_split"] == "test"
    rest = cells.loc[~official_test]
    counts = rest["pattern"].value_counts().items()
    if few := [f"{pattern} ({count} cell)" for pattern, count in counts if count < 2]:
        raise UserError(
            f"split: a pattern needs two cells, one to train on and one to validate: {', '.join(few)}; "
            "add cells or leave the pattern out"
        )
    divide = {"stratified": stratified, "specimen": by_specimen, "id-block": by_id_block}[protocol]
    test: Assignment = dict.fromkeys(cells.loc[official_test, "cell_id"], "test")
    return test | divide(rest, choice.train_fraction, choice.seed)


def _by_group(cells: pd.DataFrame, groups: pd.Series, kind: str, train_fraction: float, seed: int) -> Assignment:
    total = Counter(cells["pattern"])
    # Greedily: how many cells of each pattern each side still lacks of its share.
    shares: dict[Subset, float] = {"train": train_fraction, "val": 1 - train_fraction}
    lacking = {side: {pattern: share * count for pattern, count in total.items()} for side, share in shares.items()}
    assignment: Assignment = {}
    sides: dict[str, set[Subset]] = defaultdict(set)
    ordered = [members for _, members in sorted(cells.groupby(groups), key=lambda item: _hash(seed, str(item[0])))]
    remaining = Counter(pattern for members in ordered for pattern in set(members["pattern"]))
    for members in ordered:
        patterns = Counter(members["pattern"])
        remaining.subtract(patterns.keys())
        need = {side: sum(n * lacking[side][p] for p, n in patterns.items()) for side in lacking}
        side: Subset = "train" if need["train"] >= need["val"] else "val"
        without = {s for pattern in patterns if not remaining[pattern] for s in lacking if s not in sides[pattern]}
        if len(without) == 1:
            side = without.pop()
        for pattern, count in patterns.items():
            lacking[side][pattern] -= count
            sides[pattern].add(side)
        assignment |= dict.fromkeys(members["cell_id"], side)
    if one_sided := ", ".join(sorted(pattern for pattern in total if len(sides[pattern]) < 2)):
        raise UserError(
            f"split: with whole {kind}s on one side, no division leaves cells of {one_sided} on both; "
            f"these patterns need two {kind}s or more: choose stratified"
        )
    return assignment


def _hash(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
