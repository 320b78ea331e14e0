"""The published counts, against the totals that the literature states."""

from __future__ import annotations

from hep2flow.sources.published_counts import PATTERNS, SPECIMENS, cells_by_pattern


def test_the_totals_are_those_of_the_contest() -> None:
    counts = cells_by_pattern()
    train = [counts["train", pattern] for pattern in PATTERNS]
    test = [counts["test", pattern] for pattern in PATTERNS]
    assert (train, sum(train)) == ([150, 94, 109, 208, 102, 58], 721)
    assert (test, sum(test)) == ([180, 114, 101, 149, 139, 51], 734)


def test_there_are_28_specimens_numbered_from_one() -> None:
    assert sorted(specimen.number for specimen in SPECIMENS) == list(range(1, 29))
    assert {specimen.intensity for specimen in SPECIMENS} == {"positive", "intermediate"}
