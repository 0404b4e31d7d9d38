"""What a typical gateway does with the same events in PostgreSQL, beside ours.

A row a request in a log of requests, and in the same transaction upserts into daily tables, one for each kind of entity
(users, projects, models). Tables, keys and indexes are those common gateways have: the log has the request's id as its
primary key and is indexed by time, key, user and model; a daily table is unique by entity, day, key, model and kind of
call, and indexed by each. Nothing about contents of requests is kept.

Rows are copied into a temporary table, a batch a transaction, and go on from there by one statement for each table,
sorted so that connections do not wait for each other in circles. Rows are turned into the bytes `COPY` takes before
anything is timed. (Adding up each batch in the client and sending the sums is as fast.) Its pages are read from the
smallest daily table that has the answer.
"""

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg

from benchmarks import pages, usage
from benchmarks.effort import Effort
from benchmarks.events import bodies
from benchmarks.ingest import CONNECTIONS, EVENTS_IN_BODY, HISTORY_S, fill_warm
from benchmarks.postgres import cluster
from benchmarks.results import Result
from benchmarks.server import connected, running, settle
from benchmarks.times import Times, Turns
from tallybook.clock import now_s
from tallybook.store.duckdb import FILE_NAME

WAYS: Final = ((1_000, 4), (1_000, 16), (100, 4))
"""Rows a transaction and connections: as large batches and as few connections as gateways have, or more, or less."""

LOG: Final = {
    "request_id": "text PRIMARY KEY",
    "call_type": "text NOT NULL",
    "api_key": "text NOT NULL",
    "user_id": "text NOT NULL",
    "project_id": "text NOT NULL",
    "model": "text NOT NULL",
    "service_tier": "text",
    "status": "text NOT NULL",
    "started_at": "timestamptz(3) NOT NULL",
    "ended_at": "timestamptz(3) NOT NULL",
    "input_tokens": "bigint NOT NULL",
    "input_cached_tokens": "bigint NOT NULL",
    "output_tokens": "bigint NOT NULL",
    "spend": "double precision NOT NULL",
    "metadata": "jsonb NOT NULL",
}
ENTITIES: Final = {"daily_users": "user_id", "daily_projects": "project_id", "daily_models": "model"}
PAGES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "31 days ungrouped": ("daily_models", ()),
    "31 days by model": ("daily_models", ("model",)),
    "31 days by project and model": ("daily_projects", ("project_id", "model")),
}
"""Which daily table has the answer, and how it is grouped."""
USERS: Final = "daily_users"
OF_USERS: Final = ("31 days ungrouped", "31 days by model")
"""What it has the answer to as well: where there is no table for models, gateways read this one."""
SHARED: Final = ("input_tokens", "input_cached_tokens", "output_tokens", "num_model_requests")
"""Measures that both have."""
_SHARED: Final = tuple(usage.KIND.measures.index(name) for name in SHARED)
_COLUMN: Final = {"num_model_requests": "requests"}
SUMS: Final = ("input_tokens", "input_cached_tokens", "output_tokens", "spend", "requests")


def _daily_key(entity: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((entity, "day", "api_key", "model", "call_type")))


def schema() -> Iterator[str]:
    """Statements that make the tables anew."""
    yield f"DROP TABLE IF EXISTS {', '.join(('requests', *ENTITIES))}"
    yield f"CREATE TABLE requests ({', '.join(f'{name} {kind}' for name, kind in LOG.items())})"
    for column in ("started_at", "api_key", "user_id", "model"):
        yield f"CREATE INDEX ON requests ({column})"
    for table, entity in ENTITIES.items():
        key = _daily_key(entity)
        columns = ", ".join(f"{name} {'date' if name == 'day' else 'text'} NOT NULL" for name in key)
        sums = ", ".join(f"{name} {'double precision' if name == 'spend' else 'bigint'} NOT NULL" for name in SUMS)
        yield f"""CREATE TABLE {table} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {columns}, {sums},
                  updated_at timestamptz NOT NULL DEFAULT now(), UNIQUE ({", ".join(key)}))"""
        for column in key:
            yield f"CREATE INDEX ON {table} ({column})"


