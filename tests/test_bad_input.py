"""Bad input through the command line: what, where and how to fix it on standard error, exit code 2, nothing written."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from hep2flow.recipe import load_recipe
from hep2flow.stages.begin import preflight
from hep2flow.store.runs import RunRecord, finish_run, show_run, start_run
from hep2flow.store.s3 import Store
from tests.sources import builders
from tests.stages.cells_in_store import listing
from tests.test_cli import Answer, hep2flow

Files = dict[str, bytes | str]
Make = Callable[[Path], Path]

CUT = builders.png(np.stack([builders.grey(0)] * 3, axis=-1))[:-40]
LABELS = "training/gt_training.csv"


def refused(store: Store, arguments: Sequence[str | Path], words: Sequence[str]) -> Answer:
    """Run a command that must fail with all of these words in its message, and leave the store as it is."""
    store.put_bytes("kept/x", b"1")
    before = listing(store)
    answer = hep2flow(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("hep2flow: ")
    assert "Traceback" not in answer.err
    assert [word for word in words if word not in answer.err] == [], answer.err
    assert listing(store) == before
    return answer


def folder(files: Files, without: Sequence[str] = ()) -> Make:
    """Makes a folder of these files."""
    kept = {name: data for name, data in files.items() if name not in without}
    return lambda place: builders.write(place / "cells", kept)


def contest(changes: Files, without: Sequence[str] = ()) -> Make:
    """Makes a folder of the contest's form with some files changed and some left out."""
    return folder(builders.contest() | changes, without)


def archive(name: str, member: str) -> Make:
    """Makes an archive of a good data set and one member more."""
    pack = builders.zipped if name.endswith(".zip") else builders.tarred
    return lambda place: pack(place / name, builders.contest() | {member: b"x"})


def empty(place: Path) -> Path:
    (place / "cells").mkdir()
    return place / "cells"


