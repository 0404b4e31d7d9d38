"""What senders do that their operator should know of: gathered here, and put into the store every few seconds.

Nothing waits for it, and a crash may lose the counts of these seconds: they say what to look at, and are no usage.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tallybook.clock import now_s
from tallybook.event import TEXT_MAX, encodable
from tallybook.ingest.decode import Decoded
from tallybook.metrics import Metrics
from tallybook.store.notices import OTHERS
from tallybook.store.protocol import Notice, Outcome

UNREAD: Final = "unread"
"""A field of usage that is not zero, and not read: the name is the field's."""
REPEATED: Final = "repeated"
"""A call that another source had reported: the name is that source's."""
DIFFERING: Final = "differing"
"""The same, with another count: the name is the other source's and the count's."""
ALIKE: Final = "alike"
"""Reports without ids that look like one call: the name is that of their two scopes."""
_WAITING_MAX: Final = 10_000
"""Notices that may wait to be stored; what comes beyond is counted together."""
_OURS: Final = "events"

_Key = tuple[str, str, str, str]


class Notices:
    """What is to be noticed, by organization, subject, source and name.

    Args:
        keep: puts notices of an organization into the store.
        metrics: where they are counted as well.
    """

    def __init__(self, keep: Callable[[str, Sequence[Notice]], None], metrics: Metrics) -> None:
        self._keep = keep
        self._metrics = metrics
        self._lock = threading.Lock()
        self._waiting: dict[_Key, tuple[int, str | None]] = {}

    def note(self, organization_id: str, dialect: str | None, decoded: Decoded, outcome: Outcome) -> None:
        """Notice what a request's records were like, and what became of them."""
        source = dialect or _OURS
        for subject, names in ((UNREAD, decoded.unread), (ALIKE, decoded.alike)):
            for name, count in names.items():
                self._add(organization_id, subject, source, name, count)
        for (sent, stands, field), count in outcome.repeats.items():
            subject = DIFFERING if field else REPEATED
            name = f"{stands or _OURS} {field}".strip()
            if field or sent != stands:  # a sender that repeats itself has lost an answer, no more
                self._add(organization_id, subject, sent or _OURS, name, count, outcome.repeated_id)

    def _add(
        self, organization_id: str, subject: str, source: str, name: str, count: int, example: str | None = None
    ) -> None:
        name = encodable(name[:TEXT_MAX])
        self._metrics.count_notice(subject, source, name, count)
        key = (organization_id, subject, source, name)
        with self._lock:
            if key not in self._waiting and len(self._waiting) >= _WAITING_MAX:
                key = (organization_id, subject, source, OTHERS)
            before, _ = self._waiting.get(key, (0, None))
            self._waiting[key] = (before + count, example)

    def flush(self) -> None:
        """Put what waits into the store; if that fails it goes on waiting."""
        with self._lock:
            taken, self._waiting = self._waiting, {}
        by_owner: dict[str, list[Notice]] = {}
        now = now_s()
        for (organization_id, subject, source, name), (count, example) in taken.items():
            by_owner.setdefault(organization_id, []).append(Notice(subject, source, name, count, now, example))
        while by_owner:
            organization_id, notices = by_owner.popitem()
            try:
                self._keep(organization_id, notices)
            except BaseException:
                self._put_back({key: value for key, value in taken.items() if key[0] in {organization_id, *by_owner}})
                raise

    def _put_back(self, taken: Mapping[_Key, tuple[int, str | None]]) -> None:
        with self._lock:
            for key, (count, example) in taken.items():
                since, latest = self._waiting.get(key, (0, None))
                self._waiting[key] = (count + since, latest or example)
