"""The app: the parts put together, and what goes on in it beside requests."""

import asyncio
import ctypes
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final

import structlog
from anyio import CapacityLimiter, to_thread

from tallybook.api import Api
from tallybook.attempts import Attempts
from tallybook.clock import Steadiness, now_ms, now_s
from tallybook.config import Settings
from tallybook.errors import CommandFailed, NotReady, RequestError
from tallybook.ingest.notices import Notices
from tallybook.ingest.writer import Writer
from tallybook.keys import KeyStore
from tallybook.lock import is_backed_up
from tallybook.metrics import Metrics
from tallybook.mistakes import Mistakes
from tallybook.prices.current import CurrentPrices
from tallybook.routes import (
    costs,
    dashboard,
    events,
    exports,
    maintain,
    operate,
    otlp,
    quarantine,
    reconciliation,
    session,
    usage,
)
from tallybook.routes import keys as keys_routes
from tallybook.routes.context import Context, Incoming
from tallybook.sources.record import Options
from tallybook.store.duckdb import DuckStore
from tallybook.store.protocol import Keep

_ROWS_FOR_CELL_MAX: Final = 1.25
"""Rollup rows for each cell of a day from which on merging them pays."""
_DECODES_MAX: Final = 4
"""Large bodies decoded at once: more would only take turns, each holding its memory."""
_MERGES_MAX: Final = 8
"""Days of a rollup merged at once: a second or so of work, for which a stop may have to wait."""
_FOLD_EVERY_S: Final = 1
"""Seconds of events that pages read one by one, beside the rollups."""
_COMPACT_BREATH_S: Final = 1
_EXPIRE_EVERY_S: Final = 60
_EXPIRE_BREATH_S: Final = 0.2
"""Between deleting a day and deleting the next, which commits and compaction take their turns in."""
_CLOCK_JUMP_S: Final = 3_600
_CLOCK_TRUSTED_S: Final = 86_400
"""After a jump of the clock nothing is deleted for a day: time to notice that it is wrong."""
_EXPORTS_MAX: Final = 2
_RECONCILE_EVERY_S: Final = 600
"""What is recorded late moves the difference; what is read of a provider is compared at once."""
_LOOK_AT_PRICES_S: Final = 5
_GIVE_BACK_EVERY_S: Final = 20
_LOOK_AT_BACKUP_S: Final = 1
_KEEP_NOTICES_EVERY_S: Final = 5
_ROUTES: Final = (
    *usage.routes,
    *costs.routes,
    *exports.routes,
    *reconciliation.routes,
    *events.routes,
    *otlp.routes,
    *quarantine.routes,
    *maintain.routes,
    *keys_routes.routes,
    *operate.routes,
    *session.routes,
    *dashboard.routes,
)

_log = structlog.get_logger()


@contextmanager
def opened(settings: Settings) -> Iterator[Api]:
    """Open a data directory that belongs to this process alone, and yield the API over it.

    When the caller is done, however that comes about, what waits is written and the store is closed.

    Args:
        settings: as given by the operator; the directory exists.

    Raises:
        StoreUnusable: the store or the keys cannot be opened.
    """
    metrics = Metrics()
    # What is read from now on is handled after what is called soon.
    keys = KeyStore(settings.data, lambda call: asyncio.get_running_loop().call_soon(call))
    prices = CurrentPrices(settings.data, settings.price_file, list_prices=settings.list_prices)
    store = DuckStore(settings.data, settings.memory_bytes_max)
    store.use(prices.book, now_ms())
    with suppress(NotReady):  # else with the first commit
        store.append([])  # so that it holds before the first event comes
    metrics.store_bytes.set_function(store.size_bytes)
    incoming = Incoming(settings.queue_bytes_max)
    metrics.incoming_bytes.set_function(lambda: incoming.bytes)
    writer = Writer(store, settings.queue_bytes_max, settings.queue_s_max, metrics)
    metrics.ready.set_function(lambda: writer.trouble is None)
    notices = Notices(store.note, metrics)
    writer.start()
    try:
        yield Api(
            _ROUTES,
            Context(
                settings=settings,
                store=store,
                keys=keys,
                attempts=Attempts(settings.wrong_keys_max),
                mistakes=Mistakes(metrics),
                incoming=incoming,
                writer=writer,
                metrics=metrics,
                queries=CapacityLimiter(settings.queries_max),
                decodes=CapacityLimiter(_DECODES_MAX),
                scans=CapacityLimiter(1),
                exports=CapacityLimiter(_EXPORTS_MAX),
                prices=prices,
                options=_options(settings),
                notices=notices,
            ),
            _lifespan,
        )
    finally:
        writer.stop()
        try:
            notices.flush()
        except Exception:  # what is lost are a few seconds of counts
            _log.exception("notices of the last seconds not stored")
        store.close()
        keys.close()


def _options(settings: Settings) -> Options:
    """Return what the operator says of sources."""
    attributes = {
        "project_id": settings.otlp_project_attributes,
        "user_id": settings.otlp_user_attributes,
        "api_key_id": settings.otlp_key_attributes,
    }
    named = {
        field: tuple(name.strip() for name in names.split(",") if name.strip()) for field, names in attributes.items()
    }
    return Options(takes_costs=settings.reported_costs, attributes=named)


