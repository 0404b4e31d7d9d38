"""Where commands print tables."""

import sys

from rich.console import Console

_WIDTH_ELSEWHERE = 160


def console() -> Console:
    """Return standard output, wide enough not to cut tables where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else _WIDTH_ELSEWHERE, highlight=False)
