"""Numbers as the report's sentences and tables write them."""

from collections.abc import Mapping, Sequence
from typing import Any

RESEARCH_ONLY = "Research use only, not for clinical use."


def percent(value: float | None) -> str:
    """A share as ``75.6 %``; a dash where it is undefined."""
    return "–" if value is None else f"{100 * value:.1f} %"


def interval(bounds: Sequence[float]) -> str:
    """A 95 % interval as ``66.1 to 83.0``, in percent."""
    return f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}"


def points(bounds: Sequence[float]) -> str:
    """An interval of a difference as ``[-2.0, 5.3]``, in points."""
    return f"[{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]"


def probability(p: float) -> str:
    """A test's p as ``p = 0.41``."""
    return f"p = {p:.2g}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever is readable."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def significance(paired: Mapping[str, Any]) -> str:
    """Whether a difference, see :meth:`Family.compare_with`, is more than noise, by permutation test and interval."""
    side = "outside" if paired["outside_noise"] else "inside"
    return f"is {side} the noise: {probability(paired['permutation']['p'])}, interval {points(paired['ci95'])}"


def zero_in_interval(ci95: Sequence[float]) -> str:
    """Whether the interval of a difference contains 0, and what that means."""
    if ci95[0] <= 0 <= ci95[1]:
        return "holds 0: inside the noise"
    return "does not hold 0: more than the choice of cells explains"
