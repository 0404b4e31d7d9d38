"""What Prometheus can ask. One registry an app, so that two apps in a process do not mix."""

import re
from contextlib import suppress
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tallybook.errors import Reason
from tallybook.store.protocol import Outcome

_PLAIN_NAME: Final = re.compile(r"(?=.{1,80}$)(?:[a-z-]+ )?[a-zA-Z][a-zA-Z0-9_]*(?:\.[a-zA-Z][a-zA-Z0-9_]*)*")
"""A name as fields have it, perhaps behind that of a source. Others may be anything, and nobody needs a key here."""
_NOTICED_MAX: Final = 100
_LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The server's own measurements."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.events = Counter(
            "tallybook_events",
            "Events received, by usage kind (unknown for rejected ones) and what became of them.",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self.unpriced_events = Counter(
            "tallybook_unpriced_events",
            "Events accepted with usage that has no price, by usage kind; what they used is in no cost.",
            ["kind"],
            registry=self.registry,
        )
        self.price_files_refused = Gauge(
            "tallybook_price_files_refused",
            "1 while the price files have a fault and older prices stay in force, else 0.",
            registry=self.registry,
        )
        self.commit_s = Histogram(
            "tallybook_commit_seconds",
            "Time to write one commit to disk.",
            buckets=_LATENCY_S,
            registry=self.registry,
        )
        self.commit_failures = Counter(
            "tallybook_commit_failures",
            "Commits that could not be written, by reason (unknown if it is none of those /readyz names).",
            ["reason"],
            registry=self.registry,
        )
        for reason in (*Reason, "unknown"):
            self.commit_failures.labels(reason)
        self.ready = Gauge(
            "tallybook_ready", "1 while events are taken, 0 while /readyz says why not.", registry=self.registry
        )
        self.query_s = Histogram(
            "tallybook_query_seconds",
            "Time to answer one page from the store, by usage kind.",
            ["kind"],
            buckets=_LATENCY_S,
            registry=self.registry,
        )
        self.requests = Counter(
            "tallybook_http_requests",
            "HTTP requests, by method, route and status.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.notices = Counter(
            "tallybook_notices",
            "What senders do that their operator should know of, by subject, source and field (or other).",
            ["subject", "source", "field"],
            registry=self.registry,
        )
        self._noticed: set[tuple[str, str, str]] = set()
        self.grpc_requests = Counter(
            "tallybook_grpc_requests",
            "Calls over gRPC, by service and status code.",
            ["service", "code"],
            registry=self.registry,
        )
        self.connections = Gauge("tallybook_connections", "Open connections.", registry=self.registry)
        self.wrong_keys = Counter(
            "tallybook_wrong_keys", "Requests with a key that is unknown, revoked or expired.", registry=self.registry
        )
        self.sender_mistakes = Counter(
            "tallybook_sender_mistakes",
            "What senders get wrong about where and how to send, by reason; the log has each sender once.",
            ["reason"],
            registry=self.registry,
        )
        # Finding the counter of some labels takes the library longer than counting.
        self._requests: dict[tuple[str, str, int], Counter] = {}
        self._events: dict[tuple[str, str], Counter] = {}
        self.queue_bytes = Gauge(
            "tallybook_queue_bytes", "Bytes of bodies waiting to be written.", registry=self.registry
        )
        self.incoming_bytes = Gauge(
            "tallybook_incoming_bytes", "Bytes of bodies being received or decoded.", registry=self.registry
        )
        self.expired_rows = Counter(
            "tallybook_expired_rows", "Events and rollup rows deleted for their age.", registry=self.registry
        )
        self.store_bytes = Gauge("tallybook_store_bytes", "Size of the store on disk.", registry=self.registry)
        self.fold_s = Histogram(
            "tallybook_fold_seconds",
            "Time to add what was committed to the rollups.",
            buckets=_LATENCY_S,
            registry=self.registry,
        )
        self.compacted_rows = Counter(
            "tallybook_compacted_rows", "Rollup rows saved by compaction.", registry=self.registry
        )
        self.reconciliation_ratio = Gauge(
            "tallybook_reconciliation_difference_ratio",
            "What was recorded less what the provider charged, as a share of that, over the last settled days; of the "
            "organization where it is largest.",
            ["provider"],
            registry=self.registry,
        )
        self.reconciliations_beyond = Gauge(
            "tallybook_reconciliations_beyond",
            "Organizations for which that difference is beyond the settings.",
            ["provider"],
            registry=self.registry,
        )
        self.reconciliation_read_s = Gauge(
            "tallybook_reconciliation_read_timestamp_seconds",
            "When the provider was last read, of the organization where that is longest ago.",
            ["provider"],
            registry=self.registry,
        )
        self._verdicts: dict[tuple[str, str], tuple[float | None, bool, int]] = {}

    def count_failure(self, reason: Reason | None) -> None:
        """Count a commit that could not be written."""
        self.commit_failures.labels(reason or "unknown").inc()

    def count_request(self, method: str, route: str, status: int) -> None:
        """Count an answered request."""
        labels = (method, route, status)
        counter = self._requests.get(labels)
        if counter is None:
            counter = self._requests[labels] = self.requests.labels(*labels)
        counter.inc()

    def count(self, outcome: Outcome, rejected: int) -> None:
        """Count what became of the events of one request."""
        for kind, number in outcome.accepted.items():
            self._count_events(kind, "accepted", number)
        for kind, number in outcome.duplicates.items():
            self._count_events(kind, "duplicate", number)
        for kind, number in outcome.unpriced.items():
            self.unpriced_events.labels(kind).inc(number)
        for conflict in outcome.conflicts:
            self._count_events(conflict.kind, "conflict", 1)
        if rejected:
            self._count_events("unknown", "rejected", rejected)

    def count_notice(self, subject: str, source: str, name: str, number: int) -> None:
        """Count something noticed of a sender; names are its own, so only plain ones are shown, and not too many."""
        labels = (subject, source, name)
        if labels not in self._noticed:
            if len(self._noticed) < _NOTICED_MAX and _PLAIN_NAME.fullmatch(name):
                self._noticed.add(labels)
            else:
                labels = (subject, source, "other")
        self.notices.labels(*labels).inc(number)

    def note_reconciliation(
        self, organization_id: str, provider: str, *, ratio: float | None, is_beyond: bool, read_at_s: int
    ) -> None:
        """Note how far both books are apart: no organization is told apart, so the worst of all counts."""
        self._verdicts[organization_id, provider] = (ratio, is_beyond, read_at_s)
        self._show_reconciliations(provider)

    def forget_reconciliation(self, organization_id: str, provider: str) -> None:
        """Note that there is no book of a provider any more."""
        self._verdicts.pop((organization_id, provider), None)
        self._show_reconciliations(provider)

    def _show_reconciliations(self, provider: str) -> None:
        found = [verdict for (_, name), verdict in list(self._verdicts.items()) if name == provider]
        ratios = [ratio for ratio, _, _ in found if ratio is not None]
        _show(self.reconciliation_ratio, provider, max(ratios, key=abs, default=None))
        _show(self.reconciliations_beyond, provider, sum(is_beyond for _, is_beyond, _ in found) if found else None)
        _show(self.reconciliation_read_s, provider, min((read_at_s for _, _, read_at_s in found), default=None))

    def _count_events(self, kind: str, outcome: str, number: int) -> None:
        labels = (kind, outcome)
        counter = self._events.get(labels)
        if counter is None:
            counter = self._events[labels] = self.events.labels(*labels)
        counter.inc(number)

    def render(self) -> bytes:
        """Return all measurements in Prometheus' text format."""
        return generate_latest(self.registry)


def _show(gauge: Gauge, provider: str, value: float | None) -> None:
    """Set a provider's value; without one it is not shown at all."""
    if value is None:
        with suppress(KeyError):  # it was not shown before
            gauge.remove(provider)
    else:
        gauge.labels(provider).set(value)
