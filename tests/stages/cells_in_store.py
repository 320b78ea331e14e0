"""What the tests of stages share: data sets made of rows, and what a store holds."""

from __future__ import annotations

import secrets
from pathlib import Path

import numpy as np
import pandas as pd

from hep2flow.cells import Cell, CellWriter, encode_png, pixel_sha256
from hep2flow.store.datasets import open_dataset, publish_dataset
from hep2flow.store.s3 import Store

PIXELS = np.zeros((2, 2), np.uint8)


def listing(store: Store) -> dict[str, int]:
    """Every key of a store with its size in bytes."""
    return {item.key: item.size for item in store.list_objects("")}


def another(store: Store) -> Store:
    """An empty store beside this one."""
    return Store(store.address.model_copy(update={"prefix": f"test-{secrets.token_hex(6)}"}))


def cells_of(store: Store, uri: str) -> dict[str, Cell]:
    """Cells of a data set by their id."""
    return {row["cell_id"]: Cell(**row) for row in open_dataset(store, uri).rows()}


def publish(store: Store, folder: Path, table: pd.DataFrame, id_order_is_proxy: bool = False, grey: int = 0) -> str:
    """A data set of 2 x 2 cells, black or grey; table: cell_id, official_split, pattern, specimen_id. Returns its URI."""
    pixels = PIXELS + np.uint8(grey)
    with CellWriter(folder) as writer:
        for row in table.sort_values("official_split").itertuples():
            cell = Cell(
                cell_id=str(row.cell_id),
                official_split=None if pd.isna(row.official_split) else row.official_split,
                pattern=str(row.pattern),
                intensity=None,
                specimen_id=None if pd.isna(row.specimen_id) else str(row.specimen_id),
                width=2,
                height=2,
                image=encode_png(pixels),
                mask=None,
                sha256=pixel_sha256(pixels),
            )
            writer.add(cell, grey, None)
    facts = {"notes": [], "mask": {"mode": "none", "given": 0, "derived": 0}, "id_order_is_proxy": id_order_is_proxy}
    return publish_dataset(store, "made", writer, facts)
