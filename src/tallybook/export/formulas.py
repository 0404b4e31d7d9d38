"""Text in CSV that a spreadsheet would take for a formula, kept from being one without being lost.

Ids come from strangers, and bills are opened in spreadsheets. As OWASP recommends, such a text gets a single quote
before it, which spreadsheets take for "this is text". So does one that has such quotes already: taking one off again
gives back what was there, whatever it was. Numbers are no text; they stay as they are.
"""

import re
from typing import Final

FORMULA: Final = "^'*[=+\\-@\\t\\r\\n\uff1d\uff0b\uff0d\uff20]"
"""What begins like a formula: with one of these signs, also as wide as Chinese letters, or with white space that
spreadsheets skip; or with such a quote and then so. In the grammar of Python and of RE2."""

_FORMULA: Final = re.compile(FORMULA)


def defuse(text: str) -> str:
    """Return text as it stands in CSV."""
    return f"'{text}" if _FORMULA.match(text) else text


def restore(cell: str) -> str:
    """Return what `defuse` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
