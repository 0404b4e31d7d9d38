"""What is rolled up, what is not yet, and what is remembered: any order of commits, folds and restarts, one answer."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallybook.ingest import decode
from tallybook.kinds import KINDS
from tallybook.query import Query
from tallybook.store.duckdb import DuckStore
from tallybook.store.identities import RecentIdentities
from tallybook.store.protocol import Batch, Outcome
from tallybook.timegrid import DAY_S, HOUR_S, MINUTE_S

DAY = 20_454 * DAY_S
NOW_MS = (DAY + 4 * DAY_S) * 1000
MEMORY = 256 * 1024 * 1024
KIND = KINDS["completions"]
GROUPS = ("project_id", "user_id", "model", "batch")

Event = dict[str, Any]
Answer = dict[tuple[Any, ...], tuple[int, ...]]


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Few values of each dimension and few instants, so that cells have company and edges are met."""
    instant_ms = (
        DAY * 1000 + draw(st.integers(0, 3 * 24 * 4)) * 900_000 + draw(st.sampled_from([0, 1, 59_999, 899_999]))
    )
    event: Event = {
        "kind": "completions",
        "id": draw(st.sampled_from("abcdefgh")),
        "timestamp": instant_ms / 1000,
        "input_tokens": draw(st.integers(0, 100) | st.just(2**50)),
        "output_tokens": draw(st.integers(0, 9)),
        "project_id": draw(st.sampled_from([None, "p1", "p2"])),
        "user_id": draw(st.sampled_from([None, "u1", "u2"])),
        "model": draw(st.sampled_from(["m1", "m2"])),
        "batch": draw(st.booleans()),
    }
    if draw(st.booleans()):
        event["input_text_tokens"] = event["input_tokens"] // 2
    return event


steps = st.lists(
    st.lists(events(), min_size=1, max_size=12) | st.sampled_from(["fold", "compact", "reopen", "rebuild"]), max_size=12
)
questions = st.builds(
    lambda start, length, width, groups, user: Query(
        "org-a",
        DAY + start * MINUTE_S,
        DAY + start * MINUTE_S + length,
        width,
        NOW_MS // 1000,
        tuple(name for name in GROUPS if name in groups),
        {"user_id": ("u1",)} if user else {},
    ),
    st.integers(-60, 3 * 1440),
    st.integers(1, 3 * DAY_S),
    st.sampled_from([MINUTE_S, HOUR_S, DAY_S]),
    st.sets(st.sampled_from(GROUPS)),
    st.booleans(),
)


def body(found: list[Event]) -> bytes:
    return "\n".join(json.dumps(event) for event in found).encode()


def post(store: DuckStore, found: list[Event], columns_min: int = 1) -> Outcome:
    with mock.patch.object(decode, "COLUMNS_MIN", columns_min):
        decoded = decode.decode(body(found), NOW_MS, 1000)
    (outcome,) = store.append([Batch("org-a", decoded.records, columns=decoded.columns)])
    return outcome


def expected(kept: list[Event], query: Query) -> Answer:
    """The answer, from nothing but the events."""
    sums: dict[tuple[Any, ...], Counter[str]] = {}
    for event in kept:
        instant_s = event["timestamp"]
        if not query.start_s <= instant_s < query.end_s:
            continue
        if "user_id" in query.filters and event["user_id"] not in query.filters["user_id"]:
            continue
        start_s = max(query.start_s, int(instant_s) // query.width_s * query.width_s)
        text = event.get("input_text_tokens", event["input_tokens"])
        sums.setdefault((start_s, *(event[name] for name in query.group_by)), Counter()).update(
            {
                "input_tokens": event["input_tokens"],
                "input_uncached_tokens": event["input_tokens"],
                "input_text_tokens": text,
                "output_tokens": event["output_tokens"],
                "output_text_tokens": event["output_tokens"],
                "num_model_requests": 1,
            }
        )
    return {key: tuple(counts[name] for name in KIND.measures) for key, counts in sums.items()}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=steps, asked=st.lists(questions, min_size=1, max_size=3), columns_min=st.sampled_from([1, 1000]))
