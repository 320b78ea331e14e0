"""What every artifact of a training chosen on the test set says of itself (the paper's Appendix A)."""

from __future__ import annotations

from typing import Any

OPTIMISTIC = "selected on the test set: optimistic, not a test result"
WHOLE_TRAIN = "whole-train"


def selection(protocol: str) -> dict[str, Any]:
    """:func:`reservation` of what was trained on a split of this protocol."""
    return reservation(protocol == WHOLE_TRAIN)


def reservation(on_test: bool) -> dict[str, Any]:
    """Facts for a manifest: ``selected_on_test``, and the ``warning`` where it is true."""
    return {"selected_on_test": on_test, **({"warning": OPTIMISTIC} if on_test else {})}