@asynccontextmanager
async def _lifespan(api: Api) -> AsyncIterator[None]:
    chores = [
        asyncio.create_task(chore(api.context))
        for chore in (
            _fold_now_and_then,
            _compact_now_and_then,
            _expire_now_and_then,
            _reconcile_now_and_then,
            _watch_prices,
            _let_go,
            _keep_notices,
            _give_back_memory,
        )
    ]
    yield
    for chore in chores:
        chore.cancel()
        with suppress(asyncio.CancelledError):
            await chore


async def _watch_prices(context: Context) -> None:
    """Take price files into force when they change; what has a fault is told, once, and the book in force stays."""
    while True:
        await asyncio.sleep(_LOOK_AT_PRICES_S)
        if not context.prices.is_stale:
            continue
        try:
            if await to_thread.run_sync(context.prices.reload):
                await costs.adopt(context)
                _log.info("prices changed", book_id=context.prices.book.book_id)
        except RequestError:  # a full queue, or the end
            _log.warning("prices changed, but are not in force yet")
        except CommandFailed as error:
            _log.error("prices refused; those in force stay", problem=str(error))
        except Exception:
            _log.exception("prices not read; those in force stay")
        context.metrics.price_files_refused.set(context.prices.problem is not None)


async def _let_go(context: Context) -> None:
    """Let the store's main file be written again once no backup is made of it, however that has ended."""
    while True:
        await asyncio.sleep(_LOOK_AT_BACKUP_S)
        if not context.store.is_held or await to_thread.run_sync(is_backed_up, context.settings.data):
            continue
        try:
            await to_thread.run_sync(context.store.release)
        except Exception:
            _log.exception("the store's file is still held for a backup that has ended")


async def _keep_notices(context: Context) -> None:
    """Put what was noticed of senders into the store."""
    while True:
        await asyncio.sleep(_KEEP_NOTICES_EVERY_S)
        try:
            await to_thread.run_sync(context.notices.flush)
        except Exception:
            if not context.writer.trouble:  # what that is has been logged
                _log.exception("notices not stored; they wait")


async def _give_back_memory(_: Context) -> None:
    """Give free memory back to the system: glibc keeps a heap for each thread, and one has no use for another's."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):  # another C library
        return
    while True:
        await asyncio.sleep(_GIVE_BACK_EVERY_S)
        await to_thread.run_sync(trim, 0)


async def _reconcile_now_and_then(context: Context) -> None:
    """Keep the metrics of reconciliation as they are now, beginning with the start."""

    def judge_all() -> None:
        for organization_id, provider in context.store.books():
            reconciliation.judge(context, organization_id, provider, now_s())

    while True:
        try:
            await to_thread.run_sync(judge_all)
        except Exception:
            if not context.writer.trouble:  # what that is has been logged
                _log.exception("reconciliation failed; its metrics are as of before")
        await asyncio.sleep(_RECONCILE_EVERY_S)


async def _fold_now_and_then(context: Context) -> None:
    while True:
        await asyncio.sleep(_FOLD_EVERY_S)
        if context.writer.trouble:
            continue
        try:
            with context.metrics.fold_s.time():
                await to_thread.run_sync(context.store.fold)
        except Exception:
            if not context.writer.trouble:  # what that is has been logged
                _log.exception("folding failed; answers read the events themselves")


async def _compact_now_and_then(context: Context) -> None:
    saved = 0
    while context.settings.compact_every_s:
        # Where there was much to do there may be more; a breath between keeps it in the background.
        await asyncio.sleep(_COMPACT_BREATH_S if saved else context.settings.compact_every_s)
        if context.writer.trouble:
            continue
        try:
            saved = await to_thread.run_sync(context.store.compact, _ROWS_FOR_CELL_MAX, _MERGES_MAX)
        except Exception:
            saved = 0
            if not context.writer.trouble:
                _log.exception("compaction failed")
        else:
            context.metrics.compacted_rows.inc(saved)
            if saved:
                _log.info("compacted", rows_saved=saved)


async def _expire_now_and_then(context: Context) -> None:
    """Delete what is beyond its age: soon after the start, and whenever a day has passed."""
    settings = context.settings
    keep = Keep(settings.keep_events_days, settings.keep_minutes_days, settings.keep_hours_days)
    clock = Steadiness(_CLOCK_JUMP_S, _CLOCK_TRUSTED_S)
    while any(keep):
        deleted = None
        try:
            if clock.is_given() and not context.writer.trouble:
                deleted = await to_thread.run_sync(context.store.expire, keep, now_s())
        except Exception:
            _log.exception("deleting what is too old failed")
        if deleted:
            context.metrics.expired_rows.inc(deleted)
            _log.info("expired", rows=deleted)
        await asyncio.sleep(_EXPIRE_EVERY_S if deleted is None else _EXPIRE_BREATH_S)
