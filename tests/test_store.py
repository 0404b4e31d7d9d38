"""The embedded store: compaction, rebuilding, checking, series, migrations, damage."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from tallybook.errors import StoreUnusable
from tallybook.ingest.decode import decode
from tallybook.kinds import KINDS
from tallybook.query import Query
from tallybook.store import series
from tallybook.store.duckdb import FILE_NAME, DuckStore
from tallybook.store.protocol import Batch, Outcome, UsageRow

DAY = 1_767_225_600  # 2026-01-01
NOW_MS = (DAY + 40 * 86_400) * 1000
MEMORY = 512 * 1024 * 1024


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckStore]:
    opened = DuckStore(tmp_path, MEMORY)
    yield opened
    opened.close()


def post(store: DuckStore, *events: str, organization: str = "org-a") -> Outcome:
    """Commit events and fold them, so that each commit leaves rows of its own in the rollups."""
    decoded = decode("\n".join(events).encode(), NOW_MS, 10_000)
    (outcome,) = store.append([Batch(organization, decoded.records, columns=decoded.columns)])
    store.fold()
    return outcome


def image(number: int, *, user: str = "u1", images: int = 1) -> str:
    """The event of one image; two of them fall into an hour."""
    return (
        f'{{"kind": "images", "id": "{number}", "timestamp": {DAY + number * 1800}, "user_id": "{user}", '
        f'"images": {images}}}'
    )


def question(width_s: int = 86_400, organization: str = "org-a") -> Query:
    end_s = DAY + 3 * 86_400
    return Query(organization, DAY, end_s, width_s, end_s, ("user_id",))


def rows(store: DuckStore) -> dict[int, list[UsageRow]]:
    return {width_s: store.usage(KINDS["images"], question(width_s)) for width_s in (60, 3_600, 86_400)}


def break_rollups(store: DuckStore) -> None:
    """What a fault of ours would do: change a rollup behind the writer's back."""
    store._writer.execute("UPDATE usage_days SET images = images + 1")


def test_many_small_commits_compact_to_one_row_a_cell_and_answer_the_same(store: DuckStore) -> None:
    for number in range(20):
        post(store, image(number, user=f"u{number % 2}"))
    before = rows(store)
    # 20 rows in each rollup. Cells: days 2 by user, 1 by project; hours 20 by user, 10 by project; minutes 20
    assert store.compact(1, merges_max=100) == 18 + 19 + 0 + 10 + 0
    assert store.compact(1, merges_max=100) == 0
    assert rows(store) == before
    assert store.check(None) == []


def test_a_day_with_little_surplus_waits_until_it_has_more(store: DuckStore) -> None:
    for number in range(4):
        post(store, image(number))
    # Each by user and by project: 4 rows for the one day, 4 rows for two hours
    assert store.compact(3, merges_max=100) == 3 + 3
    assert store.compact(3, merges_max=100) == 0
    assert store.compact(1, merges_max=100) == 2 + 2


def test_compaction_takes_the_worst_first_and_no_more_than_asked(store: DuckStore) -> None:
    for number in range(6):
        post(store, image(number))
    # First the two rollups of days, then the two of hours
    assert [store.compact(1, merges_max=1) for _ in range(5)] == [5, 5, 3, 3, 0]


def test_a_day_untouched_since_the_last_look_is_not_looked_at(store: DuckStore) -> None:
    post(store, image(1))
    store.compact(1, merges_max=100)
    post(store, image(100))
    post(store, image(100, user="u2"))
    assert store._touched_days == {DAY + 2 * 86_400}
    store.compact(1, merges_max=100)
    assert store._touched_days == set()


def test_a_late_event_after_compaction_is_in_the_next_answer(store: DuckStore) -> None:
    post(store, image(1))
    post(store, image(2))
    store.compact(1, merges_max=100)
    post(store, image(3))
    assert sum(row.measures[0] for row in store.usage(KINDS["images"], question())) == 3


def test_check_names_what_differs_and_rebuild_mends_it(store: DuckStore) -> None:
    post(store, image(1))
    good = rows(store)
    break_rollups(store)
    (difference,) = store.check("org-a")
    assert difference == ("usage_days", DAY, "images", "images", 2, 1)
    assert store.check("org-b") == []
    assert store.rebuild(DAY + 5, DAY + 6, "org-a") == 1
    assert store.check(None) == []
    assert rows(store) == good


