"""What the doctor finds on this machine: every fault named, each with what mends it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hep2flow.execution.local import doctor
from hep2flow.store.s3 import Store
from hep2flow.store.weights_mirror import mirror_file
from tests.test_cli import hep2flow


@pytest.fixture
def here(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A machine on which all is well; Ray's address is the developer's own business."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return store


def fault(out: str, subject: str) -> str:
    """The one line about a subject, which has to be mended."""
    (line,) = (line for line in out.splitlines() if line.startswith(f"ERROR   {subject}: "))
    return line


def test_where_all_is_well_it_says_so_and_ends_with_0(here: Store) -> None:
    answer = hep2flow("doctor")
    assert (answer.code, answer.err) == (0, ""), answer.out
    assert "ERROR" not in answer.out
    for told in ("ok      python: ", "ok      packages: all ", f"ok      storage: {here.uri('')} at ", "ok      ray: "):
        assert told in answer.out
    assert list(here.list_objects("")) == [], "nothing of it stays in the store"


def test_a_program_can_read_what_it_found(here: Store) -> None:
    findings = hep2flow("doctor", "--json").json()
    assert {finding["subject"] for finding in findings} >= {
        "python",
        "packages",
        "home",
        "storage",
        "weights",
        "gpu",
        "ray",
    }
    assert all(finding["mend"] for finding in findings if finding["state"] != "ok")


def test_a_store_that_does_not_answer_is_named_with_the_setting_that_names_it(here: Store) -> None:
    os.environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
    answer = hep2flow("doctor")
    assert answer.code == 2
    assert "cannot reach http://127.0.0.1:9" in fault(answer.out, "storage")
    assert fault(answer.out, "storage").endswith("; check AWS_ENDPOINT_URL and that the server runs")
    assert "ok      ray: " in answer.out, "it goes on"


def test_wrong_credentials_are_told_without_repeating_them(here: Store) -> None:
    os.environ["AWS_SECRET_ACCESS_KEY"] = "not-the-secret"
    answer = hep2flow("doctor")
    assert answer.code == 2
    assert "does not accept these credentials" in fault(answer.out, "storage")
    assert "not-the-secret" not in answer.out + answer.err


def test_half_a_setting_is_told(here: Store) -> None:
    del os.environ["AWS_SECRET_ACCESS_KEY"]
    assert "AWS_SECRET_ACCESS_KEY is not set" in fault(hep2flow("doctor").out, "storage")


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nonsense"])
def test_a_ray_cluster_that_is_not_there_is_told(address: str, here: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    answer = hep2flow("doctor")
    assert answer.code == 2
    assert fault(answer.out, "ray").endswith("; correct RAY_ADDRESS, or unset it to train here")


def test_weights_in_the_store_are_seen_and_those_that_are_not_are_no_fault(here: Store, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    mirror_file(here, tmp_path / "model.safetensors", "coat_mini.in1k", "a test")
    states = {finding.what.split()[0]: finding.state for finding in doctor.check_weights(here)}
    assert states["coat_mini.in1k"] == "ok"
    assert states["convnext_base.fb_in22k"] == "warning"


def distribution(folder: Path, name: str, *requires: str) -> None:
    """An installed distribution that asks for others."""
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", "Provides-Extra: whole"]
    (folder / f"{name}-1.0.dist-info").mkdir()
    text = "\n".join([*lines, *(f"Requires-Dist: {one}" for one in requires)])
    (folder / f"{name}-1.0.dist-info" / "METADATA").write_text(text)


def test_packages_that_are_missing_or_too_old_are_named_with_the_command_that_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    distribution(tmp_path, "lacking", "absent>=2", "pytest>=999", "numpy", "part[whole]", 'elsewhere; extra == "dev"')
    distribution(tmp_path, "part", 'hidden>=1; extra == "whole"')
    told = {finding.subject: str(finding) for finding in doctor.check_packages("lacking") if finding.state == "error"}
    assert set(told) == {"absent", "pytest", "hidden"}
    assert told["absent"] == "absent: not installed; pip install 'absent>=2'"
    assert told["pytest"].endswith("is installed, >=999 is required; pip install 'pytest>=999'")


def test_a_full_disk_is_told_before_a_training_meets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    assert doctor.check_disk("home", folder, "HEP2FLOW_HOME").state == "ok"
    monkeypatch.setattr(doctor, "NEEDED_GIB", 10**9)
    found = doctor.check_disk("home", folder, "HEP2FLOW_HOME")
    assert found.state == "error"
    assert "HEP2FLOW_HOME" in found.mend


def test_options_that_cannot_be_read_are_refused_in_one_line(tmp_path: Path) -> None:
    for text, told in (
        ("{", "cannot be read as JSON"),
        ("[]", "a JSON object, this is list"),
        ('{"a": 1}', "cluster.a"),
    ):
        (tmp_path / "cluster.json").write_text(text)
        answer = hep2flow("doctor", "--cluster", "--options", tmp_path / "cluster.json")
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
        assert told in answer.err
    assert hep2flow("doctor", "--cluster", "--options", tmp_path / "none.json").code == 2


def test_options_of_a_cluster_are_refused_without_it() -> None:
    answer = hep2flow("doctor", "--namespace", "kubeflow")
    assert (answer.code, answer.out) == (2, "")
    assert "add --cluster" in answer.err


def test_without_a_cluster_it_says_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    answer = hep2flow("doctor", "--cluster")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("hep2flow: there is no Kubernetes cluster to be found")
    assert answer.err.count("\n") == 1
    assert "set KUBECONFIG" in answer.err
