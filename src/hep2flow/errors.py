"""Errors that the user can fix: never shown as a traceback, always exit code 2."""

from collections.abc import Sequence
from dataclasses import dataclass


class UserError(Exception):
    """Something the user can fix.

    The message is one line: what is wrong, where (file, row, key), and what to do about it.
    """


class RunFailedError(Exception):
    """A run did not succeed, for no reason that the user can fix; the message says where its log is."""


@dataclass(frozen=True, order=True)
class Fault:
    """One thing wrong with a data set."""

    where: str  # file, and row where there is one, for example `training/gt_training.csv, row 17`
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


class DataFaults(UserError):
    """Every fault found in one data set, reported together."""

    def __init__(self, source: str, faults: Sequence[Fault]) -> None:
        self.source = source
        self.faults = sorted(faults)
        count = f"{len(self.faults)} fault{'' if len(self.faults) == 1 else 's'}"
        super().__init__("\n".join([f"{source}: {count}, nothing was written", *(f"  {f}" for f in self.faults)]))


class StoreError(UserError):
    """The object store cannot be reached, refuses, or lacks what was requested."""
