"""The table of senders in the documentation, written from the one that is run."""

from pathlib import Path

from tests.senders.table import SENDERS

PAGE = Path(__file__).parents[2] / "docs" / "sources" / "README.md"
BEGIN, END = "<!-- senders: python -m tests.senders --docs -->\n", "<!-- /senders -->\n"


def rendered() -> str:
    """The table in Markdown."""
    lines = ["| sender | versions | counted | set, or switch off |", "| --- | --- | --- | --- |"]
    lines += [f"| {each.title} | {each.versions} | {each.verdict} | {each.advice} |" for each in SENDERS.values()]
    return "\n".join(lines) + "\n"


def written() -> str:
    """The table as the documentation has it."""
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0]


def write() -> None:
    """Put the table into the documentation."""
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    PAGE.write_text(before + begin + rendered() + end + after)
