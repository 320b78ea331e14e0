"""Custom resources held against the schemas of their CRDs, as an API server with strict field validation would.

The folder is what HEP2FLOW_CRDS names. CEL rules (``x-kubernetes-validations``) are not evaluated.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from jsonschema.protocols import Validator

Tree = dict[str, Any]
Kind = tuple[str, str]  # apiVersion, kind


def faults(resource: Tree, folder: Path) -> list[str]:
    """What the CRD refuses of a resource, each as ``path: why``; LookupError where no CRD is of its kind."""
    kind = (resource["apiVersion"], resource["kind"])
    schemas = served(folder)
    if kind not in schemas:
        raise LookupError(f"{folder} has no CRD of {' '.join(kind)}")
    errors = sorted(schemas[kind].iter_errors(resource), key=lambda error: error.json_path)
    return [f"{error.json_path}: {error.message[:300]}" for error in errors]


def folder() -> Path:
    """The folder HEP2FLOW_CRDS names; a test that asks for it is skipped where it names none."""
    value = os.environ.get("HEP2FLOW_CRDS")
    if not value:
        pytest.skip("HEP2FLOW_CRDS is not set: it names a folder with the CRDs of KubeRay and Kueue")
    if not Path(value).is_dir():
        pytest.skip(f"HEP2FLOW_CRDS names {value}, which is not there")
    return Path(value)


@cache
def served(folder: Path) -> dict[Kind, Validator]:
    """A validator for each version of each CRD in a folder of YAML files."""
    validators = {}
    for path in sorted(folder.glob("*.yaml")):
        for crd in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            spec = crd["spec"]
            for version in spec["versions"]:
                schema = strict(version["schema"]["openAPIV3Schema"])
                # An object's own metadata is checked by the API server, by rules that no CRD repeats.
                fields = {
                    name: rule
                    for name, rule in METADATA.items()
                    if name != "namespace" or spec["scope"] == "Namespaced"
                }
                schema["properties"]["metadata"] = {
                    "type": "object",
                    "required": ["name"],
                    "additionalProperties": False,
                    "properties": fields,
                }
                validators[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = _Structural(schema)
    return validators


METADATA: Tree = {
    "name": {"type": "string", "maxLength": 253, "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"},
    "namespace": {"type": "string", "maxLength": 63, "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
    "labels": {
        "type": "object",
        "additionalProperties": {
            "type": "string",
            "maxLength": 63,
            "pattern": r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
        },
    },
    "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    "finalizers": {"type": "array", "items": {"type": "string"}},
    "ownerReferences": {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["apiVersion", "kind", "name", "uid"],
            "additionalProperties": False,
            "properties": {
                **{key: {"type": "string"} for key in ("apiVersion", "kind", "name", "uid")},
                **{key: {"type": "boolean"} for key in ("controller", "blockOwnerDeletion")},
            },
        },
    },
}
LIMITS = {"int32": 2**31, "int64": 2**63}


def strict(schema: Tree) -> Tree:
    """A structural schema as a JSON schema that refuses unknown fields, as the API server does."""
    known = dict(schema)
    if "properties" in known:
        known["properties"] = {name: strict(child) for name, child in known["properties"].items()}
    if isinstance(known.get("additionalProperties"), dict):
        known["additionalProperties"] = strict(known["additionalProperties"])
    if "items" in known:
        known["items"] = strict(known["items"])
    if known.get("type") == "object" and not known.get("x-kubernetes-preserve-unknown-fields"):
        known.setdefault("additionalProperties", False)
    if known.get("x-kubernetes-int-or-string"):
        known.setdefault("anyOf", [{"type": "integer"}, {"type": "string"}])
    if (limit := LIMITS.get(known.get("format", ""))) is not None:
        known["minimum"] = max(known.get("minimum", -limit), -limit)
        known["maximum"] = min(known.get("maximum", limit - 1), limit - 1)
    if known.get("nullable") and "type" in known:
        known["type"] = [known["type"], "null"]
    return known


def _list_type(validator: Validator, kind: str, items: Any, schema: Tree) -> Iterator[jsonschema.ValidationError]:
    """Lists that stand for sets and maps hold nothing twice."""
    if kind == "atomic" or not isinstance(items, list):
        return
    keys = schema.get("x-kubernetes-list-map-keys", [])
    if kind == "map":
        # A missing key has the value that the schema gives it.
        properties = schema["items"]["properties"]
        items = [tuple(item.get(key, properties[key].get("default")) for key in keys) for item in items]
    if len(set(items)) < len(items):
        yield jsonschema.ValidationError(f"holds the same {'/'.join(keys) or 'value'} twice")


_Structural = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"x-kubernetes-list-type": _list_type})
