"""Label files: CSV as data sets really ship it (CR, LF or CRLF, with or without a byte order mark)."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from hep2flow.cells import Intensity
from hep2flow.errors import Fault
from hep2flow.sources.file_tree import FileTree, UnreadableFileError

_DELIMITERS = {";": "semicolon", ",": "comma", "\t": "tab", "|": "bar"}


class Located(Protocol):
    """Something read from a row; where: file and row."""

    @property
    def where(self) -> str: ...


Item = TypeVar("Item", bound=Located)
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Row:
    """One row of a label file: values by the expected column names; an optional column that is absent is ''."""

    file: str
    number: int
    values: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values[column]

    @property
    def where(self) -> str:
        """File and line number; the header is row 1."""
        return f"{self.file}, row {self.number}"


def read_table(
    tree: FileTree, name: str, delimiter: str, columns: Sequence[str], faults: list[Fault], optional: Sequence[str] = ()
) -> list[Row]:
    """Rows of one label file of the tree; its faults are appended, its good rows returned."""
    if name not in tree:
        faults.append(Fault(name, "label file is missing", f"add it, with the columns {delimiter.join(columns)}"))
        return []
    try:
        data = tree.read(name)
    except UnreadableFileError as error:
        faults.append(Fault(name, f"cannot be read: {error}", "replace it by a good copy"))
        return []
    return parse_table(data, name, delimiter, columns, faults, optional)


def parse_table(
    data: bytes, name: str, delimiter: str, columns: Sequence[str], faults: list[Fault], optional: Sequence[str] = ()
) -> list[Row]:
    """Rows of one label file given as bytes.

    Args:
        columns:  those that must be there, and be filled in each row; case and spacing do not matter
        optional: those read where they are there; any other column is ignored
        faults:   not UTF-8, wrong delimiter, wrong header, wrong number of fields, an empty field
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line_ends = data.count(b"\n", 0, error.start) or data.count(b"\r", 0, error.start)
        faults.append(Fault(f"{name}, row {line_ends + 1}", "is not UTF-8 text", "save it as CSV in UTF-8"))
        return []
    lines: list[str] = re.split("\r\n|\r|\n", text)
    header = _fields(lines[0], delimiter) or []
    while header and not header[-1]:
        header.pop()
    position = {_loose(title): i for i, title in enumerate(header)}
    if any(_loose(column) not in position for column in columns):
        faults.append(Fault(f"{name}, row 1", *_wrong_header(lines[0], delimiter, columns)))
        return []
    if repeated := [title for title, n in Counter(map(_loose, filter(None, header))).items() if n > 1]:
        faults.append(Fault(f"{name}, row 1", f"column {repeated[0]!r} is there twice", "keep one of them"))
        return []
    rows, faults_before = [], len(faults)
    for number, line in enumerate(lines[1:], start=2):
        fields = _fields(line, delimiter)
        if fields is not None and not any(fields):
            continue
        where = f"{name}, row {number}"
        if fields is None:
            faults.append(Fault(where, "has an unclosed quotation mark", "close or remove it"))
        elif len(fields) < len(header) or any(fields[len(header) :]):
            faults.append(Fault(where, f"has {len(fields)} fields, the header has {len(header)}", "correct the row"))
        else:
            values = {c: fields[position[_loose(c)]] if _loose(c) in position else "" for c in (*columns, *optional)}
            if empty := [column for column in columns if not values[column]]:
                faults.append(Fault(where, f"column {empty[0]!r} is empty", "fill it in, or remove the row"))
            else:
                rows.append(Row(name, number, values))
    if not rows and len(faults) == faults_before:
        faults.append(Fault(name, "has a header and no rows", "replace it by a good copy"))
    return rows


def index_rows(rows: Iterable[Item], key: Callable[[Item], Key | None], faults: list[Fault]) -> dict[Key, Item]:
    """Rows by key; a key that is there twice is a fault, a row whose key is None (its fault is told) is left out."""
    index: dict[Key, Item] = {}
    for row in rows:
        k = key(row)
        if k is None:
            continue
        if k in index:
            faults.append(Fault(row.where, f"duplicate, the same ID as {index[k].where}", "remove one of the two rows"))
        else:
            index[k] = row
    return index


def whole_number(row: Row, column: str, faults: list[Fault]) -> int | None:
    """A column's value as a whole number from 0, or None and a fault."""
    if re.fullmatch(r"[0-9]{1,9}", row[column]):
        return int(row[column])
    faults.append(Fault(row.where, f"{column} {row[column]!r} is not a whole number", "correct it"))
    return None


class Vocabulary:
    """The names a column may hold; remembers which spellings it had to read as which name.

    spellings: other names for the same things, told in the notes
    usual:     how the data set writes its names, not worth a note
    """

    def __init__(self, kind: str, names: Iterable[str], spellings: dict[str, str], usual: Iterable[str] = ()) -> None:
        self.kind = kind
        self.names = tuple(names)
        self._usual = {*self.names, *usual}
        self._read_as = {_letters(name): name for name in self.names}
        self._read_as |= {_letters(spelling): name for spelling, name in spellings.items()}
        self._renamed: Counter[tuple[str, str]] = Counter()

    def read(self, row: Row, column: str, faults: list[Fault]) -> str | None:
        """The canonical name of a column's value, or None and a fault that lists the allowed names."""
        name = self._read_as.get(_letters(row[column]))
        if name is None:
            allowed = ", ".join(self.names)
            faults.append(Fault(row.where, f"unknown {self.kind} {row[column]!r}", f"use one of: {allowed}"))
        elif row[column] not in self._usual:
            self._renamed[row[column], name] += 1
        return name

    def notes(self) -> list[str]:
        """One remark per spelling that was read as another name."""
        return [
            f"{self.kind} spelled {spelling!r} read as {name!r} ({count} rows)"
            for (spelling, name), count in sorted(self._renamed.items())
        ]


def read_intensity(row: Row, column: str, faults: list[Fault]) -> Intensity | None:
    """positive, intermediate, or None where the column is empty or (with a fault) says something else."""
    value = row[column].lower()
    if value == "positive":
        return "positive"
    if value == "intermediate":
        return "intermediate"
    if value:
        faults.append(Fault(row.where, f"unknown intensity {row[column]!r}", "use positive or intermediate"))
    return None


def _fields(line: str, delimiter: str) -> list[str] | None:
    if '"' not in line:
        return [field.strip() for field in line.split(delimiter)]
    try:
        return [field.strip() for field in next(csv.reader([line], delimiter=delimiter, strict=True))]
    except csv.Error:
        return None


def _wrong_header(line: str, delimiter: str, columns: Sequence[str]) -> tuple[str, str]:
    wanted = {_loose(column) for column in columns}
    expected = delimiter.join(columns)
    for other, word in _DELIMITERS.items():
        if other != delimiter and wanted <= {_loose(field) for field in line.split(other)}:
            return f"is {word}-separated", f"separate it by {_DELIMITERS[delimiter]}s: {expected}"
    return f"header is {line[:120]!r}", f"expected the columns {expected}"


def _loose(title: str) -> str:
    return re.sub(r"[\s_]+", "_", title.strip().lower())


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())
