"""ICPR 2012 / MIVIA HEp-2: recognises its two forms, the contest's and Main_Dataset's, and reads the one that is there."""

import re
from typing import Literal, NamedTuple

from hep2flow.errors import UserError
from hep2flow.sources.csv_labels import Vocabulary
from hep2flow.sources.file_tree import FileTree
from hep2flow.sources.icpr2012_contest import ContestReader
from hep2flow.sources.icpr2012_main_dataset import MainDatasetReader
from hep2flow.sources.listing import Labels
from hep2flow.sources.published_counts import PATTERNS

SYNTHETIC_MARKER = "SYNTHETIC.txt"
LOOKED_FOR = "training/gt_training.csv or test/gt_test.csv (contest), or Cells/Cell_Images (Main_Dataset)"
_SPELLINGS = {"cytoplasmic": "cytoplasmatic", "centromeric": "centromere"}


class Root(NamedTuple):
    """Where the data set starts in the tree, with a trailing slash or empty, and its form."""

    prefix: str
    form: Literal["contest", "main"]


def find_root(tree: FileTree) -> Root | None:
    """The data set's root in the tree: the tree itself or any folder in it; None where there is none.

    Raises:
        UserError: There are several.
    """
    roots: set[Root] = set()
    for name in tree.names:
        if found := re.fullmatch(r"(|.*/)(training|test)/(gt_)?\2\.csv", name):
            roots.add(Root(found[1], "contest"))
        elif found := re.fullmatch(r"(|.*/)Cells/Cell_Images/.*", name):
            roots.add(Root(found[1], "main"))
    if len(roots) > 1:
        places = ", ".join(sorted(f"{root.prefix or './'} ({root.form} form)" for root in roots))
        raise UserError(f"several ICPR 2012 data sets in one place: {places}; give the folder of one of them")
    return next(iter(roots), None)


def read_labels(tree: FileTree, root: Root) -> Labels:
    """Every labelled cell of the data set."""
    labels = Labels(synthetic=f"{root.prefix}{SYNTHETIC_MARKER}" in tree)
    form = ContestReader if root.form == "contest" else MainDatasetReader
    reader = form(tree, labels, ";", root.prefix, Vocabulary(PATTERNS, _SPELLINGS))
    cells = reader.cells_csv()
    reader.read(cells)
    labels.notes += reader.patterns.notes()
    if cells is None:
        labels.notes.append("no cells.csv in this source" + ("" if root.form == "main" else ": specimens are unknown"))
    return labels
