"""Servers on loopback with the shape of a provider's usage and cost APIs, quirks included; written from the facts.

They tell what a test puts into them, by report, width and bucket, and note what they were asked.
"""

import base64
import json
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, ClassVar, NamedTuple, TypeVar
from urllib.parse import parse_qsl, urlsplit

DAY_S = 86_400
WIDTHS_S = {"1m": 60, "1h": 3_600, "1d": DAY_S}
LIMITS_MAX = {"1m": 1_440, "1h": 168, "1d": 31}
KEY = "sk-admin-of-the-provider-0123456789"

Result = dict[str, Any]


class Answer(NamedTuple):
    """What is answered instead of a report: a status, headers, a body as it is."""

    status: int
    headers: dict[str, str]
    body: bytes


def refusal(status: int, message: str, code: str | None = None, **headers: str) -> Answer:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return Answer(status, headers, json.dumps({"error": error}).encode())


class Asked(NamedTuple):
    """A request: the report's path and its parameters, lists as lists."""

    path: str
    parameters: dict[str, list[str]]

    def one(self, name: str) -> str:
        (value,) = self.parameters[name]
        return value


class Provider(ABC):
    """What both shapes have in common.

    Attributes:
        told: results by path, width and start of the bucket.
        asked: the requests, in order.
        instead: answered first, one a request; None for the report itself.
        lacking: paths there is nothing at.
        list_name: what a bucket's results are called.
        earliest_s: windows that begin before are refused.
    """

    costs_path: ClassVar[str]
    cost_limit_max: ClassVar[int]

    def __init__(self) -> None:
        self.told: defaultdict[tuple[str, str], defaultdict[int, list[Result]]] = defaultdict(lambda: defaultdict(list))
        self.asked: list[Asked] = []
        self.instead: deque[Answer | None] = deque()
        self.lacking: set[str] = set()
        self.list_name = "results"
        self.earliest_s = 0
        self.url = ""

    def tell(self, path: str, start_s: int, *results: Result, width: str = "1d") -> None:
        """Add results to a bucket."""
        self.told[path, width][start_s] += results

    def answer(self, path: str, query: str, headers: Any) -> Answer:
        parameters: dict[str, list[str]] = {}
        for name, value in parse_qsl(query, keep_blank_values=True):
            parameters.setdefault(name.removesuffix("[]"), []).append(value)
        asked = Asked(path, parameters)
        self.asked.append(asked)
        if self.instead and (instead := self.instead.popleft()):
            return instead
        if wrong := self.unauthorized(headers):
            return wrong
        if path in self.lacking:
            return refusal(404, f"Invalid URL (GET {path})")
        return self.page(asked)

    def page(self, asked: Asked) -> Answer:
        width = asked.parameters.get("bucket_width", ["1d"])[0]
        limit = int(asked.parameters.get("limit", ["7"])[0])
        most = self.cost_limit_max if asked.path == self.costs_path else LIMITS_MAX[width]
        if limit > most:
            return refusal(
                400, f"Invalid 'limit': integer above maximum value. Expected a value <= {most}, but got {limit}"
            )
        start_s, end_s = self.window(asked)
        if start_s < self.earliest_s:
            day = datetime.fromtimestamp(self.earliest_s, UTC).strftime("%Y-%m-%d")
            return refusal(
                400,
                f"Usage and cost data are available for the past year. Earliest supported start date: {day} (UTC).",
                "reporting_lookback_exceeded",
            )
        from_s = int(base64.urlsafe_b64decode(asked.one("page")[5:])) if "page" in asked.parameters else start_s
        starts = list(range(from_s, end_s, WIDTHS_S[width]))
        data = [
            self.bucket(start_s, WIDTHS_S[width], self.told[asked.path, width][start_s]) for start_s in starts[:limit]
        ]
        # Costs lead to one more page after the last, with nothing on it.
        is_over = len(starts) <= limit and not (
            asked.path == self.costs_path and data and "page" not in asked.parameters
        )
        next_s = starts[limit] if len(starts) > limit else end_s
        cursor = None if is_over else f"page_{base64.urlsafe_b64encode(str(next_s).encode()).decode()}"
        body = {"object": "page", "data": data, "has_more": not is_over, "next_page": cursor}
        return Answer(200, {}, json.dumps(body).encode())

    @abstractmethod
    def window(self, asked: Asked) -> tuple[int, int]: ...

    @abstractmethod
    def bucket(self, start_s: int, width_s: int, results: list[Result]) -> Result: ...

    @abstractmethod
    def unauthorized(self, headers: Any) -> Answer | None: ...


