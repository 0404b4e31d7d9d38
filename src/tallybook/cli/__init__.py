"""The command line: one file a command."""

import os
import sys
from typing import Final

import cyclopts
from rich.console import Console

from tallybook import __version__
from tallybook.cli.demo import demo
from tallybook.cli.doctor import doctor
from tallybook.cli.importing import import_
from tallybook.cli.keys import keys
from tallybook.cli.quarantine import quarantine
from tallybook.cli.rebuild import rebuild
from tallybook.cli.serve import serve
from tallybook.cli.usage import usage
from tallybook.config import CONFIG_VARIABLE
from tallybook.errors import OperatorError

_ENVIRONMENT: Final = cyclopts.config.Env("TALLYBOOK_", command=False)


def _file(*, allow_unknown: bool) -> cyclopts.config.Toml:
    path = os.environ.get(CONFIG_VARIABLE)
    return cyclopts.config.Toml(
        path or "tallybook.toml",
        must_exist=path is not None,
        search_parents=False,
        use_commands_as_keys=False,
        allow_unknown=allow_unknown,
    )


def build() -> cyclopts.App:
    """Return the command line."""
    app = cyclopts.App(
        name="tallybook",
        version=__version__,
        help="Records what an AI platform used, and answers in the wire format of OpenAI's organization Usage API.",
        help_format="plaintext",
        # The file's lines are settings of the server; other commands take from it what they know.
        config=[_ENVIRONMENT, _file(allow_unknown=True)],
    )
    app.command(cyclopts.App(name="serve", config=[_ENVIRONMENT, _file(allow_unknown=False)], help_format="plaintext"))
    app["serve"].default(serve)
    app.command(keys)
    app.command(import_, name="import")
    app.command(usage)
    app.command(quarantine)
    app.command(rebuild)
    app.command(doctor)
    app.command(demo)
    return app


def main() -> None:
    """Run the command the arguments name; end with 1 and one line if the operator has something to set right."""
    try:
        build()()
    except OperatorError as error:
        Console(stderr=True, soft_wrap=True).print(f"tallybook: {error}", style="red", markup=False, highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
