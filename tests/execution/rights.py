"""What a request to the Kubernetes API asks for, and what the Role of a pipeline's steps allows."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import yaml

ROLE = Path(__file__).parents[2] / "k8s" / "base" / "role.yaml"
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}

Access = tuple[str, str, str]  # API group, resource, verb


@cache
def allowed() -> frozenset[Access]:
    """Everything that the Role allows."""
    (role,) = (one for one in yaml.safe_load_all(ROLE.read_text(encoding="utf-8")) if one["kind"] == "Role")
    return frozenset(
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )


def asked(method: str, url: str) -> Access:
    """What an API server would look for in the Roles before it answers, as the documentation of RBAC has it."""
    parts = urlsplit(url)
    root, *path = parts.path.strip("/").split("/")
    group = path.pop(0) if root == "apis" else ""
    _version, namespaces, _namespace, resource, *rest = path
    assert namespaces == "namespaces", f"{url}: is outside every namespace, where no Role reaches"
    name, part = [*rest, "", ""][:2]
    if method == "GET":
        watches = parse_qs(parts.query).get("watch", ["false"]) != ["false"]
        verb = "get" if name else "watch" if watches else "list"
    elif method == "DELETE":
        verb = "delete" if name else "deletecollection"
    else:
        verb = VERBS[method]
    return group, f"{resource}/{part}" if part else resource, verb
