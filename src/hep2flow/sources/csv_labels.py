"""Label files: CSV as data sets really ship it (CR, LF or CRLF, with or without a byte order mark)."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from hep2flow.cells import Intensity
from hep2flow.errors import Fault
from hep2flow.sources.file_tree import FileTree, UnreadableFileError
from hep2flow.sources.listing import Labels

_DELIMITERS = {";": "semicolon", ",": "comma", "\t": "tab", "|": "bar"}
_INTENSITIES: dict[str, Intensity] = {"positive": "positive", "intermediate": "intermediate"}


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
        """File and row; the header is row 1."""
        return f"{self.file}, row {self.number}"


Item = TypeVar("Item", bound=Row)
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class LabelReader:
    """Reads the label files of a tree, in which the data set's form prescribes a delimiter; faults go to ``labels``."""

    tree: FileTree
    labels: Labels
    delimiter: str

    def rows(self, name: str, columns: Sequence[str], optional: Sequence[str] = ()) -> list[Row]:
        """Good rows of one label file of the tree.

        Faults are a missing file, and its encoding, delimiter, header, number of fields and empty fields if they are wrong.

        Args:
            name: Of the file.
            columns: Those that must exist, with a value in each row; case and spacing of the header do not matter.
            optional: Those read where they exist; any other column is ignored.
        """
        fault, delimiter = self.labels.fault, self.delimiter
        if name not in self.tree:
            fault(name, "label file is missing", f"add it, with the columns {delimiter.join(columns)}")
            return []
        try:
            text = self.tree.read(name).decode("utf-8-sig")
        except UnreadableFileError as error:
            fault(name, f"cannot be read: {error}", "replace it by a good copy")
            return []
        except UnicodeDecodeError as error:
            line_ends = error.object.count(b"\n", 0, error.start) or error.object.count(b"\r", 0, error.start)
            fault(f"{name}, row {line_ends + 1}", "is not UTF-8 text", "save it as CSV in UTF-8")
            return []
        # Old Macintosh programs end lines in CR alone, as some copies of ICPR 2012's label files do.
        first, *lines = re.split("\r\n|\r|\n", text)
        if (titles := self._titles(first, name, columns)) is None:
            return []
        position = {title: i for i, title in enumerate(titles)}
        indices = {column: position.get(_normalized_title(column)) for column in (*columns, *optional)}
        rows, faults_before = [], len(self.labels.faults)
        for number, line in enumerate(lines, start=2):
            fields = _split_line(line, delimiter)
            if fields is not None and not any(fields):
                continue
            where = f"{name}, row {number}"
            if fields is None:
                fault(where, "has an unclosed quotation mark", "close or remove it")
            elif len(fields) < len(titles) or any(fields[len(titles) :]):
                fault(where, f"has {len(fields)} fields, the header has {len(titles)}", "correct the row")
            else:
                values = {column: "" if index is None else fields[index] for column, index in indices.items()}
                if empty := [column for column in columns if not values[column]]:
                    fault(where, f"column {empty[0]!r} is empty", "fill it in, or remove the row")
                else:
                    rows.append(Row(name, number, values))
        if not rows and len(self.labels.faults) == faults_before:
            fault(name, "has a header and no rows", "replace it by a good copy")
        return rows

    def _titles(self, line: str, name: str, columns: Sequence[str]) -> list[str] | None:
        """Normalized titles of the columns in a header; None and a fault where one is missing or repeated."""
        fault, delimiter = self.labels.fault, self.delimiter
        titles = [_normalized_title(title) for title in _split_line(line, delimiter) or []]
        while titles and not titles[-1]:  # spreadsheets leave empty columns at the end
            titles.pop()
        required = {_normalized_title(column) for column in columns}
        if not required <= {*titles}:
            what, remedy = f"header is {line[:120]!r}", f"expected the columns {delimiter.join(columns)}"
            for other, word in _DELIMITERS.items():
                if other != delimiter and required <= {_normalized_title(field) for field in line.split(other)}:
                    what = f"is {word}-separated"
                    remedy = f"separate it by {_DELIMITERS[delimiter]}s: {delimiter.join(columns)}"
                    break
            fault(f"{name}, row 1", what, remedy)
            return None
        if repeated := [title for title, n in Counter(filter(None, titles)).items() if n > 1]:
            fault(f"{name}, row 1", f"column {repeated[0]!r} is there twice", "keep one of them")
            return None
        return titles

    def index(self, rows: Iterable[Item], key: Callable[[Item], Key | None]) -> dict[Key, Item]:
        """Rows by key; a repeated key is a fault, a row whose key is None (already a fault) is left out."""
        index: dict[Key, Item] = {}
        for row in rows:
            if (value := key(row)) is not None and (first := index.setdefault(value, row)) is not row:
                self.labels.fault(row.where, f"duplicate, the same ID as {first.where}", "remove one of the two rows")
        return index

    def numbered_rows(self, name: str, columns: Sequence[str], optional: Sequence[str] = ()) -> dict[int, Row]:
        """Good rows of :meth:`rows` by the whole number in the first of the columns."""
        return self.index(self.rows(name, columns, optional), lambda row: self.number(row, columns[0]))

    def number(self, row: Row, column: str) -> int | None:
        """A column's value as an integer from 0, or None and a fault."""
        if re.fullmatch(r"[0-9]{1,9}", row[column]):
            return int(row[column])
        self.labels.fault(row.where, f"{column} {row[column]!r} is not a whole number", "correct it")
        return None

    def intensity(self, row: Row, column: str) -> Intensity | None:
        """positive, intermediate, or None where the column is empty or (with a fault) has another value."""
        intensity = _INTENSITIES.get(row[column].lower())
        if row[column] and intensity is None:
            self.labels.fault(row.where, f"unknown intensity {row[column]!r}", "use positive or intermediate")
        return intensity

    def number_files(self, form: re.Pattern[str], kind: str, folder: str = "") -> dict[int, str]:
        """Number -> file, for the files below ``folder`` whose name has the form; a repeated number is a fault."""
        files: dict[int, str] = {}
        for name in self.tree.names:
            if not name.startswith(folder) or (found := form.fullmatch(name, len(folder))) is None:
                continue
            if (first := files.setdefault(int(found[1]), name)) != name:
                self.labels.fault(name, f"the same {kind} as {first}", "remove one of the two")
        return files


