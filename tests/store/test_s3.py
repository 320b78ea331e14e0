from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hep2flow.errors import StoreError, UserError
from hep2flow.store import embedded_server
from hep2flow.store.address import StoreAddress, split_uri
from hep2flow.store.local_files import safe_path
from hep2flow.store.open_store import open_store
from hep2flow.store.publish import find_published, publish
from hep2flow.store.s3 import ATTEMPTS, MULTIPART_BYTES, Store
from tests.store.breaking import AFTER_BYTES, breaking_off

SEGMENT = st.text(st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: text not in (".", "..")
)
KEY = st.lists(SEGMENT, min_size=1, max_size=4).map("/".join)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_bytes_come_back_as_written(store: Store) -> None:
    data = secrets.token_bytes(1000)
    assert store.put_bytes("a/b", data)
    assert store.get_bytes("a/b") == data
    assert store.size("a/b") == 1000
    assert store.exists("a/b")
    assert not store.exists("a")
    assert not store.exists("a/c")


def test_names_with_odd_characters_come_back(store: Store) -> None:
    key = "ü ñ/?#%2F+&=/x y"
    store.put_bytes(key, b"1")
    assert [item.key for item in store.list_objects("ü ñ")] == [key]
    assert store.get_bytes(store.key(store.uri(key))) == b"1"


def test_a_missing_object_is_reported_with_its_uri(store: Store) -> None:
    with pytest.raises(StoreError) as error:
        store.get_bytes("no/such")
    assert store.uri("no/such") in one_line(error)
    with pytest.raises(StoreError, match="not there"):
        store.size("no/such")


def test_json_is_sorted_readable_and_refuses_nan(store: Store) -> None:
    store.put_json("x.json", {"b": 1, "a": [1.5, None, "ü"]})
    assert store.get_bytes("x.json").decode() == json.dumps(
        {"a": [1.5, None, "ü"], "b": 1}, indent=2, ensure_ascii=False
    ) + ("\n")
    assert store.get_json("x.json") == {"a": [1.5, None, "ü"], "b": 1}
    with pytest.raises(ValueError, match="JSON"):
        store.put_json("nan.json", {"a": float("nan")})
    assert not store.exists("nan.json")


def test_damaged_json_is_a_user_error(store: Store) -> None:
    store.put_bytes("x.json", b'{"a": ')
    with pytest.raises(UserError, match="not JSON"):
        store.get_json("x.json")


def test_of_eight_conditional_writers_one_wins(store: Store) -> None:
    with ThreadPoolExecutor(8) as run:
        won = list(run.map(lambda i: store.put_bytes("claim", b"%d" % i, if_absent=True), range(8)))
    assert won.count(True) == 1
    assert store.get_bytes("claim") == b"%d" % won.index(True)
    assert store.put_bytes("claim", b"late", if_absent=True) is False
    assert store.get_bytes("claim") != b"late"


