"""What every artifact of a training chosen on the test set says of itself (the paper's Appendix A)."""

from typing import Any

OPTIMISTIC_WARNING = "selected on the test set: optimistic, not a test result"


def protocol_note(protocol: str) -> dict[str, Any]:
    """Return :func:`selection_note` of what was trained on a split of this protocol."""
    return selection_note(protocol == "whole-train")


def selection_note(on_test: bool) -> dict[str, Any]:
    """Return facts for a manifest: ``selected_on_test``, and the ``warning`` where it is true."""
    return {"selected_on_test": on_test, **({"warning": OPTIMISTIC_WARNING} if on_test else {})}
