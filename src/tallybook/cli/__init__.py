"""The command line: one file a command."""

import os
import sys
from pkgutil import resolve_name
from typing import Final

import cyclopts
from rich.console import Console

from tallybook import __version__
from tallybook.cli.settings_file import settings_file
from tallybook.errors import OperatorError, Unavailable

_COMMANDS: Final = {
    "serve": "tallybook.cli.serve:server",
    "usage": "tallybook.cli.usage:usage",
    "costs": "tallybook.cli.costs:costs",
    "prices": "tallybook.cli.prices:prices",
    "import": "tallybook.cli.importing:import_",
    "export": "tallybook.cli.export:export",
    "sync": "tallybook.cli.sync:sync",
    "reconcile": "tallybook.cli.reconcile:reconcile",
    "quarantine": "tallybook.cli.quarantine:quarantine",
    "keys": "tallybook.cli.keys:keys",
    "rebuild": "tallybook.cli.rebuild:rebuild",
    "backup": "tallybook.cli.backup:backup",
    "restore": "tallybook.cli.backup:restore",
    "doctor": "tallybook.cli.doctor:doctor",
    "demo": "tallybook.cli.demo:app",
}


def build(*, whole: bool = True) -> cyclopts.App:
    """Return the command line.

    Args:
        whole: load every command, as the list of commands needs it; otherwise each is loaded when it is called, and
            does not wait for what the others need.
    """
    app = cyclopts.App(
        name="tallybook",
        version=__version__,
        help="Records what an AI platform used and what it cost, and answers in the wire format of OpenAI's "
        "organization Usage and Costs APIs.",
        # The file's lines are settings of the server; other commands take from it what they know.
        config=settings_file(allow_unknown=True),
    )
    for name, place in _COMMANDS.items():
        app.command(resolve_name(place) if whole else place, name=name)
    return app


def main() -> None:
    """Run the command the arguments name; end with 1 and one line if the operator has something to set right."""
    try:
        build(whole=sys.argv[1:2] in ([], ["-h"], ["--help"]))()
    except (OperatorError, Unavailable) as error:
        Console(stderr=True, soft_wrap=True).print(f"tallybook: {error}", style="red", markup=False, highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Who read the output, such as `head`, has enough. What is still held must not meet the closed pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
