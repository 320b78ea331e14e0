"""Splits in the store: which cell trains, which validates, which tests.

pyarrow is imported in functions: most steps of a run only check that a split exists.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

from hep2flow.cells import DIGEST_LENGTH
from hep2flow.errors import UserError
from hep2flow.selected_on_test import protocol_note
from hep2flow.store import layout
from hep2flow.store.errors import NotThereError
from hep2flow.store.s3 import Store

Subset = Literal["train", "val", "test"]
SUBSETS: tuple[Subset, ...] = get_args(Subset)
METADATA = ("protocol", "ratio", "seed", "dataset_digest")
COLUMNS = ("cell_id", "subset")


@dataclass(frozen=True, eq=False)
class Split:
    """Cells of a data set, each in one subset."""

    subsets: Mapping[str, Subset]  # cell_id -> train, val or test; sorted by cell_id
    protocol: str  # how it was drawn
    ratio: float | None  # of the training cells that are trained on, the rest validates; None for protocols without one
    seed: int | None  # of the draw; None where nothing is drawn
    dataset_digest: str  # of the data set it splits

    def __post_init__(self) -> None:
        if unknown := set(self.subsets.values()) - set(SUBSETS):
            raise ValueError(f"no subsets: {sorted(map(str, unknown))}; a subset is one of {', '.join(SUBSETS)}")
        object.__setattr__(self, "subsets", dict(sorted(self.subsets.items())))

    @property
    def digest(self) -> str:
        """Digest of the sorted rows and the metadata: 32 hexadecimal digits."""
        rows = [list(self.subsets), list(self.subsets.values())]
        text = json.dumps([self._metadata(), rows], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]

    def ids(self, subset: Subset) -> list[str]:
        """Return the ids of a subset's cells, sorted."""
        return [cell for cell, of_cell in self.subsets.items() if of_cell == subset]

    def counts(self) -> dict[str, int]:
        """Count the cells of each subset."""
        counts = Counter(self.subsets.values())
        return {subset: counts[subset] for subset in SUBSETS}

    def _metadata(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in METADATA}


def write_split(store: Store, split: Split) -> str:
    """Write a split, unless it exists already; returns its URI.

    The Parquet metadata say, as JSON, how it was drawn, and whether it selects on the test set.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    facts = {**split._metadata(), **protocol_note(split.protocol)}
    metadata = {name: json.dumps(value) for name, value in facts.items()}
    schema = pa.schema([pa.field(name, pa.string(), nullable=False) for name in COLUMNS])
    table = pa.table([list(split.subsets), list(split.subsets.values())], schema=schema)
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), buffer)
    key = layout.split_key(split.digest)
    store.put_bytes(key, buffer.getvalue(), if_absent=True)
    return store.uri(key)


def read_split(store: Store, uri: str) -> Split:
    """Read the split at a URI; UserError where there is none, or its content does not match its name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = store.get_bytes(store.key(uri))
    except NotThereError as error:
        raise _missing(uri) from error
    try:
        # Not read_table: it imports pandas, which takes longer than most steps that read a split.
        table = pq.ParquetFile(io.BytesIO(data)).read()
        metadata = {name: json.loads((table.schema.metadata or {})[name.encode()]) for name in METADATA}
        cells, subsets = (table.column(name).to_pylist() for name in COLUMNS)
        split = Split(dict(zip(cells, subsets, strict=True)), **metadata)
        if len(split.subsets) < len(cells):
            raise ValueError("a cell is there twice")
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise UserError(f"{uri}: not a split of hep2flow; delete it and split the data set again") from error
    if store.uri(layout.split_key(split.digest)) != uri:
        raise UserError(f"{uri}: its content does not match its name; delete it and split the data set again")
    return split


def split_digest(store: Store, uri: str) -> str:
    """Return the digest of the split at a URI, which is its name; UserError where there is none."""
    digest = PurePosixPath(uri).stem
    with suppress(ValueError):  # no digest
        if uri == store.uri(layout.split_key(digest)) and store.exists(store.key(uri)):
            return digest
    raise _missing(uri)


def _missing(uri: str) -> UserError:
    return UserError(f"{uri}: there is no such split; split the data set again, or check the URI")
