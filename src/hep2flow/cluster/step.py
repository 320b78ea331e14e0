"""What every pipeline step does around its stage: open the store, keep the stage's record, end with the right exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hep2flow.ending import skip_last_collection
from hep2flow.errors import UserError
from hep2flow.store.runs import StageRecord, running_stage
from hep2flow.store.s3 import Store, StoreAddress, open_store
from hep2flow.termination import ended_by_sigterm

EXIT_USER = 2


def store_of(address: dict[str, Any]) -> Store:
    """The store a pipeline passes on: address in the parameters, credentials in the environment."""
    return open_store(StoreAddress(**{**address, "endpoint": address.get("endpoint") or None}))


@contextmanager
def step(
    address: dict[str, Any], run_id: str, stage: str, model: str | None = None
) -> Iterator[tuple[Store, StageRecord]]:
    """Run a stage as a step of a run; its errors end the process, with the message last in the log."""
    with mendable():
        store = store_of(address)
        with running_stage(store, run_id, stage, model) as record:
            yield store, record


@contextmanager
def mendable() -> Iterator[None]:
    """A UserError ends the process with exit code 2 and its message, SIGTERM with 143, without a traceback."""
    skip_last_collection()
    try:
        with ended_by_sigterm():
            yield
    except UserError as error:
        print(f"hep2flow: {error}", file=sys.stderr)
        sys.exit(EXIT_USER)