def declared(side: int) -> bytes:
    """A PNG of some bytes that says it is ``side`` pixels wide and high."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(builders.chunk(kind, data) for kind, data in chunks)


# What is made, what is reported: where, what, and how to fix it.
FAULTY: dict[str, tuple[Make, list[str]]] = {
    "no rows": (
        folder(builders.i3a() | {"gt_training.csv": "Image ID,Image class\n"}),
        ["gt_training.csv: has a header and no rows", "replace it by a good copy"],
    ),
    "truncated image": (
        contest({"training/001.png": CUT}),
        ["training/001.png: is truncated or damaged", "replace it by a good copy"],
    ),
    "no image": (
        contest({"test/001.png": b"GIF89a, or perhaps not"}),
        ["test/001.png: is not a PNG, BMP or TIFF image", "replace it"],
    ),
    "81 megapixels": (
        contest({"test/001.png": declared(9_000)}),
        ["test/001.png: has more than 64 megapixels", "cut the cells out"],
    ),
    "900 megapixels": (
        contest({"test/001.png": declared(30_000)}),
        ["test/001.png: has more than 64 megapixels", "cut the cells out"],
    ),
    "mask of another size": (
        contest({"training/001_mask.png": builders.png(builders.disc(8, 7))}),
        ["training/001_mask.png: mask is 8 x 7, its image 9 x 7", "make them the same size"],
    ),
    "mask missing": (
        contest({}, without=["training/002_mask.png"]),
        ["training/002.png: has no mask, other cells do", "add its mask, or remove all masks"],
    ),
    "ID twice": (
        contest({LABELS: "ID;pattern\n1;homogeneous\n2;cytoplasmatic\n1;homogeneous\n"}),
        [f"{LABELS}, row 4: duplicate, the same ID as {LABELS}, row 2", "remove one of the two rows"],
    ),
    "label without image": (
        contest({}, without=["training/002.png"]),
        [f"{LABELS}, row 3: no image training/002.png", "add the image, or remove the row"],
    ),
    "image without label": (
        contest({"training/009.png": CUT}),
        ["training/009.png: image without a label", f"add its rows to training/training.csv and {LABELS}"],
    ),
    "unknown pattern": (
        contest({LABELS: "ID;pattern\n1;homogenous\n2;cytoplasmatic\n"}),
        [f"{LABELS}, row 2: unknown pattern 'homogenous'", "use one of: homogeneous, fine_speckled"],
    ),
    "wrong delimiter": (
        contest({LABELS: "ID,pattern\n1,homogeneous\n2,cytoplasmatic\n"}),
        [f"{LABELS}, row 1: is comma-separated", "separate it by semicolons: ID;pattern"],
    ),
    "wrong header": (
        contest({LABELS: "number;class\n1;homogeneous\n2;cytoplasmatic\n"}),
        [f"{LABELS}, row 1: header is 'number;class'", "expected the columns ID;pattern"],
    ),
    "contradiction": (
        contest({"cells.csv": str(builders.contest()["cells.csv"]).replace("1;positive;5", "1;intermediate;5")}),
        [
            "cells.csv, row 2: intensity intermediate contradicts positive in training/training.csv, row 2",
            "correct one",
        ],
    ),
    "not UTF-8": (
        contest({LABELS: "ID;pattern\n1;homogeneous\n2;zytoplasmatisch gefärbt\n".encode("latin-1")}),
        [f"{LABELS}, row 3: is not UTF-8 text", "save it as CSV in UTF-8"],
    ),
}

# The same for what cannot be opened at all: one line.
UNUSABLE: dict[str, tuple[Make, list[str]]] = {
    "missing folder": (lambda place: place / "nowhere", ["nowhere: no such file or folder", "check the path"]),
    "missing archive": (lambda place: place / "no.zip", ["no.zip: no such file or folder", "check the path"]),
    "empty folder": (empty, ["holds no files", "check the path"]),
    "unknown form": (folder({"notes.txt": "x"}), ["no known data set in it", "icpr2012: ", "i3a: ", "folder: "]),
    "zip with ..": (archive("a.zip", "../x.png"), ["a.zip: unsafe archive", "'../x.png' leads outside", "pack it"]),
    "tar with ..": (archive("a.tar", "a/../../x.png"), ["a.tar: unsafe archive", "leads outside", "pack it again"]),
    "zip with /": (archive("a.zip", "/etc/x.png"), ["a.zip: unsafe archive", "'/etc/x.png' leads outside", "pack it"]),
    "tgz with /": (archive("a.tgz", "/etc/x.png"), ["a.tgz: unsafe archive", "'/etc/x.png' leads outside", "pack it"]),
    "zip bomb": (
        lambda place: builders.zipped(place / "a.zip", builders.contest() | {"test/002.png": bytes(11 * 2**20)}),
        ["a.zip: unsafe archive", "'test/002.png' unpacks to more than 200 times its size", "unpack it yourself"],
    ),
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_faulty_data_set(store: Store, tmp_path: Path, name: str) -> None:
    make, words = FAULTY[name]
    answer = refused(store, ["ingest", "--source", make(tmp_path)], [*words, "1 fault, nothing was written"])
    assert len(answer.err.splitlines()) == 2


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_source_that_cannot_be_used(store: Store, tmp_path: Path, name: str) -> None:
    make, words = UNUSABLE[name]
    answer = refused(store, ["ingest", "--source", make(tmp_path), "--json"], words)
    assert len(answer.err.splitlines()) == 1


def test_ten_faults_are_reported_together(store: Store, tmp_path: Path) -> None:
    changes: Files = {
        "training/training.csv": "ID;intensity;width;height\n1;positive;9;7\n2;strong;9;7\n3;positive;nine;7\n",
        LABELS: "ID;pattern\n1;homogeneous\n2;cytoplasmatic\n2;homogeneous\n3;homogenous\n",
        "cells.csv": str(builders.contest()["cells.csv"]).replace("fine_speckled", "coarse_speckled"),
        "training/001.png": CUT,
        "training/002_mask.png": builders.png(builders.disc(8, 7)),
        "training/009.png": CUT,
        "test/001.png": b"no picture",
    }
    places = [
        "cells.csv, row 4: ",
        "test/001.png: ",
        "training/001.png: ",
        "training/002_mask.png: ",
        "training/009.png: ",
        f"{LABELS}, row 4: ",
        f"{LABELS}, row 5: no image",
        f"{LABELS}, row 5: unknown pattern",
        "training/training.csv, row 3: ",
        "training/training.csv, row 4: ",
    ]
    answer = refused(store, ["ingest", "--source", contest(changes)(tmp_path)], ["10 faults, nothing was written"])
    _, *lines = answer.err.splitlines()
    assert len(lines) == 10
    assert all(line.startswith(f"  {place}") for line, place in zip(lines, places, strict=True))
    assert all("; " in line for line in lines)


def test_a_class_of_one_cell_cannot_be_split(store: Store, tmp_path: Path) -> None:
    files: Files = {f"{name}.png": builders.png(builders.grey(seed)) for seed, name in enumerate(("a/1", "a/2", "b/1"))}
    dataset = hep2flow("ingest", "--source", folder(files)(tmp_path), "--json").json()["uri"]
    words = ["a pattern needs two cells", "b (1 cell)", "add cells or leave the pattern out"]
    answer = refused(store, ["split", "--dataset", dataset], words)
    assert len(answer.err.splitlines()) == 1


def test_a_data_set_without_masks_where_they_are_wanted(store: Store, tmp_path: Path) -> None:
    dataset = hep2flow("ingest", "--source", folder(builders.classes())(tmp_path), "--json").json()["uri"]
    refused(store, ["mask", "--dataset", dataset, "--mask-source", "given"], ["has no masks", "data.mask_source=auto"])


def test_a_store_out_of_reach(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    answer = refused(
        store, ["ingest", "--source", contest({})(tmp_path)], [f"cannot reach {endpoint}", "check AWS_ENDPOINT_URL"]
    )
    assert len(answer.err.splitlines()) == 1


def test_a_store_that_refuses(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    answer = refused(
        store,
        ["ingest", "--source", contest({})(tmp_path)],
        ["does not accept these credentials", "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"],
    )
    assert len(answer.err.splitlines()) == 1
    assert "not-the-secret" not in answer.err


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("s3://no-such-bucket/cells", ["has no bucket no-such-bucket", "create it"]),
        ("s3://hep2flow/nowhere", ["s3://hep2flow/nowhere: nothing there", "check the name of the bucket"]),
        ("s3://No_Bucket/x", ["s3://No_Bucket/x: ", "a bucket has 3 to 63 characters"]),
    ],
)
def test_a_source_in_the_store_that_is_not_there(store: Store, source: str, words: list[str]) -> None:
    assert len(refused(store, ["ingest", "--source", source], words).err.splitlines()) == 1


LIMITED = """
import resource, sys
from hep2flow.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.argv[1:2] = []
main()
"""


@pytest.mark.parametrize(
    ("form", "limit", "words"),
    [
        ("folder", 4096, ["no space for cells in the temporary folder", "free some space, or set TMPDIR"]),
        ("folder", 0, ["no space for a folder in the temporary folder", "free some space, or set TMPDIR"]),
        ("tar.gz", 4096, ["cells.tar.gz: cannot be opened", "free space in TMPDIR"]),
        ("store", 4096, ["no space left on this machine's disk", "free some and try again"]),
    ],
)
def test_no_space_left(store: Store, tmp_path: Path, form: str, limit: int, words: list[str]) -> None:
    files: Files = {f"{name}/x.png": builders.png(builders.grey(1, 90, 70)) for name in ("a", "b")}
    source = str(builders.write(tmp_path / "cells", files))
    if form == "tar.gz":
        source = str(builders.tarred(tmp_path / "cells.tar.gz", files))
    if form == "store":
        store.put_folder(Path(source), "raw")
        source = store.uri("raw")
    (tmp_path / "scratch").mkdir()
    before = listing(store)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), "ingest", "--source", source],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "scratch")},
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert [word for word in words if word not in done.stderr] == [], done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert listing(store) == before
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "icpr"], ["'--format'", "'icpr'", "'icpr2012', 'i3a', 'folder'"]),
        (["--format", "i3a"], ["no known data set in it", "i3a: gt_training.csv"]),
        (["--name", "Not a name"], ["data set name 'Not a name': not allowed", "use a-z"]),
        (["--sourec", "x"], ["No such option: --sourec", "--source"]),
    ],
)
def test_options_of_ingest(store: Store, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    answer = refused(store, ["ingest", "--source", contest({})(tmp_path), *arguments], words)
    assert len(answer.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--recipe", "resnet"],
            ["--recipe resnet: no such recipe in profile paper", "shipped: coat-mini, coatnet-0, convnext-b"],
        ),
        (["--recipe", "no.yaml"], ["no.yaml: cannot read the recipe", "name a readable YAML file"]),
        (["--set", "optim.lrr=1"], ["optim.lrr: unknown key, did you mean lr?"]),
        (["--set", "optim.lr=fast"], ["optim.lr: ", "not 'fast'"]),
        (["--set", "optim.lr"], ["--set optim.lr: write key=value"]),
        (["--run-id", "My Run"], ["run id 'My Run': not allowed", "use at most 40 characters of a-z, 0-9 and hyphen"]),
        (["--profile", "huge"], ["'--profile'", "'huge'", "'paper', 'laptop'"]),
        (["--source", "nowhere"], ["--source nowhere: there is no such file or folder"]),
    ],
)
def test_options_of_run(store: Store, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    source = contest({})(tmp_path)
    answer = refused(store, ["run", "--source", source, *arguments, "--out", tmp_path / "out"], words)
    assert len(answer.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mask", "--mode", "blur"], ["--mode: ", "'apply', 'crop' or 'none'", "not 'blur'"]),
        (["split", "--train-fraction", "1.5"], ["--train-fraction: ", "less than 1", "not 1.5"]),
        (["split", "--protocol", "random"], ["--protocol: ", "'stratified'", "not 'random'"]),
        (["split", "--seed", "one"], ["'--seed'", "valid integer"]),
        (["mask"], ["s3://hep2flow/", "no complete data set", "ingest it again"]),
    ],
)
def test_options_of_mask_and_split(store: Store, arguments: list[str], words: list[str]) -> None:
    answer = refused(store, [*arguments, "--dataset", store.uri("datasets/none/0")], words)
    assert len(answer.err.splitlines()) == 1


def test_a_run_id_that_is_taken(store: Store, tmp_path: Path) -> None:
    preflight(store, [load_recipe(name, "paper", ["model.weights=none"]) for name in ("convnext-b", "coat-mini")])
    start_run(store, RunRecord(run_id="mine", parameters={"source": "another"}))
    finish_run(store, "mine", "succeeded")
    arguments: list[str | Path] = [
        "run",
        "--source",
        contest({})(tmp_path),
        "--run-id",
        "mine",
        "--out",
        tmp_path / "out",
        "--set",
        "model.weights=none",
    ]
    answer = refused(store, arguments, ["run id mine: belongs to a run with other parameters", "choose another run id"])
    assert len(answer.err.splitlines()) == 1
    assert show_run(store, "mine").status == "succeeded"


def test_a_run_of_a_faulty_data_set_says_the_same(store: Store, tmp_path: Path) -> None:
    # What timm can build is remembered in the store, whatever becomes of the run.
    preflight(store, [load_recipe(name, "laptop") for name in ("convnext-b", "coat-mini")])
    before = listing(store)
    source = str(contest({"training/001.png": CUT})(tmp_path))
    command = [
        sys.executable,
        "-m",
        "hep2flow.cli",
        "run",
        "--source",
        source,
        "--run-id",
        "bad",
        "--profile",
        "laptop",
    ]
    # In a process of its own: it starts Ray.
    done = subprocess.run([*command, "--out", str(tmp_path / "out")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    message = hep2flow("ingest", "--source", source).err
    assert "training/001.png: is truncated or damaged" in message
    assert done.stderr.endswith(message)
    assert "Traceback" not in done.stderr
    assert {key for key in listing(store).keys() - before.keys() if not key.startswith("runs/bad/")} == set()
    assert show_run(store, "bad").status == "failed"