def _split_line(line: str, delimiter: str) -> list[str] | None:
    """Fields of a line; None where a quotation mark is not closed."""
    if '"' not in line:  # millions of rows have none, and the csv module is slower
        return [field.strip() for field in line.split(delimiter)]
    try:
        return [field.strip() for field in next(csv.reader([line], delimiter=delimiter, strict=True))]
    except csv.Error:
        return None


def _normalized_title(title: str) -> str:
    return re.sub(r"[\s_]+", "_", title.strip().lower())


class Vocabulary:
    """The names of patterns that a column may hold; counts the other spellings that it read as one of them.

    Args:
        names: The canonical ones.
        spellings: Other names for the same things, each worth a note.
        usual: How the data set itself writes its names, not worth a note.
    """

    def __init__(self, names: Iterable[str], spellings: dict[str, str], usual: Iterable[str] = ()) -> None:
        self.names = tuple(names)
        self._usual = {*self.names, *usual}
        spelled = [(name, name) for name in self.names] + list(spellings.items())
        self._canonical = {_letters_and_digits(spelling): name for spelling, name in spelled}
        self._renamed: Counter[tuple[str, str]] = Counter()

    def read(self, row: Row, column: str, faults: list[Fault]) -> str | None:
        """The canonical name of a column's value, or None and a fault that lists the allowed names."""
        name = self._canonical.get(_letters_and_digits(row[column]))
        if name is None:
            allowed = ", ".join(self.names)
            faults.append(Fault(row.where, f"unknown pattern {row[column]!r}", f"use one of: {allowed}"))
        elif row[column] not in self._usual:
            self._renamed[row[column], name] += 1
        return name

    def notes(self) -> list[str]:
        """One note per spelling that was read as another name."""
        renamed = sorted(self._renamed.items())
        return [f"pattern spelled {text!r} read as {name!r} ({count} rows)" for (text, name), count in renamed]


def _letters_and_digits(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())