def _statements() -> Iterator[str]:
    """What a batch does once it is in the temporary table."""
    yield "INSERT INTO requests SELECT * FROM incoming ON CONFLICT (request_id) DO NOTHING"
    for table, entity in ENTITIES.items():
        key = _daily_key(entity)
        names = ", ".join(key)
        values = ", ".join("(started_at AT TIME ZONE 'UTC')::date" if name == "day" else name for name in key)
        sums = ", ".join("count(*)" if name == "requests" else f"sum({name})" for name in SUMS)
        places = ", ".join(str(place + 1) for place in range(len(key)))
        updates = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in SUMS)
        yield f"""INSERT INTO {table} ({names}, {", ".join(SUMS)})
                  SELECT {values}, {sums} FROM incoming GROUP BY {places} ORDER BY {places}
                  ON CONFLICT ({names}) DO UPDATE SET {updates}, updated_at = now()"""


STATEMENTS: Final = tuple(_statements())


def ingest(address: str, lines: Sequence[bytes], rows_in_batch: int, connections: int) -> float:
    """Write rows over several connections; return rows a second."""
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    for at in range(0, len(lines), rows_in_batch):
        waiting.put(b"\n".join(lines[at : at + rows_in_batch]) + b"\n")
    failures: list[Exception] = []

    def write() -> None:
        try:
            with psycopg.connect(address) as connection:
                connection.execute("CREATE TEMP TABLE incoming (LIKE requests) ON COMMIT DELETE ROWS")
                connection.commit()
                while True:
                    _write(connection, waiting.get_nowait())
        except queue.Empty:
            pass
        except Exception as error:  # told by the caller's thread
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(connections)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return len(lines) / (time.perf_counter() - started)


def _write(connection: psycopg.Connection[Any], batch: bytes) -> None:
    with connection.cursor() as cursor:
        with cursor.copy("COPY incoming FROM STDIN") as copy:
            copy.write(batch)
        with connection.pipeline():
            for statement in STATEMENTS:
                cursor.execute(statement, prepare=True)
            connection.commit()


def rows(body: bytes) -> Iterator[bytes]:
    """The lines of a body as `COPY` takes them, in the order of the log's columns."""
    for event in msgspec.json.Decoder(type=dict[str, Any]).decode_lines(body):
        input_tokens, output_tokens = event.get("input_tokens", 0), event.get("output_tokens", 0)
        started = datetime.fromtimestamp(event["timestamp"], UTC).isoformat(timespec="milliseconds")
        metadata = {"endpoint": f"/v1/{event['kind']}", "region": "eu", "cache_hit": False, "tags": ["team-a"]}
        values = (
            event["id"],
            event["kind"],
            event["api_key_id"],
            event["user_id"],
            event["project_id"],
            event.get("model", ""),
            event.get("service_tier", r"\N"),
            "success",
            started,
            started,
            str(input_tokens),
            str(event.get("input_cached_tokens", 0)),
            str(output_tokens),
            str((input_tokens + 4 * output_tokens) / 1_000_000),
            msgspec.json.encode(metadata).decode(),
        )
        yield "\t".join(values).encode()


