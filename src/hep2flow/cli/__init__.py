"""The command line: a file per group of commands, each command a few lines that call a stage or the store."""

from hep2flow.cli.main import main

__all__ = ["main"]
