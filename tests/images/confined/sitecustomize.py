"""On PYTHONPATH: a step of the local runner finds only what its image has.

LACKING: JSON, component -> modules that are installed here, and not in its image
"""

from __future__ import annotations

import json
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any


def _lacking() -> set[str]:
    told, words = os.environ.get("LACKING"), sys.orig_argv
    if told is None or "--function_to_execute" not in words:
        return set()
    return set(json.loads(told)[words[words.index("--function_to_execute") + 1]])


class _Confined:
    def __init__(self, lacking: set[str]) -> None:
        self.lacking = lacking

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return None if name.split(".")[0] in self.lacking else PathFinder.find_spec(name, path, target)


if _found := _lacking():
    sys.meta_path[:] = [_Confined(_found) if finder is PathFinder else finder for finder in sys.meta_path]  # type: ignore[list-item]
