"""A store that was filled with events: what it was filled with, and how to leave it as it is."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from benchmarks.ingest import EVENTS_IN_BODY, Inserted, insert_again
from tallybook.store.duckdb import FILE_NAME


class Filled(msgspec.Struct, frozen=True):
    """What a store was filled with.

    Attributes:
        events: how many, all acknowledged.
        end_s: end of their window, Unix seconds; the store's "now".
        per_s: how many were acknowledged in a second.
        fresh_ms: p50 and p99 of a page right afterwards.
        settled_ms: its p50 when background work was done.
    """

    events: int
    end_s: int
    per_s: float
    fresh_ms: tuple[float, float]
    settled_ms: float


@dataclass(frozen=True)
class Store:
    """A filled data directory without a server."""

    data: Path
    filled: Filled
    place: Path
    """Where other files may be put."""
    is_kept: bool

    @property
    def file(self) -> Path:
        """The store's file."""
        return self.data / FILE_NAME

    @cached_property
    def inserted_again(self) -> Inserted:
        """The reference of all that is about its rows."""
        return insert_again(self.file, self.place / "raw.duckdb", EVENTS_IN_BODY)

    @contextmanager
    def to_write(self) -> Iterator[Path]:
        """A directory with the store's content that may be changed: a copy if the store is to be kept as it is."""
        if not self.is_kept:
            yield self.data
            return
        copy = self.place / "copy"
        shutil.copytree(self.data, copy)
        try:
            yield copy
        finally:
            shutil.rmtree(copy)
