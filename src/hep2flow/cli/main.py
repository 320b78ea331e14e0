"""The program: its commands, its global options and its exit codes.

Heavy packages are imported by the command that needs them, so that ``--help`` answers at once.
Exit codes: 0 done; 2 an error that the user can fix; 1 a defect of hep2flow, or a failed run; 130 interrupted; 143 ended
by SIGTERM.
"""

import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated

import typer

from hep2flow import __version__
from hep2flow.cli.input_commands import data, recipe, weights
from hep2flow.cli.kubeflow_commands import compile, submit
from hep2flow.cli.local_runs import ablate, run, sweep
from hep2flow.cli.machine_commands import doctor, storage
from hep2flow.cli.runs_commands import export, predict, pull, runs
from hep2flow.cli.stage_commands import evaluate, ingest, mask, report, split, train, tune
from hep2flow.errors import RunFailedError, UserError
from hep2flow.process import raise_on_sigterm, skip_last_collection

INTERRUPTED = 130

# In the order in which --help lists them.
STAGES: list[Callable[..., None]] = [ingest, mask, split, train, tune, evaluate, report]
COMMANDS: list[Callable[..., None]] = [run, sweep, submit, ablate, *STAGES, predict, export, pull, compile, doctor]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="HEp-2 cell classification as a workflow.",
)
for command in COMMANDS:
    app.command()(command)
for group in (data, recipe, weights, runs, storage):
    app.add_typer(group)


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
    """Run the command line: an expected error is one message on standard error, without a traceback."""
    skip_last_collection()
    try:
        with raise_on_sigterm():
            code = app(standalone_mode=False)
    except (UserError, RunFailedError) as error:
        if os.environ.get("HEP2FLOW_DEBUG"):
            traceback.print_exc()
        print(f"hep2flow: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)
    except typer.TyperException as error:  # an option or argument that is missing or wrong
        if message := error.format_message():  # none where the help was shown instead
            print(f"hep2flow: {message.rstrip('.')}; see --help", file=sys.stderr)
        sys.exit(error.exit_code)
    if code == INTERRUPTED:
        print("hep2flow: interrupted", file=sys.stderr)
    sys.exit(code)
