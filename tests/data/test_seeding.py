"""Random draws that depend on what they are for."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest
import torch

from hep2flow.data.seeding import derived_seed, seeded


def test_drawing_leaves_the_global_generators_as_they_were() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    with seeded("anything"):
        torch.rand(100)
    assert torch.equal(torch.rand(1), expected)


def test_equal_parts_draw_equally_from_every_generator_and_other_parts_do_not() -> None:
    def drawn(*parts: object) -> tuple[float, float, float]:
        with seeded(*parts):
            return random.random(), float(np.random.rand()), float(torch.rand(()))

    assert drawn(0, 1, "c") == drawn(0, 1, "c")
    for one, other in zip(drawn(0, 1, "c"), drawn(0, 2, "c"), strict=True):
        assert one != other


def test_a_derived_seed_is_the_same_on_every_machine() -> None:
    text = b"(0, 1, 'c007', 2)"
    expected = int(hashlib.sha256(text).hexdigest()[:16], 16) // 2
    assert derived_seed(0, 1, "c007", 2) == expected < 2**63
    assert derived_seed(0, 11, "c") != derived_seed(0, 1, "1c")


def test_the_generators_come_back_even_after_an_error() -> None:
    before = random.getstate(), torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), seeded("x"):
        _ = random.random() / 0
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
