"""Ingest: equal cells become one data set wherever they come from, and what is wrong leaves no trace."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hep2flow import parallel
from hep2flow.distributed.ray_cluster import ADDRESS_FILE
from hep2flow.errors import DataFaults, UserError
from hep2flow.stages.ingest import ingest
from hep2flow.store.datasets import open_dataset
from hep2flow.store.s3 import Store
from hep2flow.store.splits import read_split
from tests.sources import builders
from tests.stages.cells_in_store import another, cells_of, listing


def repacked(png: bytes) -> bytes:
    """The same pixels in other bytes."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.save(buffer, format="PNG", compress_level=0)
    assert buffer.getvalue() != png
    return buffer.getvalue()


def brighter(png: bytes) -> bytes:
    """The same image with one pixel changed by one."""
    pixels = np.array(Image.open(io.BytesIO(png)))
    pixels[0, 0] ^= 1
    return builders.png(pixels)


def i3a_with_split() -> dict[str, bytes | str]:
    return builders.i3a() | {"public_split.csv": "Image ID,split\n1,train\n2,val\n13596,test\n"}


def test_the_same_cells_get_the_same_uri_wherever_they_lie(store: Store, tmp_path: Path) -> None:
    files = builders.contest()
    folder = builders.write(tmp_path / "one", files)
    store.put_folder(folder, "raw/cells")
    sources = [
        str(folder),
        str(builders.write(tmp_path / "two" / "deeper", {f"inside/{name}": data for name, data in files.items()})),
        str(builders.zipped(tmp_path / "cells.zip", files)),
        str(builders.tarred(tmp_path / "cells.tar.gz", files)),
        store.uri("raw/cells"),
    ]
    results = [ingest(store, source) for source in sources]
    assert [result.cached for result in results] == [False] * len(sources)
    other = another(store)
    places = {store.key(result.uri) for result in results} | {other.key(ingest(other, sources[0]).uri)}
    assert len(places) == 1
    assert places.pop().startswith("datasets/icpr2012/")
    assert {result.summary["cells"] for result in results} == {3}


@pytest.mark.parametrize("where", ["folder", "object store"])
def test_unchanged_bytes_are_not_read_again(store: Store, tmp_path: Path, where: str) -> None:
    folder = builders.write(tmp_path / "data", i3a_with_split())
    store.put_folder(folder, "raw")
    source = str(folder) if where == "folder" else store.uri("raw")
    first = ingest(store, source)
    before = list(store.list_objects(""))
    second = ingest(store, source)
    assert (first.cached, second.cached) == (False, True)
    assert second.model_dump(exclude={"cached"}) == first.model_dump(exclude={"cached"})
    assert list(store.list_objects("")) == before


def test_one_changed_pixel_is_another_data_set(store: Store, tmp_path: Path) -> None:
    files = builders.contest()
    first = ingest(store, str(builders.write(tmp_path / "data", files)))
    image = files["training/001.png"]
    assert isinstance(image, bytes)
    second = ingest(store, str(builders.write(tmp_path / "data", {"training/001.png": brighter(image)})))
    assert not second.cached
    assert second.uri != first.uri


def test_other_bytes_of_the_same_pixels_are_the_same_data_set(store: Store, tmp_path: Path) -> None:
    files = builders.contest()
    other = {name: repacked(data) if isinstance(data, bytes) else data for name, data in files.items()}
    first = ingest(store, str(builders.write(tmp_path / "one", files)))
    second = ingest(store, str(builders.write(tmp_path / "two", other)))
    assert not second.cached
    assert second.uri == first.uri


def test_a_change_behind_a_link_is_seen(store: Store, tmp_path: Path) -> None:
    builders.write(tmp_path / "elsewhere", {"x.png": builders.png(builders.grey(1))})
    source = builders.write(tmp_path / "data", {"b/x.png": builders.png(builders.grey(2))})
    (source / "a").symlink_to(tmp_path / "elsewhere")
    first = ingest(store, str(source))
    builders.write(tmp_path / "elsewhere", {"x.png": builders.png(builders.grey(3))})
    second = ingest(store, str(source))
    assert not second.cached
    assert second.uri != first.uri


