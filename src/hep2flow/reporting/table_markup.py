"""A table of the report, which the page's template and Markdown show, and entries for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One field of a table: its text; the number by which the column sorts, None for words; the share of a bar behind it."""

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
        """The table in Markdown, its columns aligned, so that a terminal shows it as well."""
        lines = [self.header, *([entry.text for entry in row] for row in self.rows)]
        escaped = [[escape_markdown(text) for text in line] for line in lines]
        widths = [max(3, *(len(line[column]) for line in escaped)) for column in range(len(self.header))]
        escaped.insert(1, ["-" * width for width in widths])
        return "\n".join("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in escaped)


def escape_markdown(text: str) -> str:
    """Data inside Markdown: no cell borders, no HTML, no line breaks."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def table_row(*fields: str | Entry) -> list[Entry]:
    """A row of entries, in which plain texts are words."""
    return [Entry(entry) if isinstance(entry, str) else entry for entry in fields]


def number(value: float, text: str | None = None) -> Entry:
    """A number, with thousands separated where no text is given."""
    return Entry(f"{value:,}" if text is None else text, float(value))


def percentage(share: float | None, *, bar: bool = False) -> Entry:
    """A share as percent, with one decimal; the column's heading names the unit."""
    return Entry("–") if share is None else Entry(f"{100 * share:.1f}", share, share if bar else None)


def facts_table(caption: str, facts: Mapping[str, Any]) -> Table:
    """Nested facts as a table of two columns."""
    return Table(caption, ["", "Value"], [table_row(*fact) for fact in flatten(facts).items()], sortable=False)


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Leaves of nested mappings as text, by their dotted path."""
    leaves: dict[str, str] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = display_value(value)
    return leaves


def display_value(value: Any) -> str:
    """How a value is shown: a dash for None, NaN and what is empty."""
    if value is None or value != value or value == {}:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(display_value(item) for item in value) or "–"
    return str(value)
