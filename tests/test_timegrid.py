"""Buckets and the cells that answer them: exact on every edge."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.store.plan import Segment, cover
from tallybook.store.protocol import Kept
from tallybook.store.rollups import ROLLUPS, able
from tallybook.timegrid import DAY_S, HOUR_S, MINUTE_S, WIDTHS, buckets, floor_s

DAY = 20_000 * DAY_S
instants = st.integers(0, 40 * DAY_S).map(lambda offset: DAY + offset)
widths = st.sampled_from([MINUTE_S, HOUR_S, DAY_S])
wanted = st.sets(st.sampled_from(["project_id", "user_id", "model"]))


def test_first_bucket_begins_where_the_window_does_and_the_last_ends_there() -> None:
    assert buckets(1736616660, 1736640000 + DAY_S + 5, DAY_S, 31) == [
        (1736616660, 1736640000),
        (1736640000, 1736640000 + DAY_S),
        (1736640000 + DAY_S, 1736640000 + DAY_S + 5),
    ]


def test_no_more_buckets_than_asked_for() -> None:
    assert buckets(DAY, DAY + 100 * DAY_S, DAY_S, 2) == [(DAY, DAY + DAY_S), (DAY + DAY_S, DAY + 2 * DAY_S)]


def test_an_empty_window_has_no_bucket() -> None:
    assert buckets(DAY, DAY, DAY_S, 2) == []


@given(instants, st.integers(1, 3 * DAY_S), widths)
def test_buckets_cover_the_window_once_and_lie_on_the_grid(start_s: int, length_s: int, width_s: int) -> None:
    found = buckets(start_s, start_s + length_s, width_s, 10_000)
    assert found[0][0] == start_s
    assert found[-1][1] == start_s + length_s
    assert all(before[1] == after[0] and after[0] % width_s == 0 for before, after in pairwise(found))


@given(instants, st.integers(0, 40 * DAY_S), widths, wanted)
def test_segments_cover_the_window_once(start_s: int, length_s: int, width_s: int, names: set[str]) -> None:
    segments = sorted(
        cover(start_s, start_s + length_s, able(names, width_s), Kept()), key=lambda segment: segment.start_s
    )
    assert sum(segment.end_s - segment.start_s for segment in segments) == length_s
    assert all(before.end_s == after.start_s for before, after in pairwise(segments))
    assert all(segment.start_s < segment.end_s for segment in segments)


@given(instants, st.integers(0, 40 * DAY_S), widths, wanted)
def test_a_cell_lies_within_its_segment_and_within_one_bucket(
    start_s: int, length_s: int, width_s: int, names: set[str]
) -> None:
    cells_s = {"facts": 1} | {rollup.table: rollup.cell_s for rollup in ROLLUPS}
    for segment in cover(start_s, start_s + length_s, able(names, width_s), Kept()):
        cell_s = cells_s[segment.table]
        assert cell_s == 1 or cell_s <= width_s
        assert segment.start_s % cell_s == segment.end_s % cell_s == 0


@given(instants, st.integers(0, 40 * DAY_S))
def test_no_more_than_two_hours_of_a_daily_question_are_read_from_events(start_s: int, length_s: int) -> None:
    segments = cover(start_s, start_s + length_s, able({"user_id"}, DAY_S), Kept())
    assert sum(segment.end_s - segment.start_s for segment in segments if segment.table == "facts") < 2 * HOUR_S


@pytest.mark.parametrize(
    ("names", "width_s", "table"),
    [
        (set(), DAY_S, "project_days"),
        ({"project_id", "model"}, DAY_S, "project_days"),
        ({"project_id", "user_id"}, DAY_S, "usage_days"),
        ({"vector_store_id"}, HOUR_S, "usage_hours"),
        ({"model"}, HOUR_S, "project_hours"),
        ({"model", "batch"}, MINUTE_S, "organization_minutes"),
        ({"project_id"}, MINUTE_S, "facts"),
    ],
)
def test_whole_buckets_are_read_from_the_smallest_table_that_knows_them(
    names: set[str], width_s: int, table: str
) -> None:
    assert cover(DAY, DAY + DAY_S, able(names, width_s), Kept()) == [Segment(table, DAY, DAY + DAY_S)]


@pytest.mark.parametrize(("name", "default", "most"), [("1m", 60, 1440), ("1h", 24, 168), ("1d", 7, 31)])
def test_limits_are_those_of_the_reference(name: str, default: int, most: int) -> None:
    assert (WIDTHS[name].limit_default, WIDTHS[name].limit_max) == (default, most)


def test_floor_is_the_edge_at_or_before() -> None:
    assert [floor_s(instant, 60) for instant in (119, 120, 121)] == [60, 120, 120]