def test_all_faults_are_told_at_once_and_nothing_is_written(store: Store, tmp_path: Path) -> None:
    ingest(store, str(builders.write(tmp_path / "good", builders.classes())))
    before = listing(store)
    files = builders.contest() | {
        "training/gt_training.csv": "ID;pattern\n1;homogenous\n2;cytoplasmatic\n",
        "training/002_mask.png": builders.png(builders.disc(8, 7)),
        "test/001.png": b"no picture",
    }
    with pytest.raises(DataFaults) as raised:
        ingest(store, str(builders.write(tmp_path / "bad", files)))
    assert [fault.where for fault in raised.value.faults] == [
        "test/001.png",
        "training/002_mask.png",
        "training/gt_training.csv, row 2",
    ]
    assert listing(store) == before


def test_a_file_name_that_is_no_text_is_told(store: Store, tmp_path: Path) -> None:
    builders.write(tmp_path / "data", builders.classes())
    try:
        (tmp_path / "data" / os.fsdecode(b"b\xff.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(UserError, match="file name is not UTF-8; rename it"):
        ingest(store, str(tmp_path / "data"))
    assert listing(store) == {}


def test_a_camera_of_12_bit_is_recognised(store: Store, tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        f"{name}/1.png": builders.png(builders.grey(seed).astype(np.uint16) * 16)
        for seed, name in enumerate(("homogeneous", "centromere"))
    }
    dataset = open_dataset(store, ingest(store, str(builders.write(tmp_path / "data", files))).uri)
    assert dataset.manifest["bits"] == 12
    assert all(Image.open(io.BytesIO(row["image"])).mode == "I;16" for row in dataset.rows())


def test_the_manifest_tells_where_the_cells_come_from(store: Store, tmp_path: Path) -> None:
    files = {name: data for name, data in builders.i3a().items() if "Mask" not in name}
    result = ingest(store, str(builders.write(tmp_path / "data", files)), name="mine")
    manifest = open_dataset(store, result.uri).manifest
    assert manifest["name"] == "mine"
    assert manifest["facts"] == {
        "source_format": "i3a",
        "synthetic": False,
        "notes": ["no masks in this source"],
        "id_order_is_proxy": True,
        "parent": None,
        "mask": {"mode": "none", "given": 0, "derived": 0},
    }


def test_a_damaged_data_set_is_made_again(store: Store, tmp_path: Path) -> None:
    source = str(builders.write(tmp_path / "data", builders.contest()))
    first = ingest(store, source)
    whole, before = cells_of(store, first.uri), listing(store)
    store.delete([f"{store.key(first.uri)}/part-00000.parquet"])
    again = ingest(store, source)
    assert (again.cached, again.uri) == (False, first.uri)
    assert cells_of(store, again.uri) == whole
    assert listing(store).keys() == before.keys()


def test_a_given_split_that_was_deleted_is_made_again(store: Store, tmp_path: Path) -> None:
    source = str(builders.write(tmp_path / "data", i3a_with_split()))
    uri = ingest(store, source).summary["given_split"]
    assert read_split(store, uri).counts() == {"train": 1, "val": 1, "test": 1}
    store.delete([store.key(uri)])
    assert ingest(store, source).summary["given_split"] == uri
    assert read_split(store, uri).ids("val") == ["00002"]


def test_new_cells_start_the_runs_cluster_and_known_or_faulty_ones_do_not(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested = tmp_path / "requested"
    monkeypatch.setenv(ADDRESS_FILE, str(tmp_path / "address"))
    files = builders.i3a()
    with pytest.raises(DataFaults):
        ingest(store, str(builders.write(tmp_path / "faulty", files | {"gt_training.csv": "Image ID\n"})))
    assert not requested.exists()
    good = str(builders.write(tmp_path / "good", files))
    ingest(store, good)
    assert requested.exists()
    requested.unlink()
    assert ingest(store, good).cached
    assert not requested.exists()


def test_all_cores_make_the_same_data_set_and_tell_the_same_faults(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = builders.contest()
    good = builders.write(tmp_path / "good", files)
    names = [name for name in files if name.endswith(".png")]
    bad = builders.write(tmp_path / "bad", files | dict.fromkeys(names[::2], b"no picture"))
    told = []
    uris = []
    for few in (parallel.FEW, 0):
        monkeypatch.setattr(parallel, "FEW", few)
        monkeypatch.setattr(parallel, "cpu_count", lambda: 2)
        own = another(store)
        uris.append(own.key(ingest(own, str(good)).uri))
        with pytest.raises(DataFaults) as found:
            ingest(own, str(bad))
        told.append(str(found.value))
    assert uris[0] == uris[1]
    assert told[0] == told[1]
    assert all(name in told[0] for name in names[::2])
