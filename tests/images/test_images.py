"""The images as they were built: what is in them, who they run as, and what they may touch."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from hep2flow import __version__

from .conftest import as_caller, inside
from .lists import ROOT

pytestmark = pytest.mark.images

SECRET = re.compile(r"(?i)secret_|password|passwd=|aws_|token=|\bpip\.conf\b.*=|://[^/\s]*@|BEGIN [A-Z ]*PRIVATE KEY")
LIMITS = {"step": 700e6, "ray": {"cpu": 3e9, "cuda": 9e9}}
TIMED = """
import subprocess, time
def seconds():
    began = time.perf_counter()
    subprocess.run(["hep2flow", "--version"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began
print(min(seconds() for _ in range(5)))
"""


def test_it_runs_as_a_user_by_number_and_says_what_it_is(engine: Any, image: Any) -> None:
    assert image.attrs["Config"]["User"] == "1000:1000"
    assert inside(engine, image, "id", "-u").strip() == "1000"
    labels = image.attrs["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert re.fullmatch(r"[0-9a-f]{40}", labels["org.opencontainers.image.revision"])
    assert inside(engine, image, "hep2flow", "--version").strip() == f"hep2flow {__version__}"


def test_signals_reach_the_program_and_its_orphans_are_buried(engine: Any, image: Any) -> None:
    assert inside(engine, image, "cat", "/proc/1/comm").strip() == "tini"


def test_it_may_write_to_tmp_and_to_the_work_folder_alone(engine: Any, image: Any) -> None:
    search = (
        "find / -xdev -not -type l -writable -not -path '/proc/*' 2>/dev/null | grep -vE '^/(tmp|work)(/|$)' || true"
    )
    assert inside(engine, image, "sh", "-c", search, read_only=False) == ""
    assert inside(engine, image, "sh", "-c", "touch /work/x /tmp/x && echo both", read_only=False).strip() == "both"


def test_the_step_image_is_small_and_quick_and_has_no_torch_and_no_compiler(engine: Any, step_image: Any) -> None:
    assert step_image.attrs["Size"] < LIMITS["step"]
    assert float(inside(engine, step_image, "python3", "-c", TIMED)) < 1
    tools = "for name in cc gcc g++ c++ clang ld as make; do command -v $name; done; true"
    assert inside(engine, step_image, "sh", "-c", tools) == ""
    absent = "from importlib.util import find_spec as f; print([n for n in ('torch', 'ray', 'timm', 'nvidia') if f(n)])"
    assert inside(engine, step_image, "python3", "-c", absent).strip() == "[]"


def test_cells_are_worked_on_by_several_processes_where_only_tmp_is_written(engine: Any, step_image: Any) -> None:
    program = """
from hep2flow import parallel
parallel.cpu_count = lambda: 2
few = parallel.FEW
print(list(parallel.parallel_map(abs, range(-few, 0), few, lambda item: 1)) == list(range(few, 0, -1)))
"""
    assert inside(engine, step_image, "python3", "-c", program, user="4321").strip() == "True"


@pytest.mark.slow
def test_the_ray_image_is_as_small_as_its_torch_allows_and_computes(engine: Any, both: None) -> None:
    from hep2flow.components import images

    image = engine.images.get(images.RAY)
    program = (
        "import torch, torchvision, timm, ray; print('cuda' if torch.version.cuda else 'cpu', torch.ones(2).sum())"
    )
    variant, told = inside(engine, image, "python3", "-c", program).split(maxsplit=1)
    assert told.strip() == "tensor(2.)"
    assert image.attrs["Size"] < LIMITS["ray"][variant]  # type: ignore[index]
    assert inside(engine, image, "bash", "-lc", "command -v ray hep2flow wget").split()[:2] == [
        "/opt/hep2flow/bin/ray",
        "/opt/hep2flow/bin/hep2flow",
    ]
    if variant == "cuda":  # what torch.compile needs
        compiled = "import torch; print(torch.compile(lambda x: x * 2 + 1)(torch.ones(2)))"
        assert inside(engine, image, "python3", "-c", compiled, tmpfs={"/tmp": "exec"}).strip() == "tensor([3., 3.])"  # noqa: S108


def test_it_holds_no_credential_no_test_no_data_and_no_cache(engine: Any, image: Any, tmp_path: Path) -> None:
    history = "\n".join(layer["CreatedBy"] for layer in image.history())
    assert not SECRET.search(history)
    assert not [variable for variable in image.attrs["Config"]["Env"] if SECRET.search(variable)]
    everything = "find / -xdev -type f -not -path '/proc/*' 2>/dev/null || true"
    files = inside(engine, image, "sh", "-c", everything, user="0").splitlines()
    ours = [PurePosixPath(name) for name in files if "/hep2flow/" in name.replace("/opt/hep2flow/", "/", 1)]
    assert ours
    assert {path.suffix for path in ours} <= {".py", ".pyc", ".yaml", ".typed", ".j2", ".css", ".js"}
    unwanted = re.compile(
        r"(/\.git/|/tests/(cluster|images|end_to_end)/|\.npmrc|\.netrc|/\.aws/|/\.docker/|pip\.conf|pip/cache|^/build/|^/wheels/"
        r"|/var/lib/apt/lists/.|credentials\.json|/id_[rd]sa)"
    )
    assert [name for name in files if unwanted.search(name)] == []


def test_the_command_line_checks_cells_of_this_machine(engine: Any, step_image: Any, cells: Path) -> None:
    told = inside(
        engine,
        step_image,
        *("hep2flow", "data", "check", "/work/cells"),
        volumes={str(cells): {"bind": "/work/cells", "mode": "ro"}},
        user=as_caller(),
    )
    assert "icpr2012" in told


@pytest.mark.parametrize(
    ("put", "found"),
    [("", "no python3"), ("printf '#!/bin/sh\\n[ $1 = --version ] && echo Python 3.9.2\\n'", "Python 3.9.2")],
    ids=["none", "3.9"],
)
def test_a_base_without_a_fitting_python_is_refused_in_one_line(
    engine: Any, step_image: Any, put: str, found: str, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(
        f"FROM {step_image.tags[0]}\nUSER 0\nENV PATH=/usr/local/bin:/usr/bin:/bin\n"
        "RUN rm -f /usr/local/bin/python3* /usr/bin/python3* /bin/python3*"
        + (f"\nRUN {put} >/bin/python3 && chmod +x /bin/python3" if put else "")
    )
    tag = f"hep2flow-test/base:{found.split()[-1]}"
    _docker("build", "--quiet", "--tag", tag, str(tmp_path))
    try:
        choice = ["--file", "docker/Dockerfile", "--target", "step", "--build-arg", f"BASE={tag}"]
        done = _docker("build", *choice, ".", check=False)
        assert done.returncode != 0
        assert f"hep2flow: the base image has {found}, and Python 3.10 or later is needed" in done.stderr
    finally:
        engine.images.remove(tag, force=True)


def _docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    return subprocess.run(
        ["docker", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=check, timeout=300
    )
