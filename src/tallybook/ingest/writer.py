"""The one writer: a bounded queue of batches, and a thread that commits what has gathered.

While one commit is on its way to disk the next gathers, so that many small requests share a commit and a single one
waits for nobody. A caller gets its answer when its commit is on disk, never before.

While the store takes no commits, callers are refused at once, and told why. Every second the writer tries whether that
is over.
"""

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

import structlog

from tallybook.errors import Busy, NotReady, Reason
from tallybook.metrics import Metrics
from tallybook.store.protocol import Batch, Outcome, Store

_GATHER_S: Final = 0.014
"""Seconds between the beginnings of two commits while small requests come from many at once. A commit takes about half
of that whether it has one event or a hundred: fewer of them leave more of the machine to the requests."""
_GATHER_BYTES: Final = 256 * 1024
"""Enough to begin at once."""
_COMMIT_RECORDS: Final = 50_000
"""Enough to pay for a commit many times over, few enough that nobody waits long behind it."""
_TELLING_RECORDS: Final = 2_000
"""A commit of fewer takes its time whatever is in it, and does not tell how fast the store is."""
_LATEST: Final = 0.3
"""How much the latest commit counts in how fast the store is."""

_RECOVER_EVERY_S: Final = 1
_LOOK_EVERY_S: Final = 0.2
"""How soon it is noticed that the store is in trouble when nothing is to be written."""

_log = structlog.get_logger()


class _Waiting(NamedTuple):
    batch: Batch
    size_bytes: int
    future: asyncio.Future[Outcome]


