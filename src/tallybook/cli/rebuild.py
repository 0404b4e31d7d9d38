"""``tallybook rebuild``."""

import json
from typing import Annotated

from cyclopts import Parameter

from tallybook.cli.target import Target, connect
from tallybook.cli.when import instant
from tallybook.clock import now_s


def rebuild(
    *,
    since: str,
    until: str | None = None,
    target: Annotated[Target, Parameter(name="*")] = Target(),  # noqa: B008  frozen
) -> None:
    """Make rollups anew from raw events, by whole days. Answers do not change unless a rollup was wrong.

    Example: tallybook rebuild --since 2026-01-01 --until 2026-02-01

    Args:
        since: Start: 7d ago, a date, a time (UTC), or Unix seconds; widened to the whole day.
        until: End, in the same forms. Default: now.
    """
    now = now_s()
    window = {"start_time": instant(since, now), "end_time": instant(until, now) if until else now + 1}
    with connect(target) as client:
        done = client.post("usage/rebuild", json.dumps(window).encode())
    print(f"Rebuilt {done['days']} days.")
