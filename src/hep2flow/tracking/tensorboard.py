"""A training's history as an event file of TensorBoard."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from hep2flow.tracking import scalars

FILE = "events.out.tfevents.hep2flow"


def write_events(history: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write or replace ``events.out.tfevents.hep2flow`` in a folder; ``history`` are the lines of ``metrics.jsonl``."""
    # Slow to import: tensorboardX searches for every cloud's client.
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.record_writer import RecordWriter

    # Wall time is seconds since the training's start, not the time of day: equal histories give equal bytes.
    events = [Event(wall_time=0.0, file_version="brain.Event:2")]
    for epoch in history:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars(epoch).items()]
        events.append(Event(wall_time=epoch["seconds"], step=epoch["epoch"], summary=Summary(value=values)))
    with closing(RecordWriter(str(folder / FILE))) as writer:
        for event in events:
            writer.write(event.SerializeToString(deterministic=True))
