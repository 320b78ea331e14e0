"""The README's table of the paper's words is what the recipes say, and docs/architecture.md names what there is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from hep2flow.recipe import load_recipe
from hep2flow.reporting.recipe_table import COAT, CONVNEXT, HEADER, ROWS, Row, render, value_of

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
# A link to a file, and what is defined there where its text says: [cells.py: Cell](../src/hep2flow/cells.py)
LINK = re.compile(r"\[([^\]\s]+)(?:: ([\w.]+))?\]\(\.\./([^)]+)\)")
GENERATED = re.compile(r"<!-- recipe table: hep2flow recipe table -->\n(.*?)<!-- end -->", re.DOTALL)
# The row names of the paper's Tables 1 and 2, as they stand there but for misprints.
TABLE_1 = (
    "RandomErasing, RandomHorizontalFlip, RandomVerticalFlip, ColorJitter, Normalized, Cutout, RandomResizedCrop, "
    "RandomRotation, Rand Augment"
)
TABLE_2 = (
    "Dataset split, Optimizer, Loss function, Base learning rate, Weight decay, Optimizer momentum, Batch size, "
    "Training epochs, Learning rate schedule, Warm-up epochs, Warm-up schedule, Label smoothing, Mixup, Cutmix, TTA"
)


def test_the_readme_holds_the_table_that_the_command_prints() -> None:
    (table,) = GENERATED.findall(README.read_text(encoding="utf-8"))
    assert table == render(), "put the output of `hep2flow recipe table` between the README's markers"


@pytest.mark.parametrize("table", [TABLE_1, TABLE_2])
def test_every_row_of_the_papers_tables_is_there_in_its_order(table: str) -> None:
    names = table.split(", ")
    assert [topic for topic in dict.fromkeys(row.topic for row in ROWS) if topic in names] == names


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.topic}: {row.key}")
def test_a_value_of_the_table_can_be_set_as_it_stands(row: Row) -> None:
    """The one model's value, set for the other: what differs is carried over, what is equal stays."""
    for name, other in ((CONVNEXT, COAT), (COAT, CONVNEXT)):
        value = value_of(load_recipe(other), row.key)
        changed = load_recipe(name, "paper", [f"{row.key}={value}", "optim.lr_scaling=none"])
        assert value_of(changed, row.key) == value


def test_a_line_of_the_table_reads_across_both_models() -> None:
    lines = render().splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert {line.count(" | ") for line in lines} == {len(HEADER) - 1}
    rate = next(line for line in lines if line.startswith("| Base learning rate"))
    assert rate.startswith("| Base learning rate | 4e-6 | 1e-5 | `optim.lr` | `4.0e-06` | `1.0e-05` |")


def defined_in(file: Path) -> set[str]:
    """Classes, functions and constants of a Python file, and methods as Class.method."""
    names: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def test_the_architecture_page_names_files_and_functions_that_exist() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    links = LINK.findall(text)
    assert len(links) == text.count("](../") > 80, "a link's text is FILE or FILE: NAME"
    stale = [
        f"{path}: {name}".removesuffix(": ")
        for label, name, path in links
        if not (ROOT / path).is_file()
        or not path.endswith(label.replace("\\", ""))
        or (name and name not in defined_in(ROOT / path))
    ]
    assert stale == []


def test_the_architecture_page_lists_every_package() -> None:
    (table,) = re.findall(r"\| package .*?\n\|---.*?\n(.*?)\n\n", ARCHITECTURE.read_text(encoding="utf-8"), re.DOTALL)
    listed = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    packages = {path.parent.name for path in (ROOT / "src" / "hep2flow").glob("*/__init__.py")}
    assert listed == packages | {"components", "pipelines"}
