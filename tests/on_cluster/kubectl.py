"""kubectl, as a person would call it."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

from hep2flow.errors import UserError

Tree = dict[str, Any]


def kubectl(*arguments: str, given: str | None = None) -> str:
    """What it prints; given: its standard input. UserError with its last word where it refuses, or is not there."""
    if shutil.which("kubectl") is None:
        raise UserError("there is no kubectl; install it as kubernetes.io/docs/tasks/tools says")
    ended = subprocess.run(["kubectl", *arguments], input=given, capture_output=True, text=True, check=False)
    if ended.returncode:
        said = (ended.stderr or ended.stdout).strip().splitlines()
        raise UserError(f"kubectl {' '.join(arguments[:6])}: {said[-1] if said else f'exit code {ended.returncode}'}")
    return ended.stdout


def listed(namespace: str, resource: str, selector: str) -> list[Tree]:
    """Objects of one kind with these labels."""
    items: list[Tree] = json.loads(kubectl("-n", namespace, "get", resource, "-l", selector, "-o", "json"))["items"]
    return items


def may(account: str, verb: str, group: str, resource: str, namespace: str) -> bool:
    """Whether the API server lets a service account (``namespace:name``) do this in a namespace.

    resource: with its part where it has one, for example ``pods/log``
    """
    name, _, part = resource.partition("/")
    asked = [verb, f"{name}.{group}" if group else name, *([f"--subresource={part}"] if part else [])]
    command = ["kubectl", "auth", "can-i", *asked, "--as", f"system:serviceaccount:{account}", "-n", namespace]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)  # ends with 1 for no, too
    answer = ended.stdout.split()[:1]
    if answer not in (["yes"], ["no"]):
        raise UserError(f"{' '.join(command)}: {ended.stderr.strip()}; ask as somebody who may impersonate")
    return answer == ["yes"]
