"""The committed YAML is what the code compiles to, and holds nothing it must not."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hep2flow.cluster.compiling import compile_to

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["reproduce", "sweep"])
def test_the_committed_yaml_has_not_drifted(name: str, tmp_path: Path) -> None:
    compile_to(name, tmp_path / "fresh.yaml")
    committed = (ROOT / "pipelines" / f"{name}.yaml").read_text(encoding="utf-8")
    assert (tmp_path / "fresh.yaml").read_text(encoding="utf-8") == committed, (
        f"run `hep2flow compile {name} -o pipelines/{name}.yaml` and commit it"
    )


@pytest.mark.parametrize("name", ["reproduce", "sweep"])
def test_the_compiled_pipeline_holds_no_secret_and_no_local_path(name: str) -> None:
    text = (ROOT / "pipelines" / f"{name}.yaml").read_text(encoding="utf-8")
    for forbidden in (str(ROOT), str(Path.home()) + "/", "/home/", "127.0.0.1", "secret_key"):
        assert forbidden not in text
    credentials = [line.strip() for line in text.splitlines() if "AWS_" in line]
    assert set(credentials) == {"- envVar: AWS_ACCESS_KEY_ID", "- envVar: AWS_SECRET_ACCESS_KEY"}, "names, no value"


def test_every_stage_is_a_task_and_the_run_is_closed_however_it_ends() -> None:
    document = next(yaml.safe_load_all((ROOT / "pipelines" / "reproduce.yaml").read_text(encoding="utf-8")))
    executors = {name.removeprefix("exec-") for name in document["deploymentSpec"]["executors"]}
    assert {"begin", "ingest", "mask", "split", "train", "evaluate", "report", "finish"} <= executors
    finish = document["root"]["dag"]["tasks"]["finish"]
    assert finish["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert not finish.get("cachingOptions", {}).get("enableCache", False)
