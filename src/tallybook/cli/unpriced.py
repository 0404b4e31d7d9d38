"""The line below an amount: usage without a price, which no amount has in it."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from tallybook.cli.report import errors
from tallybook.cli.target import Client
from tallybook.cli.terminal import plain
from tallybook.cli.when import show
from tallybook.errors import CommandFailed
from tallybook.timegrid import DAY_S, floor_s

_NAMED_MAX: Final = 5
Entry = dict[str, Any]


def unpriced(client: Client, start_s: int, end_s: int, filters: Mapping[str, Any] | None = None) -> list[Entry]:
    """Return what was used without a price in a window.

    Args:
        client: to a server.
        start_s: start of the window, Unix seconds.
        end_s: its end, exclusive.
        filters: parameters that select, as they were given for the amount.
    """
    window = {"start_time": start_s, "end_time": end_s, "count_events": "false"}
    found: list[Entry] = client.get("costs/unpriced", **window, **(filters or {}))["data"]
    return found


def tell_unpriced(found: Iterable[Entry], start_s: int) -> None:
    """Say below an amount what is not in it; nothing, if there is nothing.

    Args:
        found: unpriced usage.
        start_s: where to begin to look at it, Unix seconds.
    """
    names = list(dict.fromkeys(entry["model"] or entry["line_item"] for entry in found))
    if not names:
        return
    others = len(names) - _NAMED_MAX
    listed = plain(", ".join(names[:_NAMED_MAX])) + (f" and {others} more" if others > 0 else "")
    since = show(floor_s(start_s, DAY_S), "1d")
    errors().print(
        f"unpriced: {listed}; no amount includes this usage. See 'tallybook costs unpriced --since {since}'.",
        style="yellow",
        markup=False,
    )


class Grown:
    """What a command adds to unpriced usage: it is asked before and after.

    Args:
        client: to a server; a key that may not read learns of nothing.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._before = {_name(entry): entry["quantity"] for entry in self._all()}

    def tell(self) -> None:
        """Say what is unpriced of what was added."""
        found = [entry for entry in self._all() if entry["quantity"] != self._before.get(_name(entry))]
        tell_unpriced(found, min((entry["since"] for entry in found), default=0))

    def _all(self) -> list[Entry]:
        try:
            found: list[Entry] = self._client.get("costs/unpriced", count_events="false")["data"]
        except CommandFailed:
            return []
        return found


def _name(entry: Entry) -> tuple[Any, ...]:
    return tuple(entry[name] for name in ("kind", "model", "service_tier", "batch", "line_item"))
