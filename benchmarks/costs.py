"""Pages of costs over HTTP, and the same amounts from raw events in SQL."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import duckdb
import msgspec

from benchmarks.ingest import Client
from benchmarks.report import Times
from tallybook.parts import PARTS, PARTS_OF
from tallybook.rate import UNITS
from tallybook.timegrid import DAY_S, floor_s

BUCKETS: Final = 31
WARM_UPS: Final = 3

Answer = dict[tuple[object, ...], Decimal]
"""Start of the day and group, to dollars."""


@dataclass(frozen=True, slots=True)
class Question:
    """What 31 days cost, grouped."""

    title: str
    group_by: tuple[str, ...] = ()


QUESTIONS: Final = (
    Question("costs of 31 days by line item", ("line_item",)),
    Question("costs of 31 days by model", ("model",)),
    Question("costs of 31 days by project and line item", ("project_id", "line_item")),
    Question("costs of 31 days ungrouped"),
)


def ask(client: Client, question: Question, end_s: int, repeats: int) -> tuple[Times, Answer]:
    """Ask over HTTP, warm."""
    parameters: list[tuple[str, object]] = [("start_time", _start(end_s)), ("end_time", end_s), ("limit", BUCKETS)]
    path = "/v1/organization/costs?" + urlencode(parameters + [("group_by", name) for name in question.group_by])
    times = Times()
    for _ in range(WARM_UPS):
        client.ask("GET", path)
    for _ in range(repeats):
        with times.one():
            body = client.ask("GET", path)
    page = msgspec.json.decode(body.replace(b'"value":', b'"value":"').replace(b',"currency"', b'","currency"'))
    return times, {
        (bucket["start_time"], *(result[name] for name in question.group_by)): Decimal(result["amount"]["value"])
        for bucket in page["data"]
        for result in bucket["results"]
    }


def query(store: Path, question: Question, end_s: int, repeats: int) -> tuple[Times, Answer]:
    """Ask the events themselves: how much of each measure by group and rate; multiplied outside the time taken."""
    names = [name for name in question.group_by if name != "line_item"]
    measures = list(dict.fromkeys(measure for _, terms in _parts() for measure in terms))
    groups = "".join(f", {name}" for name in names)
    sql = f"""SELECT epoch_ms(date_trunc('day', "timestamp")) // 1000 AS start_s{groups},
                kind, model AS of_model, rate_id, {", ".join(f"sum({name})" for name in measures)}
              FROM events JOIN series USING (series_id)
              WHERE organization_id = 'org-default'
                AND "timestamp" >= make_timestamp(?) AND "timestamp" < make_timestamp(?)
              GROUP BY ALL"""
    times = Times()
    with duckdb.connect(str(store), read_only=True) as connection:
        priced = {
            (rate_id, part): Decimal(price) / UNITS[unit][1]
            for rate_id, part, price, unit in connection.execute(
                "SELECT rate_id, part, price, unit FROM rates"
            ).fetchall()
        }
        values = [_start(end_s) * 1_000_000, end_s * 1_000_000]
        for _ in range(WARM_UPS):
            connection.execute(sql, values).fetchall()
        for _ in range(repeats):
            with times.one():
                rows = connection.execute(sql, values).fetchall()
    answer: defaultdict[tuple[object, ...], Decimal] = defaultdict(Decimal)
    for row in rows:
        start_s, group, (kind, model, rate_id) = row[0], row[1 : 1 + len(names)], row[1 + len(names) : 4 + len(names)]
        sums = dict(zip(measures, row[4 + len(names) :], strict=True))
        for part in PARTS_OF[kind]:
            quantity = sum(sign * sums[measure] for measure, sign in part.terms[kind].items())
            if quantity and (rate_id, part.name) in priced:
                line = f"{model}, {part.label}" if part.has_model else part.label
                named = dict(zip(names, group, strict=True)) | {"line_item": line}
                answer[start_s, *(named[name] for name in question.group_by)] += quantity * priced[rate_id, part.name]
    return times, dict(answer)


def _parts() -> Iterator[tuple[str, dict[str, int]]]:
    for part in PARTS.values():
        for terms in part.terms.values():
            yield part.name, dict(terms)


def _start(end_s: int) -> int:
    return floor_s(end_s, DAY_S) - (BUCKETS - 1) * DAY_S