def test_check_sees_a_sum_under_the_wrong_series_and_in_the_wrong_hour(store: DuckStore) -> None:
    post(store, image(1, user="u1"))
    post(store, image(2, user="u2"))
    store._writer.execute("UPDATE usage_days SET images = series_id - 1")  # 0 and 2 instead of 1 and 1
    store._writer.execute("UPDATE usage_hours SET start = start + INTERVAL 1 HOUR WHERE series_id = 1")
    found = {(difference.rollup, difference.measure) for difference in store.check(None)}
    assert found == {("usage_days", "images"), ("usage_hours", "images"), ("usage_hours", "num_model_requests")}
    store.rebuild(DAY, DAY + 1, None)
    assert store.check(None) == []


def test_rebuild_of_one_organization_leaves_the_others_alone(store: DuckStore) -> None:
    post(store, image(1))
    post(store, image(1), organization="org-b")
    break_rollups(store)
    store.rebuild(0, DAY * 2, "org-b")
    assert [difference.rolled_up for difference in store.check("org-a")] == [2]
    assert store.check("org-b") == []


def test_a_series_is_found_again_after_the_memory_of_it_is_gone(
    store: DuckStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series, "KNOWN_MAX", 3)
    for _ in range(3):
        for number in range(10):
            post(store, image(number, user=f"u{number}"))
    assert store.facts(None).series == 10
    assert store.facts(None).events == 10


def test_a_series_is_found_again_after_a_restart(tmp_path: Path) -> None:
    for number in range(3):
        opened = DuckStore(tmp_path, MEMORY)
        post(opened, image(number))
        opened.close()
    opened = DuckStore(tmp_path, MEMORY)
    assert opened.facts(None).series == 1
    assert opened.facts(None).events == 3
    opened.close()


def test_a_failed_commit_leaves_nothing_behind(store: DuckStore) -> None:
    good = decode(image(1).encode(), NOW_MS, 10).records
    impossible = good[0]._replace(measures=(2**70, 1), id="2", identity=None)
    with pytest.raises(OverflowError):
        store.append([Batch("org-a", [*good, impossible])])
    assert store.facts(None).events == store.facts(None).series == 0
    assert post(store, image(1)).accepted.total() == 1
    assert store.check(None) == []


def test_sums_beyond_64_bits_are_exact(store: DuckStore) -> None:
    largest = 2**53 - 1
    events = [
        f'{{"kind": "images", "id": "{number}", "timestamp": {DAY}, "images": {largest}}}' for number in range(2000)
    ]
    post(store, *events)
    total = [row.measures[0] for row in store.usage(KINDS["images"], question())]
    assert total == [2000 * largest]
    store.compact(1, merges_max=100)
    store.rebuild(DAY, DAY + 1, None)
    assert [row.measures[0] for row in store.usage(KINDS["images"], question())] == total
    assert store.check(None) == []


def test_a_slow_reader_does_not_keep_the_log_from_being_written(store: DuckStore, tmp_path: Path) -> None:
    """An export lasts as long as its client likes."""
    with store._snapshot() as reader:
        assert reader("SELECT count(*) FROM events", {}) == [(0,)]
        for number in range(20):
            post(store, image(number))
            store.fold()
        store._checkpoint()
        log = tmp_path / f"{FILE_NAME}.wal"
        assert not log.exists() or log.stat().st_size < 1000
        assert reader("SELECT count(*) FROM events", {}) == [(0,)]
    assert store.check(None) == []


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    DuckStore(tmp_path, MEMORY).close()
    with duckdb.connect(str(tmp_path / FILE_NAME)) as connection:
        connection.execute("INSERT INTO schema_version VALUES (99, 0)")
    with pytest.raises(StoreUnusable, match="version 99"):
        DuckStore(tmp_path, MEMORY)


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no store" * 1000)
    with pytest.raises(StoreUnusable, match=FILE_NAME):
        DuckStore(tmp_path, MEMORY)