class Writer:
    """Puts batches into a store, in order, several to a commit.

    Args:
        store: where to.
        queue_bytes_max: the most bytes that may wait.
        queue_s_max: the longest a batch may be expected to wait. Whoever has given up before would send it again.
        metrics: where commits are measured.
    """

    def __init__(self, store: Store, queue_bytes_max: int, queue_s_max: float, metrics: Metrics) -> None:
        self._store = store
        self._queue_bytes_max = queue_bytes_max
        self._queue_s_max = queue_s_max
        self._metrics = metrics
        self._queue: deque[_Waiting] = deque()
        self._queue_bytes = 0
        self._queue_events = 0
        """As with bytes, those that are being written are among them."""
        self._events_per_s: float | None = None
        """How fast the store is; None before it has been seen."""
        metrics.queue_bytes.set_function(lambda: self._queue_bytes)
        self._changed = threading.Condition()
        self._stopping = False
        self._began = 0.0
        """When the last commit began."""
        self._had_company = False
        """Whether it was of several batches."""
        self._tried = 0.0
        """When it was last tried whether the store takes commits again."""
        self._thread = threading.Thread(target=self._run, name="writer")

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Refuse new batches, write what waits, and return when it is on disk."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def trouble(self) -> Reason | None:
        """Why nothing is written now; None while batches are."""
        is_writing = self._thread.is_alive() and not self._stopping
        return self._store.trouble if is_writing else Reason.STOPPING

    def submit(self, batch: Batch, size_bytes: int) -> asyncio.Future[Outcome]:
        """Queue a batch, from the event loop; the future has its outcome once it is on disk.

        What is queued gets written, also when the client that asked for it is gone.

        Args:
            batch: what to write.
            size_bytes: the unpacked size of the body it came from, as a measure of the memory it takes.

        Raises:
            Busy: too much is waiting already.
            NotReady: nothing is written now.
        """
        waiting = _Waiting(batch, size_bytes, asyncio.get_running_loop().create_future())
        with self._changed:
            self.refuse_if_full(size_bytes)
            self._queue.append(waiting)
            self._add(size_bytes, batch.events)
            if len(self._queue) == 1 or self._queue_bytes >= _GATHER_BYTES:  # else it knows, or waits for more
                self._changed.notify()
        return waiting.future

    def refuse_if_full(self, size_bytes: int = 0) -> None:
        """Raise what `submit` would raise for a batch of this size."""
        if trouble := self.trouble:
            raise NotReady(trouble)
        if self._queue and (self._queue_bytes + size_bytes > self._queue_bytes_max or self._wait_s > self._queue_s_max):
            raise Busy(
                "The write queue is full; nothing from this request was stored. Retry later.",
                code="queue_full",
                retry_after_s=1,
            )

    @property
    def _wait_s(self) -> float:
        """How long the last of those that wait is expected to wait."""
        return self._queue_events / self._events_per_s if self._events_per_s else 0

    def _run(self) -> None:
        while self._wait():
            if trouble := self._store.trouble:
                batches = self._take(sys.maxsize)
                _tell(batches, [NotReady(trouble) for _ in batches])
            else:
                self._gather()
                batches = self._take(_COMMIT_RECORDS)
                self._commit(batches)
            with self._changed:
                self._add(
                    -sum(waiting.size_bytes for waiting in batches), -sum(waiting.batch.events for waiting in batches)
                )
            if trouble:
                self._recover()

    def _wait(self) -> bool:
        """Wait for work; return whether there will be any."""
        with self._changed:
            while not self._queue and not self._stopping and not self._store.trouble:
                self._changed.wait(_LOOK_EVERY_S)
            return bool(self._queue) or not self._stopping

    def _recover(self) -> None:
        """Try whether the store takes commits again, a while after the last time."""
        with self._changed:
            if self._changed.wait_for(lambda: self._stopping, self._tried + _RECOVER_EVERY_S - time.monotonic()):
                return
        self._tried = time.monotonic()
        try:
            self._store.recover()
        except Exception:
            _log.exception("the store cannot be tried out")

    def _take(self, records_max: int) -> list[_Waiting]:
        """Return what waits, so many events at the most, if it is of several batches."""
        with self._changed:
            taken: list[_Waiting] = []
            records = 0
            while self._queue and (not taken or records + self._queue[0].batch.events <= records_max):
                taken.append(self._queue.popleft())
                records += taken[-1].batch.events
            self._had_company = len(taken) > 1
            return taken

    def _gather(self) -> None:
        """Let a commit's worth come together where many send at once; a sender who is alone waits for nobody."""
        due = self._began + _GATHER_S
        with self._changed:
            while (
                self._had_company
                and not self._stopping
                and self._queue_bytes < _GATHER_BYTES
                and (left_s := due - time.monotonic()) > 0
            ):
                self._changed.wait(left_s)
        self._began = time.monotonic()

    def _commit(self, batches: Sequence[_Waiting]) -> None:
        try:
            began = time.monotonic()
            with self._metrics.commit_s.time():
                outcomes = self._store.append([waiting.batch for waiting in batches])
            self._measure(batches, time.monotonic() - began)
        except NotReady as error:
            self._metrics.count_failure(error.reason)
            if error.reason is Reason.OUT_OF_MEMORY:
                self._store.recover()  # less at once may fit
            if self._store.trouble or len(batches) == 1:
                _tell(batches, [NotReady(error.reason) for _ in batches])
            else:
                self._commit_each(batches)
            return
        except Exception as error:
            self._metrics.count_failure(None)
            if len(batches) > 1:
                self._commit_each(batches)
                return
            _log.exception("commit failed")
            _tell(batches, [error])
            self._store.recover()  # or is it that it can take none?
            return
        _tell(batches, outcomes)

    def _commit_each(self, batches: Sequence[_Waiting]) -> None:
        """One batch may be what the engine cannot take; the others shall not fail with it."""
        for waiting in batches:
            self._commit([waiting])

    def _add(self, size_bytes: int, events: int) -> None:
        self._queue_bytes += size_bytes
        self._queue_events += events

    def _measure(self, batches: Sequence[_Waiting], seconds: float) -> None:
        events = sum(waiting.batch.events for waiting in batches)
        if events >= _TELLING_RECORDS:
            latest = events / max(seconds, 1e-6)
            known = self._events_per_s or latest
            self._events_per_s = known + _LATEST * (latest - known)


def _tell(batches: Sequence[_Waiting], found: Sequence[Outcome | Exception]) -> None:
    """Tell the event loop what became of batches, at once: to wake it up for each would take longer than their work."""

    def settle() -> None:
        for waiting, outcome in zip(batches, found, strict=True):
            if waiting.future.done():  # whoever waited has given up
                continue
            if isinstance(outcome, Exception):
                waiting.future.set_exception(outcome)
            else:
                waiting.future.set_result(outcome)

    if not batches:
        return
    with suppress(RuntimeError):  # the loop has ended, and all who waited with it
        batches[0].future.get_loop().call_soon_threadsafe(settle)
