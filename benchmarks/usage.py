"""Questions about usage."""

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import duckdb
import msgspec

from benchmarks.load import Page
from benchmarks.pages import FACTS, Answer
from tallybook.kinds import KINDS
from tallybook.timegrid import WIDTHS, floor_s

KIND: Final = KINDS["completions"]


@dataclass(frozen=True, slots=True)
class Question:
    """The latest buckets of a width, grouped."""

    title: str
    buckets: int
    width: str
    group_by: tuple[str, ...] = ()

    def page(self) -> Page:
        """How a client asks for the buckets up to now."""
        parameters = [("bucket_width", self.width), ("limit", self.buckets)]
        parameters += [("group_by", name) for name in self.group_by]
        path = f"/v1/organization/usage/{KIND.name}?{urlencode(parameters)}"
        return Page(self.title, path, WIDTHS[self.width].seconds, self.buckets)

    def path(self, end_s: int) -> str:
        """What a client gets when the last bucket is the one in progress at an instant."""
        return f"{self.page().at(end_s)}&end_time={end_s}"

    def read(self, body: bytes) -> Answer:
        """Return what a page says."""
        page = msgspec.json.decode(body)
        assert not page["has_more"]
        return {
            (bucket["start_time"], *(result[name] for name in self.group_by)): tuple(
                result[name] for name in KIND.measures
            )
            for bucket in page["data"]
            for result in bucket["results"]
        }

    def sql(self, end_s: int) -> tuple[str, list[object]]:
        """Return a statement that asks the raw events, and its values."""
        width_s = WIDTHS[self.width].seconds
        start_s = floor_s(end_s, width_s) - (self.buckets - 1) * width_s
        unit = {"1d": "day", "1h": "hour", "1m": "minute"}[self.width]
        groups = "".join(f", {name}" for name in self.group_by)
        sums = ", ".join(f"sum({name})" for name in KIND.measures)
        sql = f"""SELECT epoch_ms(date_trunc('{unit}', "timestamp")) // 1000 AS start_s{groups}, {sums}
                  FROM {FACTS} JOIN series USING (series_id)
                  WHERE organization_id = 'org-default' AND kind = ?
                    AND "timestamp" >= make_timestamp(?) AND "timestamp" < make_timestamp(?)
                  GROUP BY ALL"""
        return sql, [KIND.name, start_s * 1_000_000, end_s * 1_000_000]

    def add_up(self, _: duckdb.DuckDBPyConnection, rows: list[Any]) -> Answer:
        """Return what the statement's rows say."""
        split = 1 + len(self.group_by)
        return {row[:split]: row[split:] for row in rows}


QUESTIONS: Final = (
    Question("31 days by model", 31, "1d", ("model",)),
    Question("31 days by project and model", 31, "1d", ("project_id", "model")),
    Question("31 days ungrouped", 31, "1d"),
    Question("7 days by hour by model", 168, "1h", ("model",)),
    Question("a day by minute", 1440, "1m"),
)
