#!/usr/bin/env bash
# kfp 2.17.0: a list constant that holds task outputs, take(texts=[one.output, two.output]), is filled in by replacing text
# inside the step's input, which is JSON. Plain strings arrive; a string with a quote or a line break (a YAML document) makes
# the input invalid JSON, and the step fails before its function begins, with a JSONDecodeError that names neither.
# The same value passed alone, take(text=one.output), arrives whole.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check kfp==2.17.0
cat > "$folder/lists.py" <<'PY'
import sys, tempfile
from pathlib import Path
from kfp import dsl, local

@dsl.component(base_image="python:3.11", install_kfp_package=False)
def make(text: str) -> str:
    return text

@dsl.component(base_image="python:3.11", install_kfp_package=False)
def take(texts: list, seen: str) -> None:
    with open(seen, "w") as file:
        file.write(repr(texts))

@dsl.component(base_image="python:3.11", install_kfp_package=False)
def take_one(text: str, seen: str) -> None:
    with open(seen, "w") as file:
        file.write(repr(text))

@dsl.pipeline
def several(text: str, seen: str) -> None:
    take(texts=[make(text=text).output, "constant"], seen=seen)

@dsl.pipeline
def alone(text: str, seen: str) -> None:
    take_one(text=make(text=text).output, seen=seen)

found = {}
for name, pipeline, text in (
    ("plain in a list", several, "s3://bucket/key"),
    ("quote in a list", several, 'say "a"'),
    ("lines in a list", several, "a: 1\nb: 2"),
    ("lines alone", alone, "a: 1\nb: 2"),
):
    seen = Path(sys.argv[1]) / name
    with tempfile.TemporaryDirectory() as root:
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root, raise_on_error=False)
        pipeline(text=text, seen=str(seen))
    found[name] = seen.read_text() if seen.exists() else "failed"
print(f"kfp list of outputs: {found}")
sys.exit(
    found
    != {
        "plain in a list": "['s3://bucket/key', 'constant']",
        "quote in a list": "failed",
        "lines in a list": "failed",
        "lines alone": repr("a: 1\nb: 2"),
    }
)
PY
mkdir "$folder/seen"
"$folder/venv/bin/python" "$folder/lists.py" "$folder/seen" 2>&1 | grep "^kfp list of outputs"
echo "kfp 2.17.0 behaves as described"
