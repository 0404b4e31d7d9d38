"""Questions about costs."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlencode

import duckdb
import msgspec

from benchmarks.load import Page
from benchmarks.pages import FACTS, Answer
from tallybook.parts import PARTS, PARTS_OF
from tallybook.rate import UNITS
from tallybook.timegrid import DAY_S, floor_s

BUCKETS: Final = 31


@dataclass(frozen=True, slots=True)
class Question:
    """What 31 days cost, grouped."""

    title: str
    group_by: tuple[str, ...] = ()

    def page(self) -> Page:
        """How a client asks for the days up to now."""
        parameters = [("limit", BUCKETS), *(("group_by", name) for name in self.group_by)]
        return Page(self.title, f"/v1/organization/costs?{urlencode(parameters)}", DAY_S, BUCKETS)

    def path(self, end_s: int) -> str:
        """What a client gets when the last day is the one in progress at an instant."""
        return f"{self.page().at(end_s)}&end_time={end_s}"

    def read(self, body: bytes) -> Answer:
        """Return the dollars a page says, to the last digit."""
        page = msgspec.json.decode(body.replace(b'"value":', b'"value":"').replace(b',"currency"', b'","currency"'))
        return {
            (bucket["start_time"], *(result[name] for name in self.group_by)): Decimal(result["amount"]["value"])
            for bucket in page["data"]
            for result in bucket["results"]
        }

    @property
    def _names(self) -> list[str]:
        return [name for name in self.group_by if name != "line_item"]

    def sql(self, end_s: int) -> tuple[str, list[object]]:
        """Return a statement that asks the raw events for how much there is of each measure by group and rate."""
        groups = "".join(f", {name}" for name in self._names)
        sql = f"""SELECT epoch_ms(date_trunc('day', "timestamp")) // 1000 AS start_s{groups},
                    kind, model AS of_model, rate_id, {", ".join(f"sum({name})" for name in MEASURES)}
                  FROM {FACTS} JOIN series USING (series_id)
                  WHERE organization_id = 'org-default'
                    AND "timestamp" >= make_timestamp(?) AND "timestamp" < make_timestamp(?)
                  GROUP BY ALL"""
        start_s = floor_s(end_s, DAY_S) - (BUCKETS - 1) * DAY_S
        return sql, [start_s * 1_000_000, end_s * 1_000_000]

    def add_up(self, connection: duckdb.DuckDBPyConnection, rows: list[Any]) -> Answer:
        """Return the dollars the statement's rows come to: quantities times prices."""
        names = self._names
        rates = connection.execute("SELECT rate_id, part, price, unit FROM rates").fetchall()
        priced = {(rate_id, part): Decimal(price) / UNITS[unit][1] for rate_id, part, price, unit in rates}
        answer: defaultdict[tuple[object, ...], Decimal] = defaultdict(Decimal)
        for row in rows:
            start_s, group, (kind, model, rate_id) = row[0], row[1 : 1 + len(names)], row[1 + len(names) :][:3]
            sums = dict(zip(MEASURES, row[4 + len(names) :], strict=True))
            for part in PARTS_OF[kind]:
                quantity = sum(sign * sums[measure] for measure, sign in part.terms[kind].items())
                if quantity and (rate_id, part.name) in priced:
                    line = f"{model}, {part.label}" if part.has_model else part.label
                    named = dict(zip(names, group, strict=True)) | {"line_item": line}
                    key = (start_s, *(named[name] for name in self.group_by))
                    answer[key] += quantity * priced[rate_id, part.name]
        return dict(answer)


def _measures() -> Iterator[str]:
    for part in PARTS.values():
        for terms in part.terms.values():
            yield from terms


MEASURES: Final = tuple(dict.fromkeys(_measures()))
"""Everything that has a price."""

QUESTIONS: Final = (
    Question("costs of 31 days by line item", ("line_item",)),
    Question("costs of 31 days by model", ("model",)),
    Question("costs of 31 days by project and line item", ("project_id", "line_item")),
    Question("costs of 31 days ungrouped"),
)
