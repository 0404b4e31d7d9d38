"""What goes by in a response that its receiver reads piece by piece, seen without keeping a byte of it back or waiting.

The receiver gets the same bytes at the same moment; only an event that it did not ask for can be left out. Whatever
goes wrong here, the bytes go on.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, Callable

log = logging.getLogger("tallybook.client")

_TELLING = re.compile(rb'"(?:usage"\s*:\s*\{|type"\s*:\s*"response\.created")')
"""Every event of a stream may have a usage; all but one or two have none, and are not looked at, but for the one that
names an answer which is made in the background."""
_HELD_BYTES_MAX = 64 * 1024 * 1024
"""The longest line, or body, that is looked at: more than the largest image has."""


class Watch:
    """Looks at a body.

    Args:
        see: gets the data of each event of a stream that tells a usage, or begins an answer; says whether the receiver
            is to get it, too.
        end: is called once, at the end or when nobody reads on, with the body unless it is a stream of events.
        is_stream: it is a stream of events.
        may_hide: events may be left out.
    """

    def __init__(
        self, see: Callable[[bytes], bool], end: Callable[[bytes], None], *, is_stream: bool, may_hide: bool
    ) -> None:
        self._see = see
        self._end = end
        self._is_stream = is_stream
        self._may_hide = may_hide
        self._is_over = self._is_reading = self._is_blind = False
        self._parts: list[bytes] = []
        self._carriage_return = b""
        """The last byte, if it is one: the other half of a line's end may follow."""
        self._held_bytes = 0
        self._event: list[bytes] = []
        self._is_hidden = False

    def attach(self, response: Any) -> None:
        """Look at what is read of a response from now on: httpx's, of either generation."""
        take, take_async = response.iter_bytes, response.aiter_bytes
        close, close_async = response.close, response.aclose

        def iter_bytes(*args: Any, **kwargs: Any) -> Iterator[bytes]:
            return self._passed(take(*args, **kwargs))

        def aiter_bytes(*args: Any, **kwargs: Any) -> AsyncIterator[bytes]:
            return self._passed_async(take_async(*args, **kwargs))

        def close_watched() -> None:
            close()
            self._over_unless_reading()

        async def close_watched_async() -> None:
            await close_async()
            self._over_unless_reading()

        response.iter_bytes, response.aiter_bytes = iter_bytes, aiter_bytes
        response.close, response.aclose = close_watched, close_watched_async

    def _passed(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        try:
            while True:
                self._is_reading = True
                try:
                    chunk = next(chunks)
                except StopIteration:
                    break
                finally:
                    self._is_reading = False
                if passed := self._look(chunk):
                    yield passed
            if rest := self._rest():
                yield rest
        finally:
            self._over()

    async def _passed_async(self, chunks: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                self._is_reading = True
                try:
                    chunk = await chunks.__anext__()
                except StopAsyncIteration:
                    break
                finally:
                    self._is_reading = False
                if passed := self._look(chunk):
                    yield passed
            if rest := self._rest():
                yield rest
        finally:
            self._over()
            if hasattr(chunks, "aclose"):
                await chunks.aclose()

    def _look(self, chunk: bytes) -> bytes:
        """Return what the receiver is to get now."""
        if self._is_over or self._is_blind:
            return chunk
        self._held_bytes += len(chunk)
        if self._held_bytes > _HELD_BYTES_MAX:
            self._is_blind = True
            return self._rest() + chunk if self._may_hide else chunk
        if not self._is_stream:
            self._parts.append(chunk)
            return chunk
        looked_at = self._carriage_return + chunk
        self._carriage_return = b"\r" if looked_at.endswith(b"\r") else b""
        looked_at = looked_at.removesuffix(b"\r")
        end = max(looked_at.rfind(b"\n"), looked_at.rfind(b"\r")) + 1
        if not end:
            self._parts.append(looked_at)
            return b"" if self._may_hide else chunk
        lines = b"".join((*self._parts, looked_at[:end]))
        self._parts = [looked_at[end:]]
        self._held_bytes = len(looked_at) - end
        if self._may_hide:
            return self._without_hidden(lines)
        if _TELLING.search(lines):
            for line in lines.splitlines():
                self._is_shown(line)
        return chunk

    def _without_hidden(self, lines: bytes) -> bytes:
        """Return the events that are whole and not to be left out."""
        shown: list[bytes] = []
        for line in lines.splitlines(keepends=True):
            self._event.append(line)
            if line.strip(b"\r\n"):
                self._is_hidden = not self._is_shown(line) or self._is_hidden
                continue
            if not self._is_hidden:
                shown += self._event
            self._event = []
            self._is_hidden = False
        return b"".join(shown)

    def _is_shown(self, line: bytes) -> bool:
        if not line.startswith(b"data:") or not _TELLING.search(line):
            return True
        try:
            return self._see(line[5:])
        except Exception:  # what came is no affair of who reads it
            log.debug("an event of a stream was not understood", exc_info=True)
            return True

    def _rest(self) -> bytes:
        """Return what was held back, once nothing follows."""
        if not self._may_hide or not self._is_stream:
            return b""
        rest = b"".join((*self._parts, self._carriage_return))
        self._parts = []
        self._carriage_return = b""
        if rest and not self._is_blind:
            self._is_hidden = not self._is_shown(rest) or self._is_hidden
        held = b"" if self._is_hidden else b"".join((*self._event, rest))
        self._event = []
        return held

    def _over_unless_reading(self) -> None:
        # Whoever reads to the end has the response closed before the last bytes are unpacked.
        if not self._is_reading:
            self._over()

    def _over(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        try:
            self._end(b"" if self._is_stream or self._is_blind else b"".join(self._parts))
        except Exception:
            log.debug("the end of a response was not understood", exc_info=True)
        self._parts = []
