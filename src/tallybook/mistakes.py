"""What senders get wrong about where and how to send: counted, and logged once for each of them.

A sender that is pointed at the wrong place is often one nobody looks at: its own log is off, or says no more than
"failed". So the server's log has a sentence that says what to set. Nothing in it is what a client made up.
"""

import time
from enum import StrEnum
from typing import Final

import structlog

from tallybook.attempts import network
from tallybook.metrics import Metrics

_REMEMBERED_MAX: Final = 1_000
"""Pairs of sender and reason; beyond it the one noted the longest ago is forgotten, and may be logged again."""
_LINES_MINUTE_MAX: Final = 30
"""Who has many addresses must not fill the disk with our log."""

_log = structlog.get_logger()


class Mistake(StrEnum):
    """What a sender got wrong; the label of the metric, and the reason in the log."""

    HTTP2 = "http2_on_http_port"
    TLS = "tls_on_http_port"
    ADDRESS = "unknown_address"
    CONTENT_TYPE = "content_type"
    NO_KEY = "no_key"
    KEY_IN_ADDRESS = "key_in_address"
    SEVERAL_KEYS = "several_keys"

    @property
    def remedy(self) -> str:
        """What whoever runs the sender can do about it."""
        return _REMEDIES[self]


_REMEDIES: Final = {
    Mistake.HTTP2: (
        "A sender speaks gRPC (HTTP/2) to the HTTP port: set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf there, or set "
        "otlp-grpc-port here and send it to that port."
    ),
    Mistake.TLS: "A client speaks TLS to the HTTP port: use http:// in its address, or put a TLS proxy in front.",
    Mistake.ADDRESS: "A sender posts to an address that does not exist.",
    Mistake.CONTENT_TYPE: (
        "A sender's Content-Type is not OTLP's: set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf or http/json there."
    ),
    Mistake.NO_KEY: (
        "A sender sends no key: give it one that has api.usage.write, for OTLP as "
        "OTEL_EXPORTER_OTLP_HEADERS='authorization=Bearer%20sk-admin-...'."
    ),
    Mistake.KEY_IN_ADDRESS: "A sender has its key in the address, where it is not read: revoke it, and use a header.",
    Mistake.SEVERAL_KEYS: "A sender sends several different keys in its headers: leave only one.",
}


class Mistakes:
    """The mistakes of senders.

    Args:
        metrics: where they are counted, every one.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._noted: dict[tuple[str, Mistake], None] = {}
        self._minute = 0
        self._lines = 0
        for mistake in Mistake:
            metrics.sender_mistakes.labels(mistake)

    def note(self, mistake: Mistake, address: str, hint: str = "") -> None:
        """Count a mistake, and log it unless this sender's of this kind has been.

        Args:
            mistake: what it is.
            address: IP address of the sender.
            hint: what to do instead, in words of ours.
        """
        self._metrics.sender_mistakes.labels(mistake).inc()
        who = (network(address), mistake)
        if who in self._noted or not self._may_log():
            return
        self._noted[who] = None
        if len(self._noted) > _REMEMBERED_MAX:
            del self._noted[next(iter(self._noted))]
        remedy = f"{mistake.remedy} {hint}".strip()
        _log.warning("a sender needs to be set up differently", reason=mistake, client=who[0], remedy=remedy)

    def _may_log(self) -> bool:
        minute = int(time.monotonic()) // 60
        if minute != self._minute:
            self._minute, self._lines = minute, 0
        self._lines += 1
        return self._lines <= _LINES_MINUTE_MAX
