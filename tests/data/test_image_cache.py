"""Decoded cells: the same whether they lie in memory or in a file, which takes no memory of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from hep2flow.data import cell_set
from hep2flow.data.cell_set import cache_images
from tests.training.builders import tiny, trained

MEBIBYTE = 2**20


def noise(shapes: list[tuple[int, int]]) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randint(256, (3, *shape), dtype=torch.uint8, generator=random) for shape in shapes]


@given(shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=12), limit=st.integers(0, 800))
def test_they_are_what_was_given_in_memory_and_in_a_file(shapes: list[tuple[int, int]], limit: int) -> None:
    given_ = noise(shapes)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cell_set, "MAX_BYTES_IN_MEMORY", limit)
        found = cache_images(iter(given_))
    assert len(found) == len(given_)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, given_, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_from_a_file_gives_the_same_bytes(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ("augment.random_erasing.probability=0.5", "augment.random_resized_crop={}", "train.epochs=2")
    memory = load_file(trained(tiny(*keys), tmp_path / "memory")[2])
    monkeypatch.setattr(cell_set, "MAX_BYTES_IN_MEMORY", 10_000)
    file = load_file(trained(tiny(*keys, f"train.loader_workers={workers}"), tmp_path / "file")[2])
    assert all(torch.equal(file[name], tensor) for name, tensor in memory.items())


def test_a_file_takes_no_memory_and_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_set, "MAX_BYTES_IN_MEMORY", 8 * MEBIBYTE)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def many() -> Iterator[torch.Tensor]:
        for number in range(200):
            yield torch.full((3, 512, 683), number, dtype=torch.uint8)  # a MiB each

    before = anonymous_memory()
    found = cache_images(many())
    assert [int(image[2, -1, -1]) for image in found] == list(range(200))
    assert anonymous_memory() - before < 40 * MEBIBYTE
    assert list(tmp_path.iterdir()) == []


def anonymous_memory() -> int:
    """Bytes of this process that lie in no file."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("only Linux tells")
    return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("RssAnon"))
