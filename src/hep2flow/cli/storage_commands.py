"""``hep2flow storage``: the embedded object store on this machine."""

import json

from typer import Typer

from hep2flow.cli.options import JsonOption

app = Typer(name="storage", no_args_is_help=True, help="The embedded object store on this machine.")


@app.command()
def up() -> None:
    """Start the embedded store, or find it running."""
    from hep2flow.store import embedded_server

    embedded_server.ensure_running()
    status()


@app.command()
def down() -> None:
    """Stop the embedded store; its data stays."""
    from hep2flow.store import embedded_server

    print("stopped" if embedded_server.down() else "was not running")


@app.command()
def status(as_json: JsonOption = False) -> None:
    """Whether the embedded store runs, where, and how much it holds."""
    from hep2flow.store import embedded_server

    facts = embedded_server.status()
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        print(f"{name:<10} {value}")


@app.command()
def path() -> None:
    """The folder the embedded store keeps its data in."""
    from hep2flow.store import embedded_server

    print(embedded_server.status()["data"])
