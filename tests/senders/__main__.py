"""Run senders and print what came of each: all, or those whose names contain a text. --docs writes the docs."""

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.senders import docs
from tests.senders.run import Outcome, run
from tests.senders.table import SENDERS
from tests.support import Server

AT_ONCE = 2
"""Senders that run at a time: one a core."""


def main() -> int:
    """Return how the process ends: 1 if any sender is not as expected."""
    asked = argparse.ArgumentParser(prog="python -m tests.senders", description=__doc__)
    asked.add_argument("names", nargs="*")
    asked.add_argument("--docs", action="store_true")
    given = asked.parse_args()
    if given.docs:
        docs.write()
        return 0
    names = [name for name in SENDERS if not given.names or any(each in name for each in given.names)]
    with tempfile.TemporaryDirectory() as data:
        server = Server.start(Path(data))
        try:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                return 0 if all([*pool.map(lambda name: _told(name, server), names)]) else 1
        finally:
            server.stop()


def _told(name: str, server: Server) -> bool:
    """Run one, print its lines, and return whether it is as expected."""
    sender = SENDERS[name]
    try:
        outcome = run(sender, server, f"org-{sorted(SENDERS).index(name)}")
    except Exception as error:  # what fails is one line of the table
        sys.stdout.write(f"FAILED  {name}: {error}\n")
        return False
    lines = [f"{'wrong' if outcome.differences else 'right'}   {name} ({sender.verdict})", *_said(outcome)]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
    return not outcome.differences


def _said(outcome: Outcome) -> list[str]:
    rejected = [f"        {outcome.rejected} rejected"] if outcome.rejected else []
    return [f"        {line}" for line in outcome.differences] + rejected


sys.exit(main())
