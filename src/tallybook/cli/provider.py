"""A provider's usage and cost APIs over HTTP: page after page, patient with what passes, and careful with its key."""

import random
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

import httpx
import msgspec

from tallybook import __version__
from tallybook.errors import CommandFailed
from tallybook.providers.record import BUCKETS_MAX, Provider, Report
from tallybook.sources.record import FaultyRecord, Fields

_TIMEOUT_S: Final = 60
_TRIES_MAX: Final = 8
_WAIT_S_MAX: Final = 60
_RETRY_AFTER_S_MAX: Final = 900
"""A provider that asks for more patience than this is asked again another time."""
_PAGES_MAX: Final = 10_000
_ANSWER_BYTES_MAX: Final = 256 * 1024 * 1024
_MESSAGE_MAX: Final = 500
_COUNT_DIGITS_MAX: Final = 18
_SLOW_DOWN: Final = 429
_TOO_FAR_BACK: Final = "reporting_lookback_exceeded"


class Refused(CommandFailed):
    """A provider refuses, for a reason that waiting does not mend: a wrong key, a wrong address."""


class TooFarBack(CommandFailed):
    """A provider no longer tells of so long ago.

    Attributes:
        since_s: from which day on it does, Unix seconds; None if it does not say.
    """

    def __init__(self, message: str, since_s: int | None) -> None:
        super().__init__(message)
        self.since_s = since_s


class Bucket(NamedTuple):
    """A bucket of a report: when it begins, Unix seconds, and its results as they came."""

    start_s: int
    results: list[Fields]


class Reader:
    """Reads a provider's reports.

    Args:
        provider: which.
        http: a client with its address and headers.
        key: is never repeated, whatever the provider says of it.
    """

    def __init__(self, provider: Provider, http: httpx.Client, key: str) -> None:
        self._provider = provider
        self._http = http
        self._key = key

    def buckets(
        self, report: Report, start_s: int, end_s: int, width: str, group_by: tuple[str, ...]
    ) -> Iterator[Bucket]:
        """Yield the buckets of a window, page after page; what lies outside of it is passed over.

        A report that not every server has is taken for empty where there is none.

        Args:
            report: what is asked for.
            start_s: start of the window, Unix seconds.
            end_s: its end, exclusive.
            width: ``1d`` or ``1h``.
            group_by: what results are told apart by.

        Raises:
            Refused: the provider refuses.
            TooFarBack: it no longer tells of the window's start.
            CommandFailed: it does not answer, or not as such a report does.
        """
        asked = [
            *self._provider.window(start_s, end_s).items(),
            ("bucket_width", width),
            ("limit", BUCKETS_MAX[width]),
            *(("group_by[]", name) for name in group_by),
        ]
        page: str | None = None
        seen: set[int] = set()
        cursors: set[str] = set()
        for _ in range(_PAGES_MAX):
            try:
                answer = self._get(report.path, asked if page is None else [*asked, ("page", page)])
            except _NotThere:
                if report.is_optional:
                    return
                raise
            with self._explained(report):
                if "data" not in answer:
                    raise answer.wrong("data", "is missing")
                for bucket in answer.each("data"):
                    found = self._bucket(bucket)
                    if found.start_s in seen:
                        raise bucket.wrong("start_time", "is told twice")
                    seen.add(found.start_s)
                    if start_s <= found.start_s < end_s:
                        yield found
                if not answer.any("has_more"):
                    return
                page = answer.any("next_page")
                if not isinstance(page, str) or page in cursors:
                    raise answer.wrong("next_page", "must be a text that leads on")
                cursors.add(page)
        raise CommandFailed(f"{self._provider.name} has more than {_PAGES_MAX:,} pages at {report.path}; ask for less")

    def read(self, report: Report, bucket: Bucket) -> list[Any]:
        """Return what the results of a bucket say.

        Raises:
            CommandFailed: one of them is not as such a report has it.
        """
        with self._explained(report):
            return [item for result in bucket.results for item in report.read(result)]

    def _bucket(self, bucket: Fields) -> Bucket:
        name = next((name for name in ("results", "result") if name in bucket), None)
        if name is None:
            raise bucket.wrong("results", "is missing")
        return Bucket(self._provider.start(bucket), list(bucket.each(name)))

    @contextmanager
    def _explained(self, report: Report) -> Iterator[None]:
        try:
            yield
        except FaultyRecord as error:
            raise CommandFailed(
                f"{self._provider.name} does not answer as expected at {report.path}: {self._safe(str(error))}"
            ) from error

    def _get(self, path: str, parameters: list[tuple[str, Any]]) -> Fields:
        """Return an answer; what passes is waited for."""
        for number in range(_TRIES_MAX):
            is_last = number == _TRIES_MAX - 1
            try:
                status, headers, body = self._answer(path, parameters)
            except httpx.RequestError as error:
                if is_last:
                    raise CommandFailed(f"no answer from {self._http.base_url}: {self._safe(str(error))}") from error
                time.sleep(_pause_s(number))
                continue
            if status == httpx.codes.OK:
                return self._decoded(path, body)
            if status != _SLOW_DOWN and status < httpx.codes.INTERNAL_SERVER_ERROR:
                raise self._refusal(path, status, body)
            pause_s = _retry_after_s(headers)
            if is_last or (pause_s or 0) > _RETRY_AFTER_S_MAX:
                raise CommandFailed(f"{self._provider.name} answers {status}: {self._told(body)}; try again later")
            time.sleep(_pause_s(number) if pause_s is None else pause_s)
        raise AssertionError("the last try returns or raises")

    def _answer(self, path: str, parameters: list[tuple[str, Any]]) -> tuple[int, httpx.Headers, bytes]:
        with self._http.stream("GET", path, params=parameters) as response:
            body = bytearray()
            for piece in response.iter_bytes():
                body += piece
                if len(body) > _ANSWER_BYTES_MAX:
                    raise CommandFailed(
                        f"{self._provider.name} answers more than {_ANSWER_BYTES_MAX:,} bytes at {path}"
                    )
            return response.status_code, response.headers, bytes(body)

    def _decoded(self, path: str, body: bytes) -> Fields:
        found = _object(body)
        if found is None:
            raise Refused(f"{self._http.base_url} answers at {path}, but not as {self._provider.name} does")
        return Fields(found)

    def _refusal(self, path: str, status: int, body: bytes) -> CommandFailed:
        told = self._told(body)
        if _TOO_FAR_BACK.encode() in body:
            day = re.search(r"\d{4}-\d{2}-\d{2}", told)
            since_s = int(datetime.fromisoformat(day[0]).replace(tzinfo=UTC).timestamp()) if day else None
            return TooFarBack(f"{self._provider.name}: {told}", since_s)
        kind = _NotThere if status == httpx.codes.NOT_FOUND else Refused
        hint = f"; check {self._provider.key_variable}" if status in (401, 403) else ""
        return kind(f"{self._provider.name} answers {status} at {path}: {told}{hint}")

    def _told(self, body: bytes) -> str:
        """Return the message of an error, whatever form it has."""
        error = (_object(body) or {}).get("error")
        message = error.get("message") if isinstance(error, dict) else error
        return self._safe(message) if isinstance(message, str) else "no reason given"

    def _safe(self, message: str) -> str:
        return message.replace(self._key, "[key]")[:_MESSAGE_MAX]


