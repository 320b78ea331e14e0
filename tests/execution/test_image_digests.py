"""Tags as digests, against an HTTP double of a container registry."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hep2flow.errors import UserError
from hep2flow.execution.kubeflow.image_digests import pin_image

DIGEST = "sha256:" + 64 * "a"


class Registry(ThreadingHTTPServer):
    """One image, laboratory/step:1; with ``user`` only for whoever has a token, which that user's password brings."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.user = ""
        self.accepted: list[str] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Registry

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.server.accepted.append(self.headers["Accept"])
        if self.server.user and self.headers.get("Authorization") != "Bearer let-me-in":
            realm = f'Bearer realm="http://{self.server.host}/token",service="registry",scope="repository:laboratory/step:pull"'
            self._answer(401, {"Www-Authenticate": realm})
        elif self.path == "/v2/laboratory/step/manifests/1":
            self._answer(200, {"Docker-Content-Digest": DIGEST})
        else:
            self._answer(404, {})

    def do_GET(self) -> None:
        known = "Basic " + base64.b64encode(self.server.user.encode()).decode()
        if self.headers.get("Authorization") != known:
            self._answer(401, {})
            return
        self._answer(200, {"Content-Type": "application/json"}, json.dumps({"token": "let-me-in"}).encode())

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    server = Registry()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_tag_becomes_the_digest_that_the_registry_tells(registry: Registry) -> None:
    assert pin_image(f"{registry.host}/laboratory/step:1") == f"{registry.host}/laboratory/step@{DIGEST}"
    assert "application/vnd.oci.image.index.v1+json" in registry.accepted[0]


def test_a_digest_is_taken_as_it_is_and_nobody_is_asked() -> None:
    image = f"registry.invalid/laboratory/step@{DIGEST}"
    assert pin_image(image) == image


def test_credentials_are_those_of_docker_login(registry: Registry, tmp_path: Path) -> None:
    registry.user = "somebody:password"
    known = base64.b64encode(registry.user.encode()).decode()
    docker = tmp_path / ".docker"
    docker.mkdir()
    (docker / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": known}}}))
    assert pin_image(f"{registry.host}/laboratory/step:1").endswith(DIGEST)


@pytest.mark.parametrize("tag", ["2", "latest"])
def test_an_image_that_is_not_there_is_named_with_what_to_do(registry: Registry, tag: str) -> None:
    with pytest.raises(UserError, match=f"step:{tag}.*404.*push it.*--keep-tags"):
        pin_image(f"{registry.host}/laboratory/step:{tag}")


def test_a_registry_that_does_not_answer_is_named_at_once() -> None:
    with pytest.raises(UserError, match=r"127\.0\.0\.1:1/laboratory/step:1.*ConnectionError"):
        pin_image("127.0.0.1:1/laboratory/step:1")


def test_a_registry_that_wants_a_login_is_named(registry: Registry) -> None:
    registry.user = "somebody:password"
    with pytest.raises(UserError, match="docker login"):
        pin_image(f"{registry.host}/laboratory/step:1")
