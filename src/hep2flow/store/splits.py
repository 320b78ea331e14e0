"""Splits in the store: which cell trains, which validates, which tests."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from hep2flow.cells import DIGEST_LENGTH
from hep2flow.errors import UserError
from hep2flow.optimism import selection
from hep2flow.store import layout
from hep2flow.store.faults import NotThereError
from hep2flow.store.s3 import Store

if TYPE_CHECKING:
    import pandas as pd

Subset = Literal["train", "val", "test"]
SUBSETS: tuple[Subset, ...] = get_args(Subset)
METADATA = ("protocol", "ratio", "seed", "dataset_digest")
SCHEMA = pa.schema([pa.field("cell_id", pa.string(), nullable=False), pa.field("subset", pa.string(), nullable=False)])


@dataclass(frozen=True, eq=False)
class Split:
    """Every cell of a data set, at most once, in one subset.

    cells:          columns cell_id, subset (train | val | test), sorted by cell_id
    protocol:       how it was drawn
    ratio:          share of the training cells that is trained on, the rest validates; None where the protocol
                    knows no ratio
    seed:           of the draw, None where nothing is drawn
    dataset_digest: of the data set it splits
    """

    cells: pd.DataFrame
    protocol: str
    ratio: float | None
    seed: int | None
    dataset_digest: str

    def __post_init__(self) -> None:
        cells = self.cells[["cell_id", "subset"]].sort_values("cell_id", ignore_index=True)
        if not cells["cell_id"].is_unique:
            raise ValueError(f"cell {cells['cell_id'][cells['cell_id'].duplicated()].iloc[0]} is in a split twice")
        if strange := set(cells["subset"]) - set(SUBSETS):
            raise ValueError(f"no subsets: {sorted(map(str, strange))}; a subset is one of {', '.join(SUBSETS)}")
        object.__setattr__(self, "cells", cells)

    @property
    def digest(self) -> str:
        """Over the sorted rows and the metadata: 32 hexadecimal digits."""
        rows = [self.cells["cell_id"].tolist(), self.cells["subset"].tolist()]
        text = json.dumps([self._metadata(), rows], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]

    def ids(self, subset: Subset) -> list[str]:
        """Ids of a subset's cells, sorted."""
        return self.cells.loc[self.cells["subset"] == subset, "cell_id"].tolist()

    def counts(self) -> dict[str, int]:
        """Cells of each subset."""
        return {subset: int((self.cells["subset"] == subset).sum()) for subset in SUBSETS}

    def _metadata(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in METADATA}


def write_split(store: Store, split: Split) -> str:
    """Write a split, unless it is there already; returns its URI.

    The Parquet metadata tell, as JSON, how it was drawn, and whether it selects on the test set.
    """
    told = {**split._metadata(), **selection(split.protocol)}
    metadata = {name: json.dumps(value) for name, value in told.items()}
    table = pa.table({name: split.cells[name].tolist() for name in SCHEMA.names}, schema=SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), buffer)
    key = layout.split_key(split.digest)
    store.put_bytes(key, buffer.getvalue(), if_absent=True)
    return store.uri(key)


def read_split(store: Store, uri: str) -> Split:
    """The split at a URI; UserError where there is none, or where it is not what its name says."""
    try:
        data = store.get_bytes(store.key(uri))
    except NotThereError as error:
        raise UserError(f"{uri}: there is no such split; split the data set again, or check the URI") from error
    try:
        table = pq.read_table(io.BytesIO(data))
        metadata = {name: json.loads((table.schema.metadata or {})[name.encode()]) for name in METADATA}
        split = Split(table.select(SCHEMA.names).to_pandas(), **metadata)
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise UserError(f"{uri}: not a split of hep2flow; delete it and split the data set again") from error
    if store.uri(layout.split_key(split.digest)) != uri:
        raise UserError(f"{uri}: its content does not match its name; delete it and split the data set again")
    return split
