"""The demo's traffic: repeatable, valid, and shaped like a company's month."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest

from tallybook.traffic import STORES, traffic

Event = dict[str, object]

START = datetime(2026, 10, 1, tzinfo=UTC)  # a Thursday
DAY = timedelta(days=1)
KINDS = {
    "completions",
    "decisions",
    "embeddings",
    "moderations",
    "images",
    "audio_speeches",
    "audio_transcriptions",
    "vector_stores",
    "code_interpreter_sessions",
    "file_search_calls",
    "web_search_calls",
}


@pytest.fixture(scope="module")
def month() -> list[list[Event]]:
    return list(traffic(START, START + 30 * DAY))


@pytest.fixture(scope="module")
def sample() -> list[list[Event]]:
    return list(traffic(START, START + 3 * DAY))


def flat(batches: Iterable[list[Event]]) -> list[Event]:
    return [event for batch in batches for event in batch]


def moment(event: Event) -> datetime:
    stamp = event["timestamp"]
    assert isinstance(stamp, float)
    return datetime.fromtimestamp(stamp, UTC)


def number(event: Event, name: str) -> int:
    value = event.get(name, 0)
    assert isinstance(value, int)
    return value


def test_the_same_arguments_give_the_same_events(sample: list[list[Event]]) -> None:
    assert list(traffic(START, START + 3 * DAY, seed=1)) == sample


def test_another_seed_gives_other_events(sample: list[list[Event]]) -> None:
    assert list(traffic(START, START + 3 * DAY, seed=2)) != sample


def test_every_kind_appears_and_completions_are_most(sample: list[list[Event]]) -> None:
    counts = Counter(event["kind"] for event in flat(sample))
    assert set(counts) == KINDS
    assert counts["completions"] > counts.total() / 2


def test_a_month_is_200_000_to_300_000_events(month: list[list[Event]]) -> None:
    assert 200_000 <= len(flat(month)) <= 300_000


def test_each_batch_is_one_hour_and_all_are_in_order(sample: list[list[Event]]) -> None:
    assert len(sample) == 72
    for index, batch in enumerate(sample):
        opens = START + timedelta(hours=index)
        moments = [moment(event) for event in batch]
        assert moments == sorted(moments)
        assert opens <= moments[0]
        assert moments[-1] < opens + timedelta(hours=1)


def test_a_window_that_cuts_hours_is_half_open_to_the_millisecond() -> None:
    start, end = START + timedelta(hours=8.75), START + timedelta(hours=10.25)
    batches = list(traffic(start, end))
    assert len(batches) == 3
    assert all(start <= moment(event) < end for event in flat(batches))
    assert len(batches[0]) < len(batches[1]) > len(batches[2])


@pytest.mark.parametrize("length", [timedelta(0), timedelta(microseconds=1), -timedelta(minutes=5), -DAY])
def test_a_window_without_a_millisecond_has_no_events(length: timedelta) -> None:
    start = START + timedelta(minutes=30, microseconds=1)
    assert list(traffic(start, start + length)) == []


def test_a_time_without_a_zone_is_refused() -> None:
    naive = START.replace(tzinfo=None)
    with pytest.raises(TypeError):
        next(traffic(naive, naive + DAY))


def test_ids_are_unique_within_the_month(month: list[list[Event]]) -> None:
    events = flat(month)
    assert len({event["id"] for event in events}) == len(events)


def test_parts_never_exceed_their_wholes(month: list[list[Event]]) -> None:
    for event in flat(month):
        read, written = number(event, "input_tokens"), number(event, "output_tokens")
        cached, cached_audio = (number(event, f"input_cached_{part}") for part in ("tokens", "audio_tokens"))
        cache_write = sum(number(event, f"input_cache_write_{part}tokens") for part in ("", "30m_", "12h_"))
        audio, image = number(event, "input_audio_tokens"), number(event, "input_image_tokens")
        assert cached_audio <= min(cached, audio)
        assert cached + cache_write + image + audio - cached_audio <= read
        assert number(event, "output_audio_tokens") <= written


def test_wholes_are_positive_and_every_number_counts_something(sample: list[list[Event]]) -> None:
    for event in flat(sample):
        for name in ("input_tokens", "output_tokens", "images", "characters", "seconds", "num_requests"):
            assert event.get(name, 1) != 0
        assert not any(isinstance(value, (int, float)) and value < 0 for value in event.values())


def test_weekdays_are_busier_than_weekends_by_day(month: list[list[Event]]) -> None:
    daytime = Counter(moment(event).weekday() >= 5 for event in flat(month) if 8 <= moment(event).hour < 18)
    weekends = sum((START + day * DAY).weekday() >= 5 for day in range(30))
    assert daytime[False] / (30 - weekends) > 2 * daytime[True] / weekends


def test_the_last_week_is_busier_than_the_first(month: list[list[Event]]) -> None:
    assert len(flat(month[-168:])) > 1.2 * len(flat(month[:168]))


def test_one_working_hour_is_nearly_silent(month: list[list[Event]]) -> None:
    worst = min(range(1, len(month) - 1), key=lambda hour: len(month[hour]) / len(month[hour - 1]))
    assert len(month[worst]) < 0.1 * min(len(month[worst - 1]), len(month[worst + 1]))


def test_one_agent_runs_away(month: list[list[Event]]) -> None:
    hours = Counter(
        (event["user_id"], moment(event).replace(minute=0, second=0, microsecond=0))
        for event in flat(month)
        if event.get("project_id") == "proj_coding_agent"
    )
    runaways = {user for (user, _), count in hours.items() if count > 400}
    assert len(runaways) == 1
    assert sum(count > 400 for count in hours.values()) == 5


def test_people_are_many_and_unequal(month: list[list[Event]]) -> None:
    people = Counter(event["user_id"] for event in flat(month) if "user_id" in event)
    assert 40 <= len(people) <= 80
    assert sum(count for _, count in people.most_common(6)) > people.total() / 3


def test_stores_grow_and_one_ends_with_size_0(month: list[list[Event]]) -> None:
    levels: dict[object, list[int]] = {store.id: [] for store in STORES}
    for event in flat(month):
        if event["kind"] == "vector_stores":
            levels[event["vector_store_id"]].append(number(event, "usage_bytes"))
    assert all(levels.values())
    ended = [sizes for sizes in levels.values() if 0 in sizes]
    assert len(ended) == 1
    assert ended[0].index(0) == len(ended[0]) - 1
    assert all(sizes[0] < sizes[-1] for sizes in levels.values() if sizes[-1])
