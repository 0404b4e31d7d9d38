"""``tallybook.toml``: the settings that are neither flags nor in the environment."""

import os

from cyclopts.config import Toml

from tallybook.config import CONFIG_VARIABLE


def settings_file(*, allow_unknown: bool) -> Toml:
    """Return the file of the working directory, or the one TALLYBOOK_CONFIG names, which must exist.

    Args:
        allow_unknown: False refuses a line that is no setting of the command.
    """
    path = os.environ.get(CONFIG_VARIABLE)
    return Toml(
        path or "tallybook.toml",
        must_exist=path is not None,
        search_parents=False,
        use_commands_as_keys=False,
        allow_unknown=allow_unknown,
    )
