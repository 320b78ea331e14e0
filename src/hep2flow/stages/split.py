"""Split: which cells are trained on, which choose the epoch, which are looked at once at the end (paper section 3.2)."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from hep2flow.errors import UserError
from hep2flow.recipe import Split as SplitChoice
from hep2flow.stage_result import StageResult
from hep2flow.store.datasets import open_dataset
from hep2flow.store.s3 import Store
from hep2flow.store.splits import Split, Subset, read_split, write_split
from hep2flow.store.stage_cache import code_version, commit, lookup, stage_key

if TYPE_CHECKING:
    import pandas as pd

Assignment = dict[str, Subset]  # by cell_id

BLOCKS_PER_PATTERN = 14  # I3A: 83 specimens over six patterns


def split(store: Store, dataset: str, choice: SplitChoice, given_split: str = "") -> StageResult:
    """Divide a data set and write the division, ``splits/{digest}.parquet``.

    An official test set stays the test set; its official training cells are divided by the protocol:

    - ``stratified``: at random within each pattern, by ``train_fraction`` (the paper's 5:5)
    - ``specimen``: whole specimens on one side or the other
    - ``id-block``: the same for contiguous blocks of IDs, a proxy for I3A's unpublished specimens
    - ``whole-train``: train on all official training cells, validate on the test set (the paper's Appendix A)
    - ``given``: the source's own ``public_split.csv``, at the URI ``given_split``
    - ``auto``: given where there is one, else stratified

    Raises UserError where the data set cannot be divided so.
    """
    opened = open_dataset(store, dataset)
    protocol = choice.protocol
    if protocol == "auto":
        protocol = "given" if given_split else "stratified"
    inputs: dict[str, Any] = {
        "dataset": opened.ref.digest,
        "protocol": protocol,
        "train_fraction": choice.train_fraction if protocol not in {"given", "whole-train"} else None,
        "seed": choice.seed if protocol not in {"given", "whole-train"} else None,
        "given_split": given_split if protocol == "given" else None,
    }
    key = stage_key("split", inputs, code_version("split"))
    entry = lookup(store, "split", key)
    if entry is not None:
        return StageResult(stage="split", key=key, uri=entry["output"]["uri"], cached=True, summary=entry["summary"])
    cells = opened.table(["cell_id", "official_split", "pattern", "specimen_id"])
    if protocol == "given":
        if not given_split:
            raise UserError(
                f"data.split.protocol: {opened.manifest['name']} comes with no public_split.csv; "
                "choose stratified, specimen or id-block"
            )
        assignment = dict(read_split(store, given_split).subsets)
        if strange := len(assignment.keys() ^ set(cells["cell_id"])):
            raise UserError(
                f"{given_split}: not a division of {dataset}, {strange} cells are in one of the two only; "
                "give the split that this data set's ingest returned"
            )
    elif protocol == "whole-train":
        if not (cells["official_split"] == "test").any():
            raise UserError(
                f"data.split.protocol: whole-train needs an official test set, {opened.manifest['name']} has none"
            )
        official = zip(cells["cell_id"].tolist(), cells["official_split"].tolist(), strict=True)
        assignment = {cell_id: "val" if part == "test" else "train" for cell_id, part in official}
    else:
        if protocol == "id-block" and not opened.manifest["facts"]["id_order_is_proxy"]:
            raise UserError(
                f"data.split.protocol: id-block is for data whose ID order stands for specimens (I3A), "
                f"not for {opened.manifest['name']}"
            )
        divide = {"stratified": stratified, "specimen": by_specimen, "id-block": by_id_block}[protocol]
        assignment = _divide(cells, divide, choice)
    built = Split(
        assignment,
        protocol=protocol,
        ratio=inputs["train_fraction"],
        seed=inputs["seed"],
        dataset_digest=opened.ref.digest,
    )
    uri = write_split(store, built)
    summary = {"protocol": protocol, "counts": built.counts(), "shared_specimens": shared_specimens(cells, assignment)}
    commit(store, "split", key, {"output": {"uri": uri, "kind": "object"}, "summary": summary})
    return StageResult(stage="split", key=key, uri=uri, summary=summary)


def shared_specimens(cells: pd.DataFrame, assignment: Mapping[str, Subset]) -> int | None:
    """Specimens with cells in both train and validation: leakage; None where specimens are unknown."""
    known = cells.dropna(subset=["specimen_id"])
    if known.empty:
        return None
    sides = known.assign(subset=known["cell_id"].map(assignment)).groupby("subset")["specimen_id"].agg(set)
    return len(sides.get("train", set()) & sides.get("val", set()))


def _divide(
    cells: pd.DataFrame, divide: Callable[[pd.DataFrame, float, int], Assignment], choice: SplitChoice
) -> Assignment:
    official_test = cells["official_split"] == "test"
    assignment: Assignment = dict.fromkeys(cells.loc[official_test, "cell_id"], "test")
    rest = cells.loc[~official_test]
    few = [f"{pattern} ({count} cell)" for pattern, count in rest["pattern"].value_counts().items() if count < 2]
    if few:
        raise UserError(
            f"split: a pattern needs two cells, one to train on and one to validate: {', '.join(few)}; "
            "add cells or leave the pattern out"
        )
    assignment.update(divide(rest, choice.train_fraction, choice.seed))
    return assignment


def stratified(cells: pd.DataFrame, train_fraction: float, seed: int) -> Assignment:
    """ceil(fraction * n) training cells, each pattern's share by largest remainder, cells by a hash of seed and ID.

    A hash and no generator: the same cells are divided alike by every version of every library.
    """
    groups = {pattern: list(group["cell_id"]) for pattern, group in cells.groupby("pattern")}
    fraction = Fraction(str(train_fraction))  # as written: 0.55 of 100 cells are 55, the float's are more
    exact = {pattern: fraction * len(ids) for pattern, ids in groups.items()}
    take = {pattern: math.floor(share) for pattern, share in exact.items()}
    missing = math.ceil(fraction * len(cells)) - sum(take.values())
    for pattern in sorted(exact, key=lambda name: (take[name] - exact[name], name))[:missing]:
        take[pattern] += 1
    assignment: Assignment = {}
    for pattern, ids in groups.items():
        count = min(max(take[pattern], 1), len(ids) - 1)
        ordered = sorted(ids, key=lambda cell_id: _hash(seed, cell_id))
        assignment |= dict.fromkeys(ordered[:count], "train") | dict.fromkeys(ordered[count:], "val")
    return assignment


def by_specimen(cells: pd.DataFrame, train_fraction: float, seed: int) -> Assignment:
    """Whole specimens, in an order drawn from the seed, each to the side whose patterns miss it most.

    A pattern's last specimen goes to the side that has none of the pattern yet.
    """
    unknown = int(cells["specimen_id"].isna().sum())
    if unknown:
        raise UserError(
            f"data.split.protocol: specimen needs every cell's specimen, {unknown} cells have none; choose stratified"
        )
    return _by_group(cells, cells["specimen_id"], "specimen", train_fraction, seed)


def by_id_block(cells: pd.DataFrame, train_fraction: float, seed: int) -> Assignment:
    """Contiguous blocks of IDs within each pattern, as a proxy for specimens."""
    return _by_group(cells, id_blocks(cells), "ID block", train_fraction, seed)


def id_blocks(cells: pd.DataFrame) -> pd.Series[str]:
    """Name of each cell's block of contiguous IDs within its pattern; cells: cell_id, pattern."""
    block = (
        cells.sort_values("cell_id")
        .groupby("pattern")["cell_id"]
        .transform(
            lambda ids: [f"{index * min(BLOCKS_PER_PATTERN, len(ids)) // len(ids):02d}" for index in range(len(ids))]
        )
    )
    named: pd.Series[str] = cells["pattern"] + "/" + block.reindex(cells.index)
    return named


def _by_group(cells: pd.DataFrame, groups: pd.Series, kind: str, train_fraction: float, seed: int) -> Assignment:
    total = Counter(cells["pattern"])
    lacking: dict[Subset, dict[str, float]] = {
        "train": {pattern: train_fraction * count for pattern, count in total.items()},
        "val": {pattern: (1 - train_fraction) * count for pattern, count in total.items()},
    }
    assignment: Assignment = {}
    sides: dict[str, set[Subset]] = defaultdict(set)
    ordered = [members for _, members in sorted(cells.groupby(groups), key=lambda item: _hash(seed, str(item[0])))]
    to_come = Counter(pattern for members in ordered for pattern in set(members["pattern"]))
    for members in ordered:
        patterns = Counter(members["pattern"])
        to_come.subtract(patterns.keys())
        need = {side: sum(n * lacking[side][p] for p, n in patterns.items()) for side in lacking}
        side: Subset = "train" if need["train"] >= need["val"] else "val"
        without = {s for pattern in patterns if not to_come[pattern] for s in lacking if s not in sides[pattern]}
        if len(without) == 1:
            side = without.pop()
        for pattern, count in patterns.items():
            lacking[side][pattern] -= count
            sides[pattern].add(side)
        assignment |= dict.fromkeys(members["cell_id"], side)
    one_sided = _names(pattern for pattern in total if len(sides[pattern]) < 2)
    if one_sided:
        raise UserError(
            f"split: with whole {kind}s on one side, no division leaves cells of {one_sided} on both; "
            f"these patterns need two {kind}s or more: choose stratified"
        )
    return assignment


def _names(patterns: Iterable[str]) -> str:
    return ", ".join(sorted(patterns))


def _hash(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