class _NotThere(Refused):
    """There is nothing at a path."""


@contextmanager
def reading(provider: Provider, address: str, key: str) -> Iterator[Reader]:
    """Yield a reader of a provider's reports at an address."""
    base = address.rstrip("/").removesuffix("/v1")
    headers: Mapping[str, str] = {**provider.headers(key), "user-agent": f"Tallybook/{__version__}"}
    try:
        http = httpx.Client(base_url=base, headers=headers, timeout=_TIMEOUT_S)
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise CommandFailed(f"cannot ask {address}: {str(error).replace(key, '[key]')}") from None
    with http:
        yield Reader(provider, http, key)


def _pause_s(number: int) -> float:
    """Return how long to wait after so many tries: twice as long each time, and not in step with others."""
    return min(_WAIT_S_MAX, 2.0**number) * random.uniform(0.5, 1)  # noqa: S311  no secret


def _retry_after_s(headers: httpx.Headers) -> float | None:
    """Return how long a provider asks to wait, told in seconds or as an instant."""
    text = headers.get("retry-after", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _object(body: bytes) -> dict[str, Any] | None:
    """Return an object of JSON; None if it is none."""
    try:
        return _OBJECT.decode(body)
    except (ValueError, RecursionError, ArithmeticError):
        return None


def _number(text: str) -> Decimal | int:
    """Return a number with all its digits; a count is a count although it is written with a point."""
    value = Decimal(text)
    return int(value) if abs(value.adjusted()) < _COUNT_DIGITS_MAX and value == value.to_integral_value() else value


_OBJECT: Final = msgspec.json.Decoder(dict[str, Any], float_hook=_number)