def test_large_files_travel_in_parts_and_keep_their_sha256(store: Store, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "deep" / "target"
    source.write_bytes(secrets.token_bytes(MULTIPART_BYTES + 7))
    store.put_file(source, "large")
    store.get_file("large", target)
    assert target.read_bytes() == source.read_bytes()
    assert [path.name for path in target.parent.iterdir()] == ["target"]
    head = boto3.client("s3", endpoint_url=store.address.endpoint, region_name="us-east-1").head_object(
        Bucket=store.address.bucket, Key=f"{store.address.prefix}/large"
    )
    assert head["ETag"].endswith('-5"')
    assert head["Metadata"]["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()


def test_a_file_that_does_not_match_its_sha256_never_appears(store: Store, tmp_path: Path) -> None:
    client = boto3.client("s3", endpoint_url=store.address.endpoint, region_name="us-east-1")
    client.put_object(
        Bucket=store.address.bucket, Key=f"{store.address.prefix}/x", Body=b"other", Metadata={"sha256": "0" * 64}
    )
    (tmp_path / "x").write_text("as it was")
    with pytest.raises(StoreError, match="damaged"):
        store.get_file("x", tmp_path / "x")
    assert (tmp_path / "x").read_text() == "as it was"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("how", ["get_bytes", "get_file"])
def test_an_answer_that_is_cut_off_is_requested_again(store: Store, tmp_path: Path, how: str) -> None:
    data, port = secrets.token_bytes(2 * AFTER_BYTES), urlsplit(store.address.endpoint or "").port
    store.put_bytes("x", data)
    assert port is not None

    def read(breaking: int) -> bytes:
        with breaking_off(port, breaking) as relay:
            far = Store(store.address.model_copy(update={"endpoint": f"http://127.0.0.1:{relay}"}))
            if how == "get_bytes":
                return far.get_bytes("x")
            far.get_file("x", tmp_path / "x")
        return (tmp_path / "x").read_bytes()

    with pytest.raises(StoreError, match=r"reading|downloading"):
        read(ATTEMPTS)
    assert not list(tmp_path.iterdir())
    assert read(ATTEMPTS - 1) == data


def test_folders_come_back(store: Store, tmp_path: Path) -> None:
    names = ["a.txt", "b/c.txt", "b/d/e.txt"]
    for name in names:
        path = tmp_path / "from" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    store.put_folder(tmp_path / "from", "folder")
    store.put_bytes("folder-of-another-name/x", b"")
    paths = store.get_folder("folder/", tmp_path / "to")
    assert paths == sorted(tmp_path / "to" / name for name in names)
    assert all(path.read_text() == path.relative_to(tmp_path / "to").as_posix() for path in paths)
    assert list(store.folders("folder")) == ["b"]


def test_deleting_a_folder_leaves_its_neighbours(store: Store) -> None:
    for key in ("a/1", "a/2/3", "ab/1"):
        store.put_bytes(key, b"1")
    store.delete_folder("a")
    store.delete(["never/there"])
    assert [item.key for item in store.list_objects("")] == ["ab/1"]


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a//x", "."])
def test_a_key_never_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="no safe file name"):
        safe_path(tmp_path, name)


def published_folder(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out" / "sub").mkdir(parents=True)
    (tmp_path / "out" / "a").write_text("first")
    (tmp_path / "out" / "sub" / "b").write_text("second")
    publish(store, tmp_path / "out", "thing", {"name": "x"})


def test_a_published_folder_names_its_files(store: Store, tmp_path: Path) -> None:
    assert find_published(store, "thing") is None
    published_folder(store, tmp_path)
    manifest = find_published(store, "thing")
    assert manifest == {
        "name": "x",
        "files": {
            "a": {"size": 5, "sha256": hashlib.sha256(b"first").hexdigest()},
            "sub/b": {"size": 6, "sha256": hashlib.sha256(b"second").hexdigest()},
        },
    }


def test_a_folder_with_a_missing_or_shortened_file_is_not_published(store: Store, tmp_path: Path) -> None:
    published_folder(store, tmp_path)
    store.put_bytes("thing/sub/b", b"sec")
    assert find_published(store, "thing") is None
    store.delete(["thing/sub/b"])
    assert find_published(store, "thing") is None
    publish(store, tmp_path / "out", "thing", {"name": "x"})
    assert find_published(store, "thing") is not None
    store.delete(["thing/manifest.json"])
    assert find_published(store, "thing") is None


def test_publishing_other_files_replaces_the_older_publication(store: Store, tmp_path: Path) -> None:
    published_folder(store, tmp_path)
    (tmp_path / "out" / "a").write_text("changed")
    publish(store, tmp_path / "out", "thing", {"name": "y"})
    manifest = find_published(store, "thing")
    assert manifest is not None
    assert (manifest["name"], manifest["files"]["a"]["size"]) == ("y", 7)


def test_download_takes_an_object_or_a_folder_also_of_another_bucket(store: Store, tmp_path: Path) -> None:
    other = Store(StoreAddress(endpoint=store.address.endpoint, bucket=f"other-{secrets.token_hex(4)}"))
    other.check()
    other.put_bytes("data/set.zip", b"zip")
    other.put_bytes("data/in/x", b"x")
    store.download(other.uri("data/set.zip"), tmp_path / "one")
    assert (tmp_path / "one" / "set.zip").read_bytes() == b"zip"
    store.download(other.uri("data"), tmp_path / "all")
    assert (tmp_path / "all" / "in" / "x").read_bytes() == b"x"
    with pytest.raises(StoreError, match="nothing there"):
        store.download(other.uri("dat"), tmp_path / "none")
    with pytest.raises(StoreError, match="no bucket"):
        store.download("s3://no-such-bucket/x", tmp_path / "none")
    for text in ("data/set.zip", "http://host/x", "s3://"):
        with pytest.raises(UserError, match="s3://bucket"):
            store.download(text, tmp_path / "none")


def test_check_creates_a_missing_bucket(store: Store) -> None:
    fresh = Store(StoreAddress(endpoint=store.address.endpoint, bucket=f"fresh-{secrets.token_hex(4)}"))
    with pytest.raises(StoreError, match="no bucket fresh"):
        fresh.put_bytes("x", b"1")
    fresh.check()
    fresh.check()
    assert fresh.put_bytes("x", b"1")


def test_an_unreachable_store_is_reported_soon(store: Store) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    away = Store(StoreAddress(endpoint=endpoint, bucket="hep2flow"))
    began = time.monotonic()
    with pytest.raises(StoreError) as error:
        away.check()
    assert time.monotonic() - began < 20
    assert endpoint in one_line(error)
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(error.value)


def test_a_server_that_is_no_store_is_reported(
    store_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        page = Store(StoreAddress(endpoint=f"http://127.0.0.1:{server.server_port}", bucket="hep2flow"))
        with pytest.raises(StoreError, match="S3 server"):
            page.check()
        server.shutdown()


def test_wrong_credentials_are_reported_and_never_shown(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    right = os.environ["AWS_SECRET_ACCESS_KEY"]
    store.put_bytes("x", b"1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    wrong = open_store()
    for action in (wrong.check, lambda: wrong.get_bytes("x"), lambda: wrong.put_bytes("x", b"2")):
        began = time.monotonic()
        with pytest.raises(StoreError, match="AWS_ACCESS_KEY_ID") as error:
            action()
        assert time.monotonic() - began < 20
        assert "wrong-secret" not in one_line(error)
    with pytest.raises(StoreError, match="credentials"):
        wrong.exists("x")
    assert right not in repr(store)
    assert store.get_bytes("x") == b"1"


def test_a_proxy_is_not_used_for_loopback(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert open_store().put_bytes("x", b"1")


LIMITED = """
import resource, sys
from pathlib import Path
from hep2flow.errors import StoreError
from hep2flow.store.open_store import open_store
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
try:
    open_store().get_file("large", Path(sys.argv[1]))
except StoreError as error:
    print(error)
"""


def test_a_full_disk_here_is_reported_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    store.put_bytes("large", bytes(3 * 2**20))
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "large")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "no space left" in answer.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "a"}, "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_SECRET_ACCESS_KEY": "a"}, "AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "hush"}, "HEP2FLOW_BUCKET"),
        ({"AWS_PROFILE": "lab"}, "HEP2FLOW_BUCKET"),
        ({"HEP2FLOW_BUCKET": "mine"}, "HEP2FLOW_BUCKET"),
        (
            {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "hush", "HEP2FLOW_BUCKET": "No Bucket"},
            "HEP2FLOW_BUCKET",
        ),
        (
            {
                "AWS_ACCESS_KEY_ID": "a",
                "AWS_SECRET_ACCESS_KEY": "hush",
                "HEP2FLOW_BUCKET": "mine",
                "AWS_ENDPOINT_URL": "http://me:hush@host",
            },
            "AWS_ENDPOINT_URL",
        ),
    ],
)
def test_half_given_settings_name_the_variable(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], named: str
) -> None:
    for name in embedded_server.VARIABLES:  # a module's own Ray may have set them for its workers
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=named) as error:
        open_store()
    assert "hush" not in one_line(error)


