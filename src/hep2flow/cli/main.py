"""The program: its commands, its options for all of them, and how it ends.

Heavy packages are imported by the command that needs them, so that ``--help`` answers at once.
Exit codes: 0 done; 2 the user can mend it; 1 a defect of ours; 130 interrupted; 143 asked to end by SIGTERM.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from hep2flow import __version__
from hep2flow.cli import (
    ablate,
    compile,
    data,
    doctor,
    export,
    predict,
    pull,
    recipes,
    run,
    runs,
    stages,
    storage,
    submit,
    sweep,
    weights,
)
from hep2flow.errors import RunFailedError, UserError
from hep2flow.process import ended_by_sigterm, skip_last_collection

INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="HEp-2 cell classification as a workflow.",
)
for commands in (run, sweep, submit, ablate, stages, predict, export, pull, compile, doctor):
    app.add_typer(commands.app)
for name, group in (("data", data), ("recipe", recipes), ("weights", weights), ("runs", runs), ("storage", storage)):
    app.add_typer(group.app, name=name)


@app.callback(invoke_without_command=True)
def _main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    if version:
        print(f"hep2flow {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit
    if debug:
        os.environ["HEP2FLOW_DEBUG"] = "1"


def main() -> None:
    """Entry point: an error a user can mend is one message and exit code 2, never a traceback; a failed run one and 1."""
    skip_last_collection()
    try:
        with ended_by_sigterm():
            code = app(standalone_mode=False)
    except UserError as error:
        if os.environ.get("HEP2FLOW_DEBUG"):
            traceback.print_exc()
        print(f"hep2flow: {error}", file=sys.stderr)
        sys.exit(2)
    except (
        RunFailedError
    ) as error:  # its own story is told elsewhere, and a traceback of this process says nothing of it
        if os.environ.get("HEP2FLOW_DEBUG"):
            traceback.print_exc()
        print(f"hep2flow: {error}", file=sys.stderr)
        sys.exit(1)
    except typer.TyperException as error:  # an option or argument that is missing or wrong
        if message := error.format_message():  # none where the help was shown instead
            print(f"hep2flow: {message.rstrip('.')}; see --help", file=sys.stderr)
        sys.exit(error.exit_code)
    if code == INTERRUPTED:
        print("hep2flow: interrupted", file=sys.stderr)
    sys.exit(code)
