"""First weights of a training: mirrored, given, or refused before any data is read."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

from hep2flow.errors import UserError
from hep2flow.recipe import Model, load_recipe
from hep2flow.stages.initial_weights import mirror_weights, resolve_weights, with_stored_weights
from hep2flow.store.s3 import Store
from hep2flow.store.weights_mirror import find_mirrored, list_mirrored
from tests.stages.cells_in_store import listing

NETWORK = "test_convnext.r160_in1k"
BREAKS_OFF = "test_convnext2.r160_in1k"
ANOTHER_FILE = "test_convnext3.r160_in1k"
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as timm's hub has one: the network with its 1,000 classes."""
    path = tmp_path_factory.mktemp("hub") / "model.safetensors"
    state = timm.create_model("test_convnext", num_classes=1000).state_dict()
    save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, path)
    return path


@pytest.fixture
def hub(published: Path) -> Iterator[str]:
    """The part of timm's hub that a download touches, on loopback: one good file, one cut short, one of another network."""
    data = published.read_bytes()
    sent = {NETWORK: data, BREAKS_OFF: data[: len(data) // 2], ANOTHER_FILE: data}
    files = {f"/timm/{name}/resolve/main/model.safetensors": body for name, body in sent.items()}

    class Hub(BaseHTTPRequestHandler):
        def answer(self, body: bool) -> None:
            found = self.path in files
            self.send_response(200 if found else 404)
            self.send_header("X-Repo-Commit", REVISION)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("Content-Length", str(len(data) if found else 0))
            self.end_headers()
            if body and found:
                self.wfile.write(files[self.path])

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the hub's client reads its settings when it is imported."""
    return subprocess.run(
        [sys.executable, "-m", "hep2flow.cli", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_mirrored_network_needs_no_internet(store: Store, hub: str, published: Path, tmp_path: Path) -> None:
    done = command("weights", "mirror", "test_convnext", "--json", HF_ENDPOINT=hub, HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 0, done.stderr
    entry = json.loads(done.stdout)
    sha256 = hashlib.sha256(published.read_bytes()).hexdigest()
    assert entry["network"] == NETWORK, "the tag is recorded, though it was not asked for"
    assert entry["origin"] == f"timm/{NETWORK}@{REVISION}"
    assert entry["sha256"] == sha256
    assert store.get_bytes(entry["key"]) == published.read_bytes()
    assert [one.network for one in list_mirrored(store)] == [NETWORK]
    assert NETWORK in command("weights", "list").stdout

    for name in (NETWORK, "test_convnext"):
        weights = resolve_weights(store, Model(network=name, image_size=64))
        assert weights is not None
        assert weights.sha256 == sha256
        assert weights.origin == {"network": NETWORK, "origin": entry["origin"], "sha256": sha256}


def test_without_internet_and_mirror_both_ways_out_are_named_before_any_data_is_read(
    store: Store, tmp_path: Path
) -> None:
    before = listing(store)
    done = command("run", "--source", str(tmp_path), "--recipe=coat-mini", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "model.weights" in line]
    assert "hep2flow weights mirror coat_mini.in1k" in line
    assert "--set model.weights=" in line
    new = listing(store).keys() - before.keys()
    assert not [key for key in new if not key.startswith("cache/network/")]


@pytest.mark.parametrize(
    ("network", "words"),
    [(BREAKS_OFF, "cannot be fetched from timm's hub"), (ANOTHER_FILE, "does not fit the network")],
)
def test_what_the_hub_sends_wrong_is_not_mirrored(
    network: str, words: str, store: Store, hub: str, tmp_path: Path
) -> None:
    done = command(
        "weights", "mirror", network, HF_ENDPOINT=hub, HF_HOME=str(tmp_path), HF_HUB_DISABLE_PROGRESS_BARS="1"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert list(listing(store)) == []


def test_a_name_that_cannot_be_is_refused_without_timm(store: Store) -> None:
    with pytest.raises(UserError, match=r"model\.network: 'timm/convnext_base' is no name"):
        resolve_weights(store, Model(network="timm/convnext_base"))


def test_a_file_fetched_elsewhere_becomes_the_mirror(store: Store, published: Path) -> None:
    entry = mirror_weights(store, "test_convnext", published)
    assert (entry.network, entry.origin) == (NETWORK, "model.safetensors")
    assert find_mirrored(store, NETWORK) == entry


def test_a_file_of_another_network_is_no_mirror(store: Store, published: Path) -> None:
    with pytest.raises(UserError, match="does not fit the network"):
        mirror_weights(store, "test_convnext2", published)
    with pytest.raises(UserError, match="there is no such file"):
        mirror_weights(store, "test_convnext", published.with_name("nothing"))
    with pytest.raises(UserError, match="no pre-trained weights for convnext_giant"):
        mirror_weights(store, "convnext_giant", published)
    assert list_mirrored(store) == []


def test_an_entry_whose_file_is_gone_is_no_mirror(store: Store, published: Path) -> None:
    entry = mirror_weights(store, "test_convnext", published)
    store.delete([entry.key])
    assert find_mirrored(store, NETWORK) is None


def test_given_weights_lie_in_the_store_once_and_travel_by_uri(store: Store, published: Path) -> None:
    recipe = load_recipe("convnext-b", "laptop", [f"model.weights={published}"])
    shipped = with_stored_weights(store, recipe)
    assert shipped.model.weights.startswith("s3://")
    assert with_stored_weights(store, shipped) == shipped
    local, remote = resolve_weights(store, recipe.model), resolve_weights(store, shipped.model)
    assert local is not None
    assert remote is not None
    assert local.sha256 == remote.sha256
    assert local.origin["origin"] == "model.safetensors"
    assert len([key for key in listing(store) if key.endswith(".safetensors")]) == 1


@pytest.mark.parametrize("weights", ["nowhere.safetensors", "s3://{bucket}/{prefix}/nothing.safetensors"])
def test_weights_that_are_not_there_are_refused(weights: str, store: Store) -> None:
    named = weights.format(bucket=store.address.bucket, prefix=store.address.prefix)
    with pytest.raises(UserError, match=r"model\.weights: .*(no file|not there)"):
        resolve_weights(store, Model(network="convnext_atto", weights=named))
