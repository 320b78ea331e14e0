"""A table of a report, and its two forms: rows for the page, Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One field of a table.

    text:  what is shown
    value: the number behind it, by which the column sorts; None for words
    bar:   share in [0, 1] drawn as a bar behind the number; None for no bar
    """

    text: str
    value: float | None = None
    bar: float | None = None


@dataclass(frozen=True)
class Table:
    """A table of the page: the first field of each row is the row's heading."""

    caption: str
    header: list[str]
    rows: list[list[Entry]] = field(default_factory=list)
    sortable: bool = True

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers, dashes aside."""
        entries = [row[column] for row in self.rows if row[column].text != "–"]
        return bool(entries) and all(entry.value is not None for entry in entries)

    def markdown(self) -> str:
        """The table in Markdown, its columns aligned: a terminal shows it as well."""
        lines = [self.header, *([entry.text for entry in row] for row in self.rows)]
        escaped = [[escape_markdown(text) for text in line] for line in lines]
        widths = [max(3, *(len(line[column]) for line in escaped)) for column in range(len(self.header))]
        escaped.insert(1, ["-" * width for width in widths])
        return "\n".join("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in escaped)


def escape_markdown(text: str) -> str:
    """Data inside Markdown: no cell borders, no HTML, no line breaks."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def facts(caption: str, nested: Mapping[str, Any]) -> Table:
    """A nested mapping as a table of two columns."""
    return Table(caption, ["", "Value"], [[Entry(k), Entry(v)] for k, v in flatten(nested).items()], sortable=False)


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Leaves of nested mappings by their dotted path."""
    leaves: dict[str, str] = {}
    for key, value in nested.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            leaves |= flatten(value, f"{path}.")
        else:
            leaves[path] = text_of(value)
    return leaves


def text_of(value: Any) -> str:
    """How a value is shown: a dash for nothing and for NaN."""
    if value is None or value != value:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(text_of(item) for item in value) or "–"
    return str(value) if value != {} else "–"
