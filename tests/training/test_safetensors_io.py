"""A safetensors file written over another."""

from __future__ import annotations

from pathlib import Path

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from hep2flow.training.safetensors_io import DTYPES, overwrite

Tensors = dict[str, torch.Tensor]


@st.composite
def tensors(draw: st.DrawFn) -> Tensors:
    def tensor() -> torch.Tensor:
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        return (torch.arange(torch.Size(shape).numel()) % 120).reshape(shape).to(draw(st.sampled_from(list(DTYPES))))

    return {name: tensor() for name in draw(st.sets(st.text(min_size=1, max_size=5), max_size=6)) - {"__metadata__"}}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(tensors(), st.text()), min_size=1, max_size=3))
def test_the_library_reads_what_was_written_last(tmp_path: Path, writings: list[tuple[Tensors, str]]) -> None:
    path = tmp_path / "state.safetensors"
    for written, note in writings:
        overwrite(path, written, {"note": note})
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"note": note}
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    assert found.keys() == written.keys()
    for name, tensor in written.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
