"""Event files: read back as TensorBoard reads them, record by record, checksums too."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from hep2flow.tracking import NAMES
from hep2flow.tracking.tensorboard import write_events
from hep2flow.training.trainer import Epoch
from tests.tracking.records import history


def read(folder: Path) -> list[Event]:
    """The events of the one event file in a folder."""
    (file,) = folder.iterdir()
    assert file.name.startswith("events.out.tfevents.")
    return [Event.FromString(record) for record in _records(file.read_bytes())]


def _records(data: bytes) -> Iterator[bytes]:
    """TFRecord: length, its checksum, the record, its checksum."""
    while data:
        length, length_sum = struct.unpack("<QI", data[:12])
        record, record_sum = data[12 : 12 + length], data[12 + length : 16 + length]
        assert length_sum == masked_crc32c(data[:8])
        assert record_sum == struct.pack("<I", masked_crc32c(record))
        yield record
        data = data[16 + length :]


def test_every_epoch_is_there_with_its_step_and_its_values(tmp_path: Path) -> None:
    lines = history(2)
    lines[1]["learning_rate"] = 0.0  # where annealing ends: a value like any other
    write_events(lines, tmp_path)
    header, first, second = read(tmp_path)
    assert header.file_version == "brain.Event:2"
    assert (first.step, first.wall_time, second.step, second.wall_time) == (1, 1.5, 2, 3.0)
    # An epoch that was not validated has no point in the validation's curves.
    assert {value.tag: value.simple_value for value in first.summary.value} == pytest.approx(
        {"train/loss": 2.0, "train/learning_rate": 1e-4, "train/images_per_second": 101.0}
    )
    assert {value.tag: value.simple_value for value in second.summary.value} == pytest.approx(
        {
            "train/loss": 1.0,
            "train/learning_rate": 0.0,
            "train/images_per_second": 102.0,
            "validation/loss": 0.5,
            "validation/accuracy": 0.5,
        }
    )


def test_the_same_history_makes_the_same_bytes_and_a_longer_one_replaces_it(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        write_events(history(3), folder)
    (file,), (same,) = one.iterdir(), other.iterdir()
    assert (file.name, file.read_bytes()) == (same.name, same.read_bytes())
    write_events(history(5), one)
    assert [event.step for event in read(one)] == [0, 1, 2, 3, 4, 5]


def test_trackers_read_what_a_training_writes() -> None:
    assert set(NAMES) <= {field.name for field in fields(Epoch)}
