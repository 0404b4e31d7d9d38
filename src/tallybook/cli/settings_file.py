"""``tallybook.toml``: the settings that are neither flags nor in the environment."""

import os
from pathlib import Path

from cyclopts.config import Toml

from tallybook.config import CONFIG_VARIABLE
from tallybook.errors import CommandFailed


def settings_file(*, allow_unknown: bool) -> Toml:
    """Return the file of the working directory, or the one TALLYBOOK_CONFIG names.

    Args:
        allow_unknown: False refuses a line that is no setting of the command.

    Raises:
        CommandFailed: the file named does not exist.
    """
    path = os.environ.get(CONFIG_VARIABLE)
    if path is not None and not Path(path).is_file():
        raise CommandFailed(f"{CONFIG_VARIABLE} names {path}, which is no file")
    return Toml(
        path or "tallybook.toml",
        must_exist=path is not None,
        search_parents=False,
        use_commands_as_keys=False,
        allow_unknown=allow_unknown,
    )
