from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hep2flow.errors import UserError
from hep2flow.store import layout

DIGEST = "0123456789abcdef" * 2


def test_every_key_lies_where_the_contract_says() -> None:
    assert layout.dataset_prefix("icpr2012", DIGEST) == f"datasets/icpr2012/{DIGEST}"
    assert layout.split_key(DIGEST) == f"splits/{DIGEST}.parquet"
    assert layout.cache_key("train", DIGEST) == f"cache/train/{DIGEST}.json"
    assert layout.output_prefix("train", DIGEST) == f"trainings/{DIGEST}"
    assert layout.output_prefix("evaluate", DIGEST) == f"evaluations/{DIGEST}"
    assert layout.output_prefix("tune", DIGEST) == f"sweeps/{DIGEST}"
    assert layout.run_prefix("r1") == "runs/r1"
    assert layout.run_record("r1") == "runs/r1/run.json"
    assert layout.stage_record("r1", "train", "convnext-b") == "runs/r1/stages/train-convnext-b.json"
    assert layout.stage_record("r1", "ingest") == "runs/r1/stages/ingest.json"
    assert layout.report_prefix("r1") == "runs/r1/report"
    assert layout.weights_file("0123456789abcdef" * 4) == "weights/" + "0123456789abcdef" * 2 + "/model.safetensors"
    assert layout.mirror_entry("convnext_base.fb_in22k") == "weights/hub/convnext_base.fb_in22k.json"


@pytest.mark.parametrize("name", ["", "..", "a/b", "../a", "a b"])
def test_names_never_lead_elsewhere(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        layout.dataset_prefix(name, DIGEST)
    with pytest.raises(UserError):
        layout.run_prefix(name)
    with pytest.raises(UserError, match=r"model\.network"):
        layout.mirror_entry(name)


@pytest.mark.parametrize("text", ["", "-a", "a-", "A", "a_b", "a.b", "a\n", "ü", "a" * 41])
def test_a_bad_run_id_is_refused_with_the_rule(text: str) -> None:
    with pytest.raises(UserError, match="at most 40 characters of a-z, 0-9 and hyphen"):
        layout.valid_run_id(text)


@given(st.from_regex(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True))
def test_every_dns_label_of_forty_characters_is_a_run_id(text: str) -> None:
    assert layout.valid_run_id(text) == text


@given(st.text(min_size=1))
def test_every_job_gets_a_valid_run_id_always_the_same(job_id: str) -> None:
    run_id = layout.run_id_from_job(job_id)
    assert layout.valid_run_id(run_id) == run_id
    assert layout.run_id_from_job(job_id) == run_id


@given(st.text(min_size=1), st.text(min_size=1))
def test_different_jobs_get_different_runs(one: str, other: str) -> None:
    assert (layout.run_id_from_job(one) == layout.run_id_from_job(other)) == (one == other)


def test_a_kubeflow_job_keeps_its_id() -> None:
    job = "8f14e45f-ceea-467f-a9d2-0b1b2d3c4e5f"
    assert layout.run_id_from_job(job) == job


def test_new_run_ids_are_valid_and_differ() -> None:
    ids = {layout.valid_run_id(layout.new_run_id()) for _ in range(20)}
    assert len(ids) == 20
    assert all(re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{6}", run_id) for run_id in ids)
