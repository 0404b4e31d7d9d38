"""Records on their way: a bounded queue, one thread that sends batches, a spool for when the server is away.

Whoever hands over a record never waits: for the network, for the disk, or for another thread longer than that takes to
put something into a queue. What there is no room for is dropped and counted: the newest, since the rest was promised
first.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import os
import queue
import random
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tallybook.client.sender import Away, Refused, Sender, Taken
from tallybook.client.spool import Spool

log = logging.getLogger("tallybook.client")

_BATCH_BYTES = 1024 * 1024
_RECORD_BYTES_EXTRA = 150
"""What a waiting record takes besides its own bytes."""
_BACK_OFF_S = 0.5
_BACK_OFF_S_MAX = 60.0
_RETRY_AFTER_S_MAX = 300.0
_ADOPT_EVERY_S = 60.0
_TELL_EVERY_S = 60.0
_STUMBLE_S = 1.0
_DISK_S_MAX = 2.0
"""How long the end of a process waits for a disk that does not answer."""


@dataclass(frozen=True)
class Stats:
    """What became of all records. `recorded` and `adopted` are the sum of the six that follow.

    Attributes:
        recorded: handed over in this process.
        adopted: taken over from the spool of processes that have ended.
        delivered: the server has them.
        rejected: the server found them faulty; they are in its quarantine, unless the log says otherwise.
        conflicts: the server has others of the same id and time, which stand.
        dropped: lost, since there was no room or no time.
        waiting: in memory.
        spooled: on disk.
        unmeasured: calls of a tracked client whose usage nobody told; they are in no other count.
    """

    recorded: int = 0
    adopted: int = 0
    delivered: int = 0
    rejected: int = 0
    conflicts: int = 0
    dropped: int = 0
    waiting: int = 0
    spooled: int = 0
    unmeasured: int = 0


class _Batch(NamedTuple):
    dialect: str
    lines: list[bytes]
    size_bytes: int


class _Flush:
    """Somebody waits until everything is delivered, or at least safe on disk."""

    def __init__(self, is_disk_enough: bool) -> None:
        self.is_disk_enough = is_disk_enough
        self.done = threading.Event()


class Delivery:
    """Takes records and gets them to the server.

    Args:
        sender: sends batches.
        spool: where batches go while the server is away; None keeps them in memory.
        batch_max: the most records in a request.
        batch_age_s: how long a record waits for others.
        queue_bytes_max: the most memory that waiting records take.
        exit_s: the longest the end of the process waits.
    """

    def __init__(
        self,
        sender: Sender,
        spool: Spool | None,
        *,
        batch_max: int,
        batch_age_s: float,
        queue_bytes_max: int,
        exit_s: float,
    ) -> None:
        self._sender = sender
        self._spool = spool
        self._batch_max = batch_max
        self._batch_age_s = batch_age_s
        self._queue_bytes_max = queue_bytes_max
        self._exit_s = exit_s
        self._is_closed = False
        self._reset()
        _alive.add(self)
        if spool is not None:
            try:
                spool.prepare()
            except OSError as error:  # better told now than when it is needed
                self.tell("disk", "the spool cannot be written: %s", error)
            self._start()  # there may be something left of the last time

    def _reset(self) -> None:
        # Reentrant: a garbage collection inside may end a stream somebody dropped, which is then recorded.
        self._lock = threading.RLock()
        self._disk = threading.RLock()
        self._signals: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._inbox: deque[tuple[str, bytes]] = deque()
        self._held: deque[_Batch] = deque()
        self._flushes: list[_Flush] = []
        self._thread: threading.Thread | None = None
        self._wakes_at: float = 1
        self._since = 0.0
        self._bytes = 0
        self._waiting = 0
        self._recorded = self._adopted = self._dropped = self._unmeasured = 0
        self._delivered = self._rejected = self._conflicts = 0
        self._failures = 0
        self._next_try = 0.0
        self._next_adoption = 0.0
        self._is_stopping = False
        self._is_abandoned = False
        self._told: dict[str, float] = {}

    def put(self, dialect: str, line: bytes) -> None:
        """Hand over a record."""
        with self._lock:
            self._recorded += 1
            size = len(line) + _RECORD_BYTES_EXTRA
            has_room = not self._is_closed and self._bytes + size <= self._queue_bytes_max
            if has_room:
                if not self._inbox:
                    self._since = time.monotonic()
                self._bytes += size
                self._waiting += 1
                self._inbox.append((dialect, line))
                if len(self._inbox) >= self._wakes_at:
                    self._wakes_at = math.inf
                    self._signals.put(None)
                if self._thread is None:
                    self._start()
            else:
                self._dropped += 1
        if not has_room:
            why = "it is closed" if self._is_closed else f"{self._queue_bytes_max} bytes are waiting already"
            self.tell("dropped", "a record is dropped: %s; stats() counts what is lost", why)

    def lose(self) -> None:
        """Count a record that was never one."""
        with self._lock:
            self._recorded += 1
            self._dropped += 1

    def miss(self) -> None:
        """Count a call whose usage nobody told."""
        with self._lock:
            self._unmeasured += 1

    def stats(self) -> Stats:
        """Return what became of all records."""
        with self._disk, self._lock:
            return Stats(
                recorded=self._recorded,
                adopted=self._adopted,
                delivered=self._delivered,
                rejected=self._rejected,
                conflicts=self._conflicts,
                dropped=self._dropped,
                waiting=self._waiting,
                spooled=self._spool.records if self._spool else 0,
                unmeasured=self._unmeasured,
            )

    def flush(self, timeout_s: float, *, is_disk_enough: bool = False) -> bool:
        """Wait until everything is delivered; return whether it is.

        Args:
            timeout_s: the longest it may take.
            is_disk_enough: being safe on disk is as good.
        """
        token = _Flush(is_disk_enough)
        with self._lock:
            if self._thread is None:
                return not self._waiting
            self._flushes.append(token)
            self._next_try = 0.0  # whoever waits may as well know
            self._signals.put(None)
        is_done = token.done.wait(timeout_s)
        with self._lock:
            if token in self._flushes:
                self._flushes.remove(token)
        return is_done

    def close(self) -> None:
        """Deliver what there is, or put it on disk; what is recorded from now on is dropped."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        if not self.flush(self._exit_s, is_disk_enough=True):
            self._rescue()
        with self._lock:
            self._is_stopping = True
            self._signals.put(None)
            thread, lost = self._thread, self._dropped
        if thread is not None and not self._is_abandoned:
            thread.join(_DISK_S_MAX)
        if lost:
            log.warning("%d records are lost: there was no room for them, or no time", lost)

    def tell(self, topic: str, message: str, *arguments: object) -> None:
        """Log a warning, but not the same again and again."""
        now = time.monotonic()
        if now - self._told.get(topic, -math.inf) >= _TELL_EVERY_S:
            self._told[topic] = now
            log.warning(message, *arguments)

    def renew(self) -> None:
        """Begin anew in a process that was forked: what was recorded before is the parent's to deliver."""
        self._reset()
        self._sender.forget()
        if self._spool is not None:
            self._spool.forget()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="tallybook", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter is about to end
            self.tell("thread", "no thread to deliver records: %s", error)
            return
        self._thread = thread
        _close_with_process()

    def _run(self) -> None:
        while not self._is_stopping:
            self._turn()
        if not self._is_abandoned:
            self._sender.close()
            with self._disk:
                if self._spool is not None:
                    self._spool.close()

    def _turn(self) -> None:
        """Wait for something to do, and do it."""
        try:
            self._wait()
            self._step()
        except Exception:
            log.exception("delivery stumbled; it goes on")
            time.sleep(_STUMBLE_S)

    def _wait(self) -> None:
        """Wait until there is something to do."""
        with self._lock:
            now = time.monotonic()
            until = math.inf if self._spool is None else self._next_adoption
            if self._inbox:
                until = min(until, self._since + self._batch_age_s)
            if self._held or (self._spool is not None and self._spool.records):
                until = min(until, self._next_try)
            if self._is_stopping or (self._flushes and (self._inbox or not self._failures)):
                until = now
            if len(self._inbox) >= self._batch_max or until <= now:
                return
            self._wakes_at = self._batch_max if self._inbox else 1
        with contextlib.suppress(queue.Empty):
            self._signals.get(timeout=None if until == math.inf else until - now)

    def _step(self) -> None:
        """Do what is to be done: take a batch, send or spool it, send what is spooled, answer who waits for that."""
        self._gather()
        if self._spool is not None:
            self._keep_spool(self._spool)
            self._answer()  # whoever ends need not wait for one more attempt
        is_due = time.monotonic() >= self._next_try or not self._failures
        if is_due and self._held:
            self._send_held()
            is_due = not self._failures
        if is_due and self._spool is not None:
            self._send_spooled(self._spool)
        self._answer()

    def _gather(self) -> None:
        """Take what has gathered, if it has waited long enough, or is as much as a request may have."""
        with self._lock:
            is_due = (
                len(self._inbox) >= self._batch_max
                or time.monotonic() >= self._since + self._batch_age_s
                or self._flushes
                or self._is_stopping
            )
            if not self._inbox or not is_due:
                return
            taken: list[tuple[str, bytes]] = []
            size = 0
            while self._inbox and len(taken) < self._batch_max and size < _BATCH_BYTES:
                taken.append(self._inbox.popleft())
                size += len(taken[-1][1])
            self._since = time.monotonic()
            self._held += _batches(taken)

    def _keep_spool(self, spool: Spool) -> None:
        """Take over what others left, and put on disk what the server does not take now."""
        with self._disk:
            if self._is_abandoned:
                return
            if time.monotonic() >= self._next_adoption:
                self._next_adoption = time.monotonic() + _ADOPT_EVERY_S
                adopted = spool.adopt()
                with self._lock:
                    self._adopted += adopted
            while self._failures and self._held and self._spooled(spool, self._held[0]):
                self._release(self._held.popleft())

    def _spooled(self, spool: Spool, batch: _Batch) -> bool:
        try:
            if spool.append(batch.dialect, batch.lines):
                return True
        except OSError as error:
            self.tell("disk", "the spool cannot be written: %s", error)
        else:
            self.tell("full", "the spool is full; what does not fit into memory either is dropped")
        return False

    def _send_held(self) -> None:
        """Send a batch; one that fails goes to the spool, or lets others go first."""
        batch = self._held[0]
        taken = self._deliver(batch.dialect, batch.lines)
        with self._lock:
            if taken is None:
                self._held.rotate(-1)
            elif not self._is_abandoned:
                self._release(self._held.popleft())
                self._count(len(batch.lines), taken)
        if taken is None and self._spool is not None:
            self._keep_spool(self._spool)

    def _send_spooled(self, spool: Spool) -> None:
        """Send a segment of the spool; one that fails stays there, and lets others go first."""
        with self._disk:
            found = None if self._is_abandoned else spool.first()
        if found is None:
            return
        segment, lines = found
        taken = self._deliver(segment.dialect, lines)
        with self._disk, self._lock:
            if self._is_abandoned:
                return
            if taken is None:
                spool.postpone(segment)
            else:
                spool.remove(segment)
                self._count(len(lines), taken)

    def _deliver(self, dialect: str, lines: Sequence[bytes]) -> Taken | None:
        """Send all of what may be more than a batch; return what became of it, None if the server is away."""
        total = Taken()
        for start in range(0, len(lines), self._batch_max):
            taken = self._deliver_batch(dialect, lines[start : start + self._batch_max])
            if taken is None:
                return None
            total = _both(total, taken)
        if self._failures:
            log.info("the server takes records again")
        self._failures = 0
        return total

    def _deliver_batch(self, dialect: str, lines: Sequence[bytes]) -> Taken | None:
        """Send a batch, in parts if it has to be; return what became of it, None if the server is away."""
        outcome = self._sender.send(dialect, lines)
        if isinstance(outcome, Away):
            self._back_off(outcome)
            return None
        if isinstance(outcome, Refused):
            if outcome.may_be_split and len(lines) > 1:
                half = len(lines) // 2
                first = self._deliver_batch(dialect, lines[:half])
                second = None if first is None else self._deliver_batch(dialect, lines[half:])
                return None if first is None or second is None else _both(first, second)
            self.tell("refused", "%d records are refused and lost: %s", len(lines), outcome.reason)
            return Taken(rejected=len(lines))
        if outcome.rejected:
            self.tell("rejected", "%d records are rejected, such as: %s", outcome.rejected, outcome.fault)
        elif outcome.fault:
            self.tell("conflict", "a record is in conflict with a stored one: %s", outcome.fault)
        return outcome

    def _back_off(self, away: Away) -> None:
        self._failures += 1
        delay_s = min(_BACK_OFF_S * 2.0 ** min(self._failures - 1, 30), _BACK_OFF_S_MAX) * random.uniform(0.5, 1)  # noqa: S311
        if away.retry_after_s is not None:
            delay_s = min(away.retry_after_s, _RETRY_AFTER_S_MAX) * random.uniform(1, 1.1) or delay_s  # noqa: S311
        self._next_try = time.monotonic() + delay_s
        where = "in memory" if self._spool is None else "on disk"
        self.tell("away", "the server does not take records, they are kept %s: %s", where, away.reason)

    def _answer(self) -> None:
        """Tell those who wait whether there is nothing left to wait for."""
        with self._disk, self._lock:
            if self._waiting:
                return
            is_delivered = self._spool is None or not self._spool.records
            for token in list(self._flushes):
                if is_delivered or token.is_disk_enough:
                    self._flushes.remove(token)
                    token.done.set()

    def _release(self, batch: _Batch) -> None:
        with self._lock:
            self._bytes -= batch.size_bytes
            self._waiting -= len(batch.lines)

    def _count(self, sent: int, taken: Taken) -> None:
        self._rejected += taken.rejected
        self._conflicts += taken.conflicts
        self._delivered += sent - taken.rejected - taken.conflicts

    def _rescue(self) -> None:
        """Put on disk what is in memory, whatever the thread is doing; drop what cannot be."""
        has_disk = self._disk.acquire(timeout=_DISK_S_MAX)
        try:
            with self._lock:
                self._is_abandoned = True
                left = [*self._held, *_batches(self._inbox)]
                self._held.clear()
                self._inbox.clear()
                self._waiting = self._bytes = 0
            for batch in left:
                if not (has_disk and self._spool is not None and self._spooled(self._spool, batch)):
                    with self._lock:
                        self._dropped += len(batch.lines)
            if has_disk and self._spool is not None:
                self._spool.close()
        finally:
            if has_disk:
                self._disk.release()


def _both(first: Taken, second: Taken) -> Taken:
    return Taken(first.rejected + second.rejected, first.conflicts + second.conflicts)


def _batches(records: Iterable[tuple[str, bytes]]) -> list[_Batch]:
    """Return records together with those of the same dialect."""
    lines: dict[str, list[bytes]] = {}
    for dialect, line in records:
        lines.setdefault(dialect, []).append(line)
    return [
        _Batch(dialect, found, sum(map(len, found)) + _RECORD_BYTES_EXTRA * len(found))
        for dialect, found in lines.items()
    ]


_alive: weakref.WeakSet[Delivery] = weakref.WeakSet()


def _close_all() -> None:
    for delivery in list(_alive):
        delivery.close()


def _renew_all() -> None:
    for delivery in list(_alive):
        delivery.renew()


def _close_with_process() -> None:
    """Have a process that `multiprocessing` forked close everything, too: it ends without what `atexit` knows of."""
    process, util = sys.modules.get("multiprocessing.process"), sys.modules.get("multiprocessing.util")
    if process is not None and util is not None and process.parent_process() is not None:
        util.Finalize(None, _close_all, exitpriority=0)


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
