"""``tallybook serve``."""

from typing import Annotated

import cyclopts
from cyclopts import Parameter

from tallybook import logs
from tallybook.cli.settings_file import settings_file
from tallybook.config import Settings
from tallybook.server import serve as run

server = cyclopts.App(
    name="serve",
    config=[cyclopts.config.Env("TALLYBOOK_", command=False), settings_file(allow_unknown=False)],
)


@server.default
def serve(settings: Annotated[Settings, Parameter(name="*")] = Settings()) -> None:  # noqa: B008  frozen
    """Run the server.

    With a new data directory it makes the store and prints one admin key, once. TALLYBOOK_ADMIN_KEY sets it instead.
    Every setting is also an environment variable (TALLYBOOK_PORT) and a line of tallybook.toml (port = 8080).

    Example: tallybook serve --data ./usage --port 8080
    """
    logs.configure(settings.log_level, settings.log_format)
    run(settings, _announce)


def _announce(url: str, first_key: str | None) -> None:
    if first_key:
        print(f"Admin key (shown once): {first_key}")
    print(f"Tallybook listens at {url}", flush=True)
