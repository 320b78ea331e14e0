#!/usr/bin/env bash
# kfp 2.17.0, local runner: inside dsl.ParallelFor every output of an earlier task is replaced by the loop's item.
# A pipeline with `make` (returns "from-make") and a loop over ["a", "b"] whose body is given that output: on a cluster the
# body sees "from-make" twice; the local runner hands it "a" and "b", without a word, and the run succeeds.
# A value that comes from the pipeline's own input is passed on rightly.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check kfp==2.17.0
cat > "$folder/loop.py" <<'PY'
import sys, tempfile
from pathlib import Path
from kfp import dsl, local

@dsl.component(base_image="python:3.11", install_kfp_package=False)
def make() -> str:
    return "from-make"

@dsl.component(base_image="python:3.11", install_kfp_package=False)
def take(item: str, made: str, given: str, seen: str) -> None:
    with open(seen, "a") as file:
        file.write(f"{item} {made} {given}\n")

@dsl.pipeline
def loop(given: str, seen: str) -> None:
    made = make()
    with dsl.ParallelFor(["a", "b"], parallelism=1) as item:
        take(item=item, made=made.output, given=given, seen=seen)

seen = Path(sys.argv[1])
with tempfile.TemporaryDirectory() as root:
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root)
    loop(given="input", seen=str(seen))
found = sorted(seen.read_text().splitlines())
print(f"kfp local runner, item / output of make / pipeline's input: {found}")
sys.exit(found != ["a a input", "b b input"])
PY
"$folder/venv/bin/python" "$folder/loop.py" "$folder/seen" 2>&1 | grep "^kfp local runner"
echo "kfp 2.17.0 behaves as described"
