"""What is kept of the past: single events and sums by minute and hour up to an age, sums by day for ever.

What is older is deleted, a day at a time, and the store's mark of it moves in the same transaction. It never moves
back: a longer setting does not bring back what is gone. The process knows of a mark before anything is deleted, so
whoever has begun a snapshot and then looks at the mark knows all that the snapshot may lack.

Of a call that is deleted its id is kept for a while longer: reports of one call name different instants, and one from
after the mark may be of a call from before it.

An event from before the mark is refused: whether it was stored already could not be told any more, and nothing may
count twice. Reports of levels are no events in this respect. The last one before the mark holds after it, and they are
all there is to tell what was held on a day: they stay.
"""

from contextlib import suppress
from typing import Final, NamedTuple

import duckdb

from tallybook.errors import InvalidRequest
from tallybook.event import rfc3339
from tallybook.store.protocol import Keep, Kept
from tallybook.store.rollups import ROLLUPS, Rollup, folded
from tallybook.timegrid import DAY_S, HOUR_S, MINUTE_S, floor_s

_ROLLED_UP: Final = "lot <= (SELECT lot FROM rolled_up)"
"""An event goes only when the rollups have it."""
_CALLS_DAYS: Final = 31
"""How long the id of a call is known after the call is deleted: no two reports of one are further apart."""
_FINE: Final = {MINUTE_S: "minutes_s", HOUR_S: "hours_s"}


class _Source(NamedTuple):
    """A table and the condition on rows that may go from it."""

    table: str
    instant: str
    condition: str


_SOURCES: Final = {
    "events_s": (_Source("events", '"timestamp"', _ROLLED_UP),),
    **{
        mark: tuple(_Source(rollup.table, "start", "true") for rollup in ROLLUPS if rollup.cell_s == cell_s)
        for cell_s, mark in _FINE.items()
    },
}


class Step(NamedTuple):
    """What is to be deleted at once.

    Attributes:
        mark: the field of `Kept` that moves.
        until_s: what is before this goes, Unix seconds.
        kept: what is kept then.
    """

    mark: str
    until_s: int
    kept: Kept


def read(connection: duckdb.DuckDBPyConnection) -> Kept:
    """Return what is kept, as a connection sees it."""
    (row,) = connection.execute(
        "SELECT epoch_ms(events) // 1000, epoch_ms(minutes) // 1000, epoch_ms(hours) // 1000 FROM kept"
    ).fetchall()
    return Kept(*row)


def since_s(kept: Kept, rollup: Rollup) -> int:
    """Return since when a rollup is whole, Unix seconds."""
    return int(getattr(kept, _FINE[rollup.cell_s])) if rollup.cell_s in _FINE else 0


def next_step(connection: duckdb.DuckDBPyConnection, kept: Kept, keep: Keep, now_s: int) -> Step | None:
    """Return what is to be deleted next, None if nothing is beyond its age.

    Age counts from the latest event, should that be long past: a clock that is wrong by a year deletes nothing.

    Args:
        connection: lent for this.
        kept: what is kept now.
        keep: how long what is to be kept.
        now_s: the present.
    """
    today_s = floor_s(min(now_s, folded(connection).latest_ms // 1000 + DAY_S), DAY_S)
    for mark, days in zip(Kept._fields, keep, strict=True):
        since = today_s - days * DAY_S
        if not days or since <= getattr(kept, mark):
            continue
        oldest = [
            instant_s
            for source in _SOURCES[mark]
            for (instant_s,) in connection.execute(
                f"SELECT epoch_ms(min({source.instant})) // 1000 FROM {source.table} WHERE {source.condition}"
            ).fetchall()
            if instant_s is not None
        ]
        until_s = min([since, *(floor_s(instant_s, DAY_S) + DAY_S for instant_s in oldest)])
        return Step(mark, until_s, kept._replace(**{mark: max(until_s, getattr(kept, mark))}))
    return None


def take(connection: duckdb.DuckDBPyConnection, step: Step) -> int:
    """Delete what a step says and move the mark, in one transaction; return how many rows."""
    deleted = 0
    connection.begin()
    try:
        # Not an update: while anybody reads what was before one, the engine cannot write its main file.
        connection.execute("DELETE FROM kept")
        connection.execute(
            "INSERT INTO kept SELECT make_timestamp(?::BIGINT), make_timestamp(?::BIGINT), make_timestamp(?::BIGINT)",
            [instant_s * 1_000_000 for instant_s in step.kept],
        )
        if step.mark == "events_s":
            _remember_calls(connection, step.until_s)
        for source in _SOURCES[step.mark]:
            ((count,),) = connection.execute(
                f"DELETE FROM {source.table} WHERE {source.instant} < make_timestamp(?::BIGINT) AND {source.condition}",
                [step.until_s * 1_000_000],
            ).fetchall()
            deleted += count
    except BaseException:
        with suppress(duckdb.Error):  # a failed commit has rolled back already, and a dead engine has nothing to
            connection.rollback()
        raise
    connection.commit()
    return deleted


def _remember_calls(connection: duckdb.DuckDBPyConnection, until_s: int) -> None:
    """Keep the ids of calls that are about to be deleted, and let go of older ones."""
    connection.execute(
        f"""INSERT INTO past_calls BY NAME
            SELECT organization_id, kind, id, call, "timestamp" FROM events JOIN series USING (series_id)
            WHERE call IS NOT NULL AND "timestamp" < make_timestamp(?::BIGINT) AND {_ROLLED_UP}""",
        [until_s * 1_000_000],
    )
    connection.execute(
        'DELETE FROM past_calls WHERE "timestamp" < make_timestamp(?::BIGINT)',
        [(until_s - _CALLS_DAYS * DAY_S) * 1_000_000],
    )


def too_fine(kept: Kept) -> InvalidRequest:
    """Return the error of a question that would need what is deleted."""
    sums = (
        ("minute (without project, user, key and vector store)", kept.minutes_s),
        ("hour", kept.hours_s),
        ("day", 0),
    )
    told = ", ".join(f"sums by {unit} {_since(instant_s)}" for unit, instant_s in sums)
    return InvalidRequest(
        f"Invalid 'start_time': what was used then is no longer kept in such detail. There are single events "
        f"{_since(kept.events_s)}, {told}. Ask for wider buckets, begin and end at whole hours or days (UTC), or begin "
        "later.",
        param="start_time",
        code="not_kept",
    )


def without_events(kept: Kept, consequence: str) -> InvalidRequest:
    """Return the error of a request that would need events that are deleted."""
    return InvalidRequest(
        f"Invalid 'start_time': single events are kept {_since(kept.events_s)}, so what was before {consequence}. "
        "Begin there, or later.",
        param="start_time",
        code="not_kept",
    )


def _since(instant_s: int) -> str:
    return f"from {rfc3339(instant_s * 1000)} on" if instant_s else "of all time"