def test_nothing_given_means_the_embedded_store_also_for_children(store_home: Path) -> None:
    store = open_store()
    assert store.address.bucket == "hep2flow"
    key = f"child-{secrets.token_hex(4)}"
    code = f"from hep2flow.store.open_store import open_store; open_store().put_bytes({key!r}, b'from the child')"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert store.get_bytes(key) == b"from the child"


def test_an_address_holds_no_credential_and_no_unknown_field() -> None:
    with pytest.raises(ValidationError):
        StoreAddress(endpoint="http://key:secret@host:9000", bucket="abc")
    with pytest.raises(ValidationError):
        StoreAddress.model_validate({"bucket": "abc", "secret": "x"})


@given(prefix=st.lists(SEGMENT, max_size=3).map("/".join), key=KEY)
def test_uri_and_key_are_inverse(prefix: str, key: str) -> None:
    store = address_only(prefix)
    assert store.key(store.uri(key)) == key
    assert split_uri(store.uri(key))[0] == "bucket"
    with pytest.raises(UserError):
        store.key(f"s3://bucket-2/{prefix}/{key}")


@given(key=KEY)
def test_a_uri_outside_the_prefix_is_refused(key: str) -> None:
    store = address_only("inner")
    for uri in (f"s3://bucket/inner2/{key}", f"s3://bucket/outer/{key}", "s3://bucket/inner", "s3://bucket/inner/"):
        with pytest.raises(UserError, match="outside"):
            store.key(uri)


def address_only(prefix: str) -> Store:
    store = object.__new__(Store)  # without the client, which takes 50 ms to make
    store.address = StoreAddress(bucket="bucket", prefix=prefix)
    store._root = f"{store.address.prefix}/" if store.address.prefix else ""
    return store
