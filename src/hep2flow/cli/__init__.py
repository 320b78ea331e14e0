"""The command line: a file for each kind of command, each command a few lines that call a stage or the store."""

from hep2flow.cli.main import main

__all__ = ["main"]
