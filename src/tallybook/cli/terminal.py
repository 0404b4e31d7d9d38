"""Where commands print tables, and how values of strangers are printed without doing harm."""

import sys
import unicodedata
from typing import Final

from rich.console import Console
from rich.text import Text

_WIDTH_ELSEWHERE: Final = 160


def console() -> Console:
    """Return standard output, wide enough not to cut tables where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else _WIDTH_ELSEWHERE, highlight=False)


def plain(text: str) -> str:
    """Return text without characters that steer a terminal; line ends stay."""
    return "".join(
        character if character == "\n" or unicodedata.category(character)[0] != "C" else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def cell(value: object) -> Text:
    """Return a value as a table shows it: as it is, whatever markup it may look like; a dash for none."""
    return Text("-" if value is None else plain(str(value)))


def size(count: float) -> str:
    """Return a number of bytes in words."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"
