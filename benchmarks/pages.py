"""Pages over HTTP, and the same questions in plain SQL over raw events."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import duckdb
import msgspec

from benchmarks.ingest import Client
from benchmarks.report import Times
from tallybook.kinds import KINDS
from tallybook.timegrid import DAY_S, WIDTHS, floor_s

KIND: Final = KINDS["completions"]
WARM_UPS: Final = 3

Answer = dict[tuple[object, ...], tuple[int, ...]]
"""Start of the bucket and group, to measures."""


@dataclass(frozen=True, slots=True)
class Question:
    """The latest buckets of a width, grouped."""

    title: str
    buckets: int
    width: str
    group_by: tuple[str, ...] = ()

    def window(self, end_s: int) -> tuple[int, int]:
        """Start and end when the last bucket is the one in progress at an instant."""
        width_s = WIDTHS[self.width].seconds
        return floor_s(end_s, width_s) - (self.buckets - 1) * width_s, end_s


QUESTIONS: Final = (
    Question("31 days by model", 31, "1d", ("model",)),
    Question("31 days by project and model", 31, "1d", ("project_id", "model")),
    Question("31 days ungrouped", 31, "1d"),
    Question("7 days by hour by model", 168, "1h", ("model",)),
    Question("a day by minute", 1440, "1m"),
)
HISTORY_S: Final = 30 * DAY_S
"""How far events go back. With the day in progress these are 31 days."""


def ask(client: Client, question: Question, end_s: int, repeats: int) -> tuple[Times, Answer]:
    """Ask over HTTP, warm."""
    start_s, end_s = question.window(end_s)
    parameters = [("start_time", start_s), ("end_time", end_s), ("bucket_width", question.width)]
    parameters += [("limit", question.buckets), *(("group_by", name) for name in question.group_by)]
    path = f"/v1/organization/usage/{KIND.name}?{urlencode(parameters)}"
    times = Times()
    for _ in range(WARM_UPS):
        client.ask("GET", path)
    for _ in range(repeats):
        with times.one():
            body = client.ask("GET", path)
    page = msgspec.json.decode(body)
    assert not page["has_more"]
    return times, {
        (bucket["start_time"], *(result[name] for name in question.group_by)): tuple(
            result[name] for name in KIND.measures
        )
        for bucket in page["data"]
        for result in bucket["results"]
    }


def query(store: Path, question: Question, end_s: int, repeats: int) -> tuple[Times, Answer]:
    """Ask the events themselves, as one would without Tallybook: one table, its dimensions joined."""
    start_s, end_s = question.window(end_s)
    unit = {"1d": "day", "1h": "hour", "1m": "minute"}[question.width]
    groups = "".join(f", {name}" for name in question.group_by)
    sums = ", ".join(f"sum({name})" for name in KIND.measures)
    sql = f"""SELECT epoch_ms(date_trunc('{unit}', "timestamp")) // 1000 AS start_s{groups}, {sums}
              FROM events JOIN series USING (series_id)
              WHERE organization_id = 'org-default' AND kind = ?
                AND "timestamp" >= make_timestamp(?) AND "timestamp" < make_timestamp(?)
              GROUP BY ALL"""
    values = [KIND.name, start_s * 1_000_000, end_s * 1_000_000]
    times = Times()
    with duckdb.connect(str(store), read_only=True) as connection:
        for _ in range(WARM_UPS):
            connection.execute(sql, values).fetchall()
        for _ in range(repeats):
            with times.one():
                rows = connection.execute(sql, values).fetchall()
    split = 1 + len(question.group_by)
    return times, {row[:split]: row[split:] for row in rows}
