"""The synthetic twin: the layout, counts and habits of the real data set, and the same cells from the same seed."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hep2flow.errors import UserError
from hep2flow.sources import ReadCell, open_source
from hep2flow.sources.published_counts import PATTERNS, SPECIMENS
from hep2flow.sources.synthetic import choose_specimens, draw_cell, draw_style, write_twin


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("twin") / "cells"
    write_twin(folder, seed=3, specimens=12)
    return folder


@pytest.fixture(scope="module")
def cells(twin: Path) -> list[ReadCell]:
    faults: list[object] = []
    with open_source(str(twin)) as source:
        read = list(source.cells(faults))  # type: ignore[arg-type]
        assert (source.faults, faults) == ([], [])
    return read


def test_it_says_what_it_is(twin: Path) -> None:
    with open_source(str(twin)) as source:
        assert (source.format, source.name, source.synthetic) == ("icpr2012", "icpr2012-synthetic", True)
    marker = (twin / "SYNTHETIC.txt").read_text()
    assert "hep2flow with seed 3" in marker
    assert "Not real cells" in marker


def test_a_subset_keeps_every_pattern_in_both_splits(cells: list[ReadCell]) -> None:
    assert {(read.cell.official_split, read.cell.pattern) for read in cells} == {
        (split, pattern) for split in ("train", "test") for pattern in PATTERNS
    }
    assert len({read.cell.specimen_id for read in cells}) == 12


@pytest.mark.parametrize("count", range(12, 29))
def test_any_allowed_number_of_specimens_keeps_every_pattern(count: int) -> None:
    chosen = choose_specimens(count)
    assert len(set(chosen)) == count
    assert len({(specimen.split, specimen.pattern) for specimen in chosen}) == 12


def test_cells_are_green_and_look_like_cells(cells: list[ReadCell]) -> None:
    for read in cells:
        pixels, mask = read.cell.pixels().astype(float), read.cell.mask_pixels()
        assert mask is not None
        red, green, blue = pixels.reshape(-1, 3).mean(0)
        assert green > 2 * max(red, blue)
        assert pixels[mask][:, 1].mean() > pixels[~mask][:, 1].mean()
        assert 0.4 < mask.mean() < 0.95


def test_sizes_are_those_of_the_real_cells(cells: list[ReadCell]) -> None:
    widths, heights = [r.cell.width for r in cells], [r.cell.height for r in cells]
    assert min(widths) >= 38
    assert max(widths) <= 365
    assert max(heights) <= 331
    assert 65 <= np.median(widths) <= 95


def test_masks_are_one_bit_files(twin: Path) -> None:
    data = (twin / "training" / "001_mask.png").read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "1"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_intermediate_specimens_are_dimmer(pattern: str) -> None:
    def brightness(intensity: str) -> float:
        generators = [np.random.default_rng(seed) for seed in range(10)]
        cells = [draw_cell(rng, pattern, draw_style(rng, intensity))[0] for rng in generators]
        return float(np.mean([cell[..., 1].mean() for cell in cells]))

    assert brightness("intermediate") < 0.6 * brightness("positive")


def test_ids_do_not_tell_the_label(cells: list[ReadCell]) -> None:
    patterns = [read.cell.pattern for read in cells if read.cell.official_split == "train"]
    changes = sum(one != other for one, other in itertools.pairwise(patterns))
    assert changes > len(patterns) / 2


def test_the_seed_decides_every_cell(twin: Path, cells: list[ReadCell], tmp_path: Path) -> None:
    write_twin(tmp_path / "same", seed=3, specimens=12)
    write_twin(tmp_path / "other", seed=4, specimens=12)
    for name in ("cells.csv", "training/gt_training.csv", "SYNTHETIC.txt"):
        assert (tmp_path / "same" / name).read_bytes() == (twin / name).read_bytes()
    with open_source(str(tmp_path / "same")) as same, open_source(str(tmp_path / "other")) as other:
        assert list(same.cells([])) == cells
        assert not {read.cell.sha256 for read in other.cells([])} & {read.cell.sha256 for read in cells}


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="not empty"):
        write_twin(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("specimens", [0, 11, 29])
def test_an_impossible_number_of_specimens_is_refused(tmp_path: Path, specimens: int) -> None:
    with pytest.raises(UserError, match="12 to 28"):
        write_twin(tmp_path / "new", specimens=specimens)


def test_an_interrupted_writing_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_twin(tmp_path / "new", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written"):
        write_twin(tmp_path / "file" / "new", specimens=12)


def test_all_28_are_the_published_specimens(tmp_path: Path) -> None:
    assert choose_specimens(28) == sorted(SPECIMENS, key=lambda specimen: specimen.number)
