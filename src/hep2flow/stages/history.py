"""A training's history, as every reader of it needs it."""

from __future__ import annotations

import json
from typing import Any

from hep2flow.store.s3 import Store


def read_history(store: Store, training: str) -> list[dict[str, Any]]:
    """``metrics.jsonl`` of a training's URI, one entry per epoch (see :class:`hep2flow.learning.loop.Epoch`)."""
    text = store.get_bytes(f"{store.key(training)}/metrics.jsonl").decode()
    return [json.loads(line) for line in text.splitlines()]
