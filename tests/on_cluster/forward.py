"""The cluster's store, reached from the machine that runs the tests."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from hep2flow.errors import UserError
from hep2flow.execution.kubernetes.cluster_options import ClusterOptions
from hep2flow.store.address import StoreAddress
from tests.on_cluster.kubectl import kubectl

PORTS = {"http": 80, "https": 443}


@contextmanager
def reached(store: StoreAddress, namespace: str) -> Iterator[StoreAddress]:
    """Inside the block the store can be reached at the address that is yielded; UserError where it cannot.

    store: as pods of the namespace reach it
    """
    service = service_of(store, namespace)
    if service is None:
        yield store
        return
    name, where = service
    parts = urlsplit(str(store.endpoint))
    command = ["kubectl", "-n", where, "port-forward", f"service/{name}", f":{parts.port or PORTS[parts.scheme]}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        said = []
        for line in process.stdout:  # it says so once the port is open
            said.append(line.strip())
            if here := re.search(r"127\.0\.0\.1:(\d+) ->", line):
                break
        else:
            raise UserError(f"{' '.join(command)}: {' '.join(said)}")
        # A line for each connection: unread they would block it.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield store.model_copy(update={"endpoint": f"{parts.scheme}://127.0.0.1:{here[1]}"})
    finally:
        process.terminate()
        process.wait()


def service_of(store: StoreAddress, namespace: str) -> tuple[str, str] | None:
    """Name and namespace of the service that a store is, for pods of a namespace; None where it is none of the cluster's."""
    name, *rest = (urlsplit(store.endpoint or "").hostname or "").split(".")
    if not name or (len(rest) > 1 and rest[1] != "svc"):
        return None
    return name, rest[0] if rest else namespace


def credentials(options: ClusterOptions, namespace: str) -> dict[str, str]:
    """The right to enter the store, as boto3 finds it in an environment. Not for printing."""
    data = json.loads(kubectl("-n", namespace, "get", "secret", options.secret, "-o", "json"))["data"]
    keys = {"AWS_ACCESS_KEY_ID": options.access_key, "AWS_SECRET_ACCESS_KEY": options.secret_key}
    return {name: base64.b64decode(data[key]).decode() for name, key in keys.items()}
