"""Data sets in the store: Parquet parts of the Cell table and a manifest, written last.

pyarrow and pandas are imported in functions: most steps of a run only check that a data set exists.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hep2flow import __version__
from hep2flow.errors import UserError
from hep2flow.store import layout
from hep2flow.store.local_files import file_sha256
from hep2flow.store.publish import find_published, publish
from hep2flow.store.s3 import Store

if TYPE_CHECKING:
    import pandas as pd

    from hep2flow.cells import CellWriter

SCHEMA_VERSION = 1
Columns = Sequence[str] | None  # of hep2flow.cells.SCHEMA; None for all
NO_SPLIT = "none"  # stands for a missing official_split where JSON needs a key


class Dataset:
    """A complete data set in the store. Parts are downloaded one at a time, and only those that are needed.

    Attributes:
        uri: ``s3://…/datasets/{name}/{digest}``.
        manifest: schema_version, name, digest, count, parts [{file, rows, official_split}], bits (8 to 16), labels
            (sorted patterns), counts {official_split or "none": {pattern: cells}}, created_by, facts (the source's, as
            given at publication), files {name: {size, sha256}}.
        digest: Of the cells; equal cells have equal digests.
        labels: Patterns, sorted.
    """

    def __init__(self, store: Store, uri: str, manifest: dict[str, Any]) -> None:
        self.store, self.uri, self.manifest = store, uri, manifest
        self.digest = str(manifest["digest"])
        self.labels: list[str] = list(manifest["labels"])

    def rows(
        self, keep: set[str] | None = None, columns: Columns = None, official_splits: set[str | None] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Read rows of the Cell table as dictionaries, part by part.

        Args:
            keep: Only cells of these ids; None for all.
            columns: Only these.
            official_splits: Only these official splits (``{"train"}``, ``{None}``…); parts of others are never fetched.
        """
        for part in self.manifest["parts"]:
            if official_splits is None or part["official_split"] in official_splits:
                yield from self.rows_of(part["file"], keep, columns)

    def rows_of(self, file: str, keep: set[str] | None = None, columns: Columns = None) -> Iterator[dict[str, Any]]:
        """Read rows of one of the manifest's parts; ``keep`` and ``columns`` as for :meth:`rows`."""
        from hep2flow.cells import read_part

        with self._part(file) as path:
            yield from read_part(path, keep, columns)

    def table(self, columns: Columns = None) -> pd.DataFrame:
        """Read the table of all cells; without images and masks where no columns are named."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from hep2flow.cells import SCHEMA

        names = [name for name in SCHEMA.names if name not in ("image", "mask")] if columns is None else list(columns)
        parts = []
        for part in self.manifest["parts"]:
            with self._part(part["file"]) as path:
                parts.append(pq.read_table(path, columns=names))
        table: pd.DataFrame = pa.concat_tables(parts).select(names).to_pandas()
        return table

    @contextmanager
    def _part(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="hep2flow-") as folder:
            path = Path(folder) / name
            self.store.get_file(f"{self.store.key(self.uri)}/{name}", path)
            if file_sha256(path) != self.manifest["files"][name]["sha256"]:
                raise UserError(f"{self.uri}/{name}: damaged in the store; delete the data set and ingest again")
            yield path


def publish_dataset(store: Store, name: str, writer: CellWriter, facts: dict[str, Any], bits: int | None = None) -> str:
    """Publish what a closed :class:`CellWriter` wrote; returns its URI. A complete data set is not uploaded again.

    The source's ``facts`` (format, synthetic, notes, parent, mask…) are not part of the digest. ``bits`` are the
    significant bits of the camera, 8 to 16; from the brightest pixel where None.
    """
    import pyarrow.parquet as pq

    from hep2flow.cells import significant_bits

    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name):
        raise UserError(f"data set name {name!r}: not allowed; use a-z, 0-9, dot, hyphen and underscore, at most 63")
    prefix = layout.dataset_prefix(name, writer.digest)
    if find_published(store, prefix) is None:
        counts: dict[str, Counter[str]] = {}
        for part in writer.parts:
            patterns = pq.read_table(writer.folder / part["file"], columns=["pattern"]).column("pattern").to_pylist()
            counts.setdefault(part["official_split"] or NO_SPLIT, Counter()).update(patterns)
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "name": name,
            "digest": writer.digest,
            "count": writer.count,
            "parts": writer.parts,
            "bits": bits or significant_bits(writer.max_value),
            "counts": counts,
            "labels": sorted({pattern for found in counts.values() for pattern in found}),
            "created_by": f"hep2flow {__version__}",
            "facts": facts,
        }
        publish(store, writer.folder, prefix, manifest)
    return store.uri(prefix)


def open_dataset(store: Store, uri: str) -> Dataset:
    """Open the data set at a URI; UserError where there is no complete one."""
    manifest = find_published(store, store.key(uri))
    if manifest is None:
        raise UserError(f"{uri}: there is no complete data set; ingest it again, or check the URI")
    if (found := manifest.get("schema_version")) != SCHEMA_VERSION:
        raise UserError(f"{uri}: data set schema {found} is not {SCHEMA_VERSION}; ingest it again with this hep2flow")
    return Dataset(store, uri.rstrip("/"), manifest)