def measure(place: Path, effort: Effort) -> Iterator[Result]:
    """Send the same events to us and to PostgreSQL, and ask both the same questions.

    Raises:
        RuntimeError: a page of ours is not what its daily tables say.
    """
    end_s = now_s()
    made = list(bodies(effort.compared_events, EVENTS_IN_BODY, (end_s - HISTORY_S) * 1000, end_s * 1000))
    lines = [line for body in made for line in rows(body)]
    ours, asked = [], {}
    for turn in range(effort.turns):
        data = place / f"compared-{turn}"
        with running(data) as server, connected(server) as client:
            ours.append(fill_warm(server, iter(made)))
            if effort.settles and turn + 1 == effort.turns:
                settle(client)
            asked = {
                question.title: pages.ask(client, question, end_s, effort.repeats)
                for question in usage.QUESTIONS
                if question.title in PAGES
            }
    bytes_per_event = (data / FILE_NAME).stat().st_size / len(lines)
    with cluster() as address:
        for rows_in_batch, connections in WAYS:
            with psycopg.connect(address) as connection:
                for statement in schema():
                    connection.execute(statement)
            per_s = ingest(address, lines, rows_in_batch, connections)
            yield Result(
                name=f"bulk, beside PostgreSQL: {rows_in_batch:,} rows a commit, {connections} connections",
                ours=Turns(ours).middle,
                reference=per_s,
                spread=Turns(ours).spread,
                note=f"{len(lines):,} events; ours {EVENTS_IN_BODY:,} events a body, {CONNECTIONS} connections",
            )
            if (rows_in_batch, connections) == WAYS[0]:
                yield from _held(address, end_s, asked, bytes_per_event, effort)


def _held(
    address: str, end_s: int, asked: Mapping[str, pages.Asked], bytes_per_event: float, effort: Effort
) -> Iterator[Result]:
    """Set disk and pages side by side."""
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")
        counts = {table: _number(connection, f"SELECT count(*) FROM {table}") for table in ("requests", *ENTITIES)}
        stored = sum(_number(connection, f"SELECT pg_total_relation_size('{table}')") for table in counts)
        yield Result(
            name="disk, beside PostgreSQL",
            ours=bytes_per_event,
            reference=stored / counts["requests"],
            note=f"PostgreSQL {connection.info.parameter_status('server_version')}: "
            + ", ".join(f"{count:,} {table.replace('_', ' ')}" for table, count in counts.items()),
        )
        for title, ours in asked.items():
            table, group_by = PAGES[title]
            reference, answer = _query(connection, table, group_by, end_s, effort.repeats)
            finest, _ = _query(connection, USERS, group_by, end_s, effort.repeats) if title in OF_USERS else (None, {})
            if answer != {key: tuple(values[at] for at in _SHARED) for key, values in ours.answer.items()}:
                raise RuntimeError(f"{title}: our page is not what {table} says")
            yield Result(
                name=f"{title}, beside PostgreSQL",
                ours=ours.times.p50,
                reference=reference.p50,
                spread=(ours.times.p50, ours.times.p99),
                note=f"{table}, p99 {reference.p99:.1f} ms"
                + (f"; from {USERS} {finest.p50:.1f} ms" if finest else "")
                + f"; {len(answer):,} results",
            )


def _number(connection: psycopg.Connection[Any], sql: str) -> int:
    row = connection.execute(sql).fetchone()
    assert row is not None
    return int(row[0])


def _query(
    connection: psycopg.Connection[Any], table: str, group_by: Sequence[str], end_s: int, repeats: int
) -> tuple[Times, dict[tuple[object, ...], tuple[int, ...]]]:
    groups = "".join(f", {name}" for name in group_by)
    sums = ", ".join(f"sum({_COLUMN.get(name, name)})::bigint" for name in SHARED)
    sql = f"""SELECT extract(epoch FROM day)::bigint{groups}, {sums} FROM {table}
              WHERE call_type = '{usage.KIND.name}' AND day BETWEEN %s AND %s GROUP BY day{groups}"""
    last = datetime.fromtimestamp(end_s, UTC).date()
    values = (last - timedelta(days=30), last)
    times = Times()
    for _ in range(pages.WARM_UPS):
        connection.execute(sql, values, prepare=True).fetchall()
    for _ in range(repeats):
        with times.one():
            found = connection.execute(sql, values, prepare=True).fetchall()
    split = 1 + len(group_by)
    return times, {row[:split]: row[split:] for row in found}