class OpenAI(Provider):
    """OpenAI's shape: usage by kind, costs with amounts as text, buckets in Unix seconds and in words."""

    costs_path = "/v1/organization/costs"
    cost_limit_max = 180

    def window(self, asked: Asked) -> tuple[int, int]:
        return int(asked.one("start_time")), int(asked.one("end_time"))

    def bucket(self, start_s: int, width_s: int, results: list[Result]) -> Result:
        end_s = start_s + width_s
        words = {name: iso(instant_s) for name, instant_s in (("start_time_iso", start_s), ("end_time_iso", end_s))}
        return {"object": "bucket", "start_time": start_s, "end_time": end_s, **words, self.list_name: results}

    def unauthorized(self, headers: Any) -> Answer | None:
        if headers["Authorization"] == f"Bearer {KEY}":
            return None
        return refusal(401, f"Incorrect API key provided: {headers['Authorization']}.", "invalid_api_key")

    def cost(self, day_s: int, line_item: str | None, value: Any, **others: Any) -> None:
        """Add a cost of a day."""
        amount = {"value": value, "currency": "usd"}
        row = {"object": "organization.costs.result", "amount": amount, "line_item": line_item, "project_id": None}
        self.tell(self.costs_path, day_s, {**row, "organization_id": "org-x", **others})

    def used(self, kind: str, start_s: int, *, width: str = "1d", **fields: Any) -> None:
        """Add usage of a bucket."""
        named = {"object": f"organization.usage.{kind}.result", "project_id": None, "model": None, **fields}
        self.tell(f"/v1/organization/usage/{kind}", start_s, named, width=width)


class Anthropic(Provider):
    """Anthropic's shape: one report of usage, costs in cents, times in words."""

    costs_path = "/v1/organizations/cost_report"
    cost_limit_max = 31
    usage_path = "/v1/organizations/usage_report/messages"

    def window(self, asked: Asked) -> tuple[int, int]:
        start, end = (datetime.fromisoformat(asked.one(name)) for name in ("starting_at", "ending_at"))
        return int(start.timestamp()), int(end.timestamp())

    def bucket(self, start_s: int, width_s: int, results: list[Result]) -> Result:
        return {"starting_at": iso(start_s), "ending_at": iso(start_s + width_s), self.list_name: results}

    def unauthorized(self, headers: Any) -> Answer | None:
        if headers["x-api-key"] == KEY and headers["anthropic-version"] == "2023-06-01":
            return None
        body = {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}
        return Answer(401, {}, json.dumps(body).encode())

    def cost(self, day_s: int, cents: str, **others: Any) -> None:
        """Add a cost of a day."""
        names = ("cost_type", "token_type", "model", "description", "workspace_id", "service_tier", "context_window")
        self.tell(self.costs_path, day_s, {"amount": cents, "currency": "USD", **dict.fromkeys(names), **others})

    def used(self, start_s: int, *, width: str = "1d", **fields: Any) -> None:
        """Add usage of a bucket."""
        row: Result = {"uncached_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0}
        row |= {"cache_creation": {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 0}}
        row |= {"server_tool_use": {"web_search_requests": 0}}
        row |= dict.fromkeys(("api_key_id", "workspace_id", "model", "service_tier", "context_window", "inference_geo"))
        self.tell(self.usage_path, start_s, row | fields, width=width)


def iso(instant_s: int) -> str:
    return datetime.fromtimestamp(instant_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Shape = TypeVar("Shape", bound=Provider)


@contextmanager
def serving(provider: Shape) -> Iterator[Shape]:
    """Serve a provider on a port of its own, and note where."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            answer = provider.answer(address.path, address.query, self.headers)
            if answer.status == 0:  # what a connection does that breaks off
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        provider.url = f"http://127.0.0.1:{httpd.server_port}"
        thread = Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield provider
        finally:
            httpd.shutdown()
            thread.join()
