"""One request to the server, and what became of it. Never raises, never waits longer than it was told."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import NamedTuple, Union

import httpx  # proxies, certificates, kept connections and timeouts of every step, as an application expects them

PATH = "/v1/organization/usage/events"
_RECEIPT = "organization.usage.events.receipt"
_ANSWER_BYTES_MAX = 1024 * 1024
"""A receipt with as many faults as are told has a tenth of that."""
_TOO_MUCH = (413,)
_MISPLACED = (401, 403, 404, 405, 407, 408, 425, 429)
"""Statuses below 500 that say nothing against the events: with another key, address or time they may be taken."""
_FULL = "quarantine_full"


class Taken(NamedTuple):
    """The server has the records.

    Attributes:
        rejected: how many of them are no good; they are in its quarantine.
        conflicts: how many have the identity of a stored one that says something else; that one stands.
        fault: what is wrong with the first of those.
    """

    rejected: int = 0
    conflicts: int = 0
    fault: str | None = None


class Refused(NamedTuple):
    """The server will not take these records, now or later.

    Attributes:
        reason: why.
        may_be_split: some of them may be taken without the others.
    """

    reason: str
    may_be_split: bool


class Away(NamedTuple):
    """Nothing was taken, and the same request may succeed later.

    Attributes:
        reason: why.
        retry_after_s: when the server asked to come again.
    """

    reason: str
    retry_after_s: float | None = None


Outcome = Union[Taken, Refused, Away]


class Sender:
    """Sends records.

    Args:
        url: address of the server.
        api_key: with the scope to write.
        timeout_s: the longest a request may take.
    """

    def __init__(self, url: str, api_key: str, timeout_s: float) -> None:
        self._url = url.rstrip("/") + PATH
        self._headers = {
            "authorization": f"Bearer {api_key}",
            "content-type": "application/x-ndjson",
            "accept-encoding": "identity",  # an answer is as long as it looks
            "user-agent": "tallybook-client",
        }
        self._timeout_s = timeout_s
        self._http: httpx.Client | None = None
        self._inherited: list[httpx.Client] = []

    def send(self, dialect: str, lines: Sequence[bytes]) -> Outcome:
        """Send records, one a line, and say what became of them.

        Args:
            dialect: what they are in; empty for events of Tallybook's own.
            lines: at least one.
        """
        url = f"{self._url}/{dialect}" if dialect else self._url
        try:
            if self._http is None:  # made where it is needed: certificates take longer to load than a record to make
                self._http = httpx.Client(timeout=self._timeout_s)
            status, headers, body = self._post(self._http, url, b"\n".join(lines))
        except Exception as error:  # httpx's own, and whatever a broken proxy or certificate brings up
            return Away(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
        return _outcome(status, headers, body, len(lines))

    def close(self) -> None:
        """Close the connection."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def forget(self) -> None:
        """Leave the connection alone, in a process that was forked: it is the parent's."""
        if self._http is not None:
            self._inherited.append(self._http)  # not even closed: that would be said to the server
            self._http = None

    def _post(self, http: httpx.Client, url: str, content: bytes) -> tuple[int, httpx.Headers, bytes]:
        """Return status, headers and body; each step of httpx has its limit, and this one the whole of the answer."""
        deadline = time.monotonic() + self._timeout_s
        body = b""
        with http.stream("POST", url, content=content, headers=self._headers) as response:
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > _ANSWER_BYTES_MAX:
                    raise ValueError(f"the answer has more than {_ANSWER_BYTES_MAX} bytes")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no whole answer in {self._timeout_s} s")
            return response.status_code, response.headers, body


def _outcome(status: int, headers: httpx.Headers, body: bytes, sent: int) -> Outcome:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    answer = answer if isinstance(answer, dict) else {}
    error = answer.get("error")
    error = error if isinstance(error, dict) else {}
    rejected = answer.get("rejected")
    if status in (200, 400) and isinstance(rejected, int) and answer.get("object", _RECEIPT) == _RECEIPT:
        rejected = min(max(rejected, 0), sent)
        conflicts = answer.get("conflicts")  # of events, of which a record may make several
        conflicts = min(max(conflicts, 0), sent - rejected) if isinstance(conflicts, int) else 0
        return Taken(rejected, conflicts, _first_fault(answer))
    reason = f"{status} {str(error.get('message') or 'and no answer of Tallybook; check the address')[:500]}"
    if error.get("code") == _FULL:  # good ones are taken all the same
        return Refused(reason, may_be_split=True)
    if status in _MISPLACED or status >= 500 or status < 400 or not error:
        return Away(reason, _retry_after_s(headers))
    return Refused(reason, may_be_split=status in _TOO_MUCH)


def _first_fault(answer: dict[str, object]) -> str | None:
    faults = answer.get("faults")
    first = faults[0] if isinstance(faults, list) and faults else None
    return str(first.get("message"))[:500] if isinstance(first, dict) else None


def _retry_after_s(headers: httpx.Headers) -> float | None:
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
