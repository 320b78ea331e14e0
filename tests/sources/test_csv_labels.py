"""Label files as data sets really ship them."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hep2flow.errors import Fault
from hep2flow.sources.csv_labels import LabelReader, Row, Vocabulary
from hep2flow.sources.file_tree import FileTree
from hep2flow.sources.listing import Labels

COLUMNS = ("ID", "pattern")


def parse(data: bytes | str, delimiter: str = ";", optional: tuple[str, ...] = ()) -> tuple[list[Row], list[Fault]]:
    encoded = data.encode() if isinstance(data, str) else data
    reader = LabelReader(FileTree(["gt.csv"], lambda _: encoded), Labels(), delimiter)
    return reader.rows("gt.csv", COLUMNS, optional), reader.labels.faults


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends_and_byte_order_marks_do_not_matter(end: str, mark: str, last: bool) -> None:
    text = mark + end.join(["ID;pattern", "1;golgi", "", "2;numem"]) + (end if last else "")
    rows, faults = parse(text)
    assert faults == []
    assert [(row["ID"], row["pattern"], row.where) for row in rows] == [
        ("1", "golgi", "gt.csv, row 2"),
        ("2", "numem", "gt.csv, row 4"),
    ]


@pytest.mark.parametrize("header", ["id;PATTERN", " ID ; Pattern ", "extra;pattern;ID", "ID;pattern;;"])
def test_a_header_may_vary_in_case_spacing_and_order(header: str) -> None:
    row = {"extra": "x", "id": "1", "pattern": "golgi", "": ""}
    rows, faults = parse(f"{header}\n{';'.join(row[title.strip().lower()] for title in header.split(';'))}\n")
    assert faults == []
    assert [(r["ID"], r["pattern"]) for r in rows] == [("1", "golgi")]


def test_an_absent_optional_column_is_empty() -> None:
    rows, faults = parse("ID;pattern\n1;golgi\n", optional=("Intensity",))
    assert (rows[0]["Intensity"], faults) == ("", [])


@pytest.mark.parametrize(
    ("data", "where", "what", "remedy"),
    [
        ("ID,pattern\n1,golgi\n", "row 1", "is comma-separated", "ID;pattern"),
        ("ID\tpattern\n1\tgolgi\n", "row 1", "is tab-separated", "semicolons"),
        ("Number;Class\n1;golgi\n", "row 1", "'Number;Class'", "ID;pattern"),
        ("1;golgi\n2;golgi\n", "row 1", "'1;golgi'", "ID;pattern"),
        ("", "row 1", "header is ''", "ID;pattern"),
        ("ID;pattern;pattern\n1;golgi;golgi\n", "row 1", "'pattern' is there twice", "keep one"),
        ("ID;pattern\n", "gt.csv", "no rows", "good copy"),
        ("ID;pattern\n1;golgi\n2\n", "row 3", "1 fields, the header has 2", "correct"),
        ("ID;pattern\n1;golgi;x\n", "row 2", "3 fields, the header has 2", "correct"),
        ("ID;pattern\n1; \n", "row 2", "'pattern' is empty", "fill"),
        ('ID;pattern\n1;"golgi\n', "row 2", "unclosed quotation mark", "close"),
        (b"ID;pattern\n1;golgi\n2;caf\xe9\n", "row 3", "not UTF-8", "UTF-8"),
        (b"ID;pattern\r1;caf\xe9\r", "row 2", "not UTF-8", "UTF-8"),
        ("ID;pattern\n1;golgi\n".encode("utf-16"), "row 1", "not UTF-8", "UTF-8"),
    ],
)
def test_what_is_wrong_is_reported_with_its_row_and_its_fix(
    data: bytes | str, where: str, what: str, remedy: str
) -> None:
    _, (fault,) = parse(data)
    assert where in fault.where
    assert what in fault.what
    assert remedy in fault.remedy


def test_good_rows_survive_bad_ones() -> None:
    rows, faults = parse("ID;pattern\n1;golgi\n2\n3;numem\n")
    assert [row["ID"] for row in rows] == ["1", "3"]
    assert len(faults) == 1


def test_a_duplicate_names_both_rows() -> None:
    rows, _ = parse("ID;pattern\n1;golgi\n2;golgi\n1;numem\n")
    reader = LabelReader(FileTree([], lambda _: b""), Labels(), ";")
    index = reader.index(rows, lambda row: row["ID"])
    assert {key: row.number for key, row in index.items()} == {"1": 2, "2": 3}
    (fault,) = reader.labels.faults
    assert fault.where == "gt.csv, row 4"
    assert "row 2" in fault.what


def test_spellings_are_read_noted_and_never_guessed() -> None:
    names = Vocabulary(["centromere", "fine_speckled"], {"centromeric": "centromere"}, usual=["Centromere"])
    faults: list[Fault] = []
    spelled = ["centromere", "Centromere", "Centromeric", "fine-speckled", "FINE SPECKLED", "centro"]
    read = [names.read(Row("gt.csv", 9, {"pattern": text}), "pattern", faults) for text in spelled]
    assert read == ["centromere"] * 3 + ["fine_speckled"] * 2 + [None]
    assert [fault.remedy for fault in faults] == ["use one of: centromere, fine_speckled"]
    assert len(names.notes()) == 3
    assert "pattern spelled 'Centromeric' read as 'centromere' (1 rows)" in names.notes()


VALUES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=6)


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=8), st.sampled_from(";,\t"), st.booleans())
def test_whatever_the_csv_module_writes_is_read_back(
    records: list[tuple[str, str]], delimiter: str, quote_all: bool
) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL).writerows(
        [COLUMNS, *records]
    )
    rows, faults = parse(buffer.getvalue(), delimiter)
    assert faults == []
    assert [(row["ID"], row["pattern"]) for row in rows] == records


@given(st.binary(max_size=200))
def test_any_bytes_give_rows_or_faults(data: bytes) -> None:
    rows, faults = parse(data)
    assert rows or faults