def test_answers_do_not_depend_on_what_is_rolled_up(
    steps: list[list[Event] | str], asked: list[Query], columns_min: int
) -> None:
    kept: dict[tuple[str, float], Event] = {}
    with TemporaryDirectory() as place:
        store = DuckStore(Path(place), MEMORY)
        for step in steps:
            if isinstance(step, list):
                outcome = post(store, step, columns_min)
                new: dict[tuple[str, float], Event] = {}
                for event in step:
                    identity = (event["id"], event["timestamp"])
                    if identity not in kept:
                        new.setdefault(identity, event)
                kept |= new
                assert outcome.accepted.total() == len(new)
                assert outcome.duplicates.total() + len(outcome.conflicts) == len(step) - len(new)
            elif step == "fold":
                store.fold()
            elif step == "compact":
                store.compact(1, merges_max=100)
            elif step == "rebuild":
                store.rebuild(DAY, DAY + 3 * DAY_S, None)
            else:
                store.close()
                store = DuckStore(Path(place), MEMORY)
            for query in asked:
                rows = store.usage(KIND, query)
                assert {(row.start_s, *row.group): row.measures for row in rows} == expected(list(kept.values()), query)
        assert store.check(None) == []
        store.fold()
        assert store.check(None) == []
        store.close()


def event(number: int, minute: int = 0) -> Event:
    return {
        "kind": "completions",
        "id": str(number),
        "timestamp": DAY + minute * MINUTE_S,
        "input_tokens": 1,
        "model": "m1",
    }


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckStore]:
    opened = DuckStore(tmp_path, MEMORY)
    yield opened
    opened.close()


def test_a_fold_counts_what_was_new_and_then_nothing(store: DuckStore) -> None:
    post(store, [event(1), event(2)])
    post(store, [event(3)])
    assert [store.fold(), store.fold()] == [3, 0]
    post(store, [event(3)])  # a duplicate is nothing new
    assert store.fold() == 0


def test_what_was_left_at_a_crash_is_folded_after_the_restart(tmp_path: Path) -> None:
    left = DuckStore(tmp_path, MEMORY)
    post(left, [event(1), event(2)])
    left._connections.abandon()
    opened = DuckStore(tmp_path, MEMORY)
    assert opened.fold() == 2
    assert opened.check(None) == []
    opened.close()


@pytest.mark.parametrize("known_max", [0, 3, 1000])
def test_a_repeat_is_found_however_little_is_remembered(
    store: DuckStore, monkeypatch: pytest.MonkeyPatch, known_max: int
) -> None:
    monkeypatch.setattr(store._appending, "_recent", RecentIdentities(0, known_max))
    sent = [event(number, minute=number) for number in range(20)]
    for first in range(0, 20, 2):
        assert post(store, sent[first : first + 2]).accepted.total() == 2
    assert post(store, sent).duplicates.total() == 20
    assert post(store, [*sent[5:8], event(20, minute=3)]).accepted.total() == 1
    assert post(store, [event(20, minute=3)]).duplicates.total() == 1


def test_new_events_are_not_searched_for(store: DuckStore) -> None:
    """What is later than all before, or of the minutes remembered, needs no look into the store."""
    post(store, [event(1)])
    recent = store._appending._recent
    minute = np.array([DAY * 1000], np.int64)
    assert recent.are_new([1, 2], np.repeat(minute, 2))
    assert not recent.are_new([1, 1], np.repeat(minute, 2))
    recent.add([1], minute)
    assert not recent.are_new([1], minute)
    assert not RecentIdentities(DAY * 1000).are_new([1], minute)
    assert RecentIdentities(DAY * 1000).are_new([1], minute + 60_000)


def test_what_follows_the_window_and_is_not_rolled_up_is_not_counted(store: DuckStore) -> None:
    """The last bucket is read whole where nothing follows in the rollups; but something may follow among the rest."""
    post(store, [event(1, minute=9), event(2, minute=20)])
    start_s = DAY + 5 * MINUTE_S
    query = Query("org-a", start_s, DAY + 10 * MINUTE_S, HOUR_S, NOW_MS // 1000)
    assert [row.measures[-1] for row in store.usage(KIND, query)] == [1]
    store.fold()
    assert [row.measures[-1] for row in store.usage(KIND, query)] == [1]
