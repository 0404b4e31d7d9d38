"""Calls that several reports name: each counts once, whoever reports it, in whatever order, and when."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallybook.event import Record
from tallybook.ingest.decode import records_of
from tallybook.kinds import KINDS
from tallybook.query import Query
from tallybook.store.calls import KnownCalls, digests
from tallybook.store.duckdb import DuckStore
from tallybook.store.protocol import Batch, Keep, Outcome
from tallybook.timegrid import ALL_S

DAY = 1_767_225_600  # 2026-01-01
DAYS = 40
NOW_MS = (DAY + DAYS * 86_400) * 1000
MEMORY = 512 * 1024 * 1024
ORGANIZATION = "org-a"
COUNTS = ("num_model_requests", "input_tokens", "output_tokens")


class Report(NamedTuple):
    """A report of a call, as a source sends it."""

    id: str | None
    at_s: float | None = DAY + 100
    input: int = 10
    output: int = 2
    user: str | None = None
    kind: str = "completions"


WHOLE = [Report("msg_a1", input=20)]
TURNS = [Report("msg_a1#turn-1", output=1), Report("msg_a1#turn-2", output=1), Report("msg_a1#compaction-1", DAY, 5, 0)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckStore]:
    opened = DuckStore(tmp_path, MEMORY)
    opened.fold()  # which takes in what is stored, as a server does in its first second
    yield opened
    opened.close()


def records(reports: Sequence[Report]) -> list[Record]:
    events = [
        {"kind": each.kind, "id": each.id, "timestamp": each.at_s, "user_id": each.user}
        | ({"input_tokens": each.input, "output_tokens": each.output} if each.kind == "completions" else {})
        for each in reports
    ]
    given = ({name: value for name, value in event.items() if value is not None} for event in events)
    found = records_of(given, NOW_MS)
    good = [each for each in found if isinstance(each, Record)]
    assert len(good) == len(found), found
    return good


def batch(*reports: Report, source: str = "otlp", organization: str = ORGANIZATION) -> Batch:
    return Batch(organization, records(reports), dialect=source, reports_calls=True)


def send(store: DuckStore, *reports: Report, **options: str) -> Outcome:
    (outcome,) = store.append([batch(*reports, **options)])
    return outcome


def used(store: DuckStore, organization: str = ORGANIZATION, group: Sequence[str] = ()) -> dict[Any, tuple[int, ...]]:
    end_s = NOW_MS // 1000
    query = Query(organization, DAY, end_s, ALL_S, end_s, tuple(group))
    kind = KINDS["completions"]
    places = [kind.measures.index(name) for name in COUNTS]
    return {row.group: tuple(row.measures[place] for place in places) for row in store.usage(kind, query)}


@pytest.mark.parametrize("apart_s", [0, 0.002, 3.4, 7_200, 30 * 86_400])
@pytest.mark.parametrize(
    "sources", [("otlp", "otlp"), ("openai", "litellm"), ("litellm", "otlp"), ("otlp", "anthropic")]
)
@pytest.mark.parametrize("is_later_first", [False, True])
def test_two_reports_in_two_requests_are_one_call(
    store: DuckStore, apart_s: float, sources: tuple[str, str], is_later_first: bool
) -> None:
    reports = [Report("resp_a1"), Report("resp_a1", DAY + 100 + apart_s)]
    for report, source in zip(reversed(reports) if is_later_first else reports, sources, strict=True):
        send(store, report, source=source)
    assert used(store) == {(): (1, 10, 2)}


def test_the_first_report_stands_and_what_a_later_one_says_otherwise_is_a_conflict(store: DuckStore) -> None:
    assert send(store, Report("resp_a1"), source="openai").accepted == {"completions": 1}
    later = send(store, Report("resp_a1", DAY + 101, output=3), source="otlp")
    assert [(each.field, each.stored, each.sent, each.is_call) for each in later.conflicts] == [
        ("output_tokens", 2, 3, True)
    ]
    assert later.repeats == {("otlp", "openai", "output_tokens"): 1}
    assert used(store) == {(): (1, 10, 2)}


def test_who_made_a_call_is_no_conflict(store: DuckStore) -> None:
    send(store, Report("resp_a1", user="u1"), source="openai")
    later = send(store, Report("resp_a1", DAY + 101), source="litellm")
    assert (later.duplicates, later.conflicts) == ({"completions": 1}, [])
    assert later.repeats == {("litellm", "openai", ""): 1}


def test_of_the_reports_in_one_request_the_richest_stands_with_what_only_the_others_say_of_who_made_it(
    store: DuckStore,
) -> None:
    outcome = send(
        store, Report("resp_a1", output=1), Report("resp_a1", output=410), Report("resp_a1", output=3, user="u1")
    )
    assert (outcome.accepted, outcome.duplicates) == ({"completions": 1}, {"completions": 2})
    assert used(store, group=["user_id"]) == {("u1",): (1, 10, 410)}


def test_requests_that_share_a_commit_count_a_call_once_and_the_first_stands(store: DuckStore) -> None:
    outcomes = store.append([batch(Report("resp_a1")), batch(Report("resp_a1", output=9)), batch(Report("resp_a2"))])
    assert [each.accepted.total() for each in outcomes] == [1, 0, 1]
    assert used(store) == {(): (2, 20, 4)}


def test_a_call_without_a_time_of_its_own_is_known_by_its_id(store: DuckStore) -> None:
    for _ in range(2):
        send(store, Report("msg_1", None), source="anthropic")
    query_end = NOW_MS // 1000 + 1
    query = Query(ORGANIZATION, DAY, query_end, ALL_S, query_end, ())
    (row,) = store.usage(KINDS["completions"], query)
    assert row.measures[KINDS["completions"].measures.index("num_model_requests")] == 1


def test_other_organizations_kinds_and_events_of_ours_are_other_facts(store: DuckStore) -> None:
    send(store, Report("resp_a1"))
    send(store, Report("resp_a1"), organization="org-b")
    send(store, Report("resp_a1", kind="web_search_calls"))
    store.append([Batch(ORGANIZATION, records([Report("resp_a1")]))])
    assert (used(store), used(store, "org-b")) == ({(): (2, 20, 4)}, {(): (1, 10, 2)})


@pytest.mark.parametrize("is_whole_first", [True, False])
def test_a_call_that_one_source_reports_whole_and_another_by_its_turns_counts_once(
    store: DuckStore, is_whole_first: bool
) -> None:
    for reports in (WHOLE, TURNS) if is_whole_first else (TURNS, WHOLE):
        send(store, *reports, source="anthropic" if len(reports) > 1 else "otlp")
    assert used(store)[()][1:] == (25, 2)


@pytest.mark.parametrize(
    "requests", [[[*TURNS, *TURNS]], [TURNS, TURNS], [[*TURNS, *WHOLE]], [[*WHOLE, *TURNS], TURNS]]
)
def test_turns_that_come_again_count_once(store: DuckStore, requests: list[list[Report]]) -> None:
    for reports in requests:
        send(store, *reports, source="anthropic")
    assert used(store)[()][1:] == (25, 2)


def test_a_request_of_doubles_and_new_calls_keeps_each_as_it_is(store: DuckStore) -> None:
    send(store, *(Report(f"resp_b{number}", input=number + 1) for number in range(50)))
    outcome = send(
        store,
        *(Report(f"resp_b{number}", input=number + 1) for number in range(100) for _ in range(2)),
        source="litellm",
    )
    assert (outcome.accepted.total(), outcome.duplicates.total(), outcome.conflicts) == (50, 150, [])
    assert used(store) == {(): (100, sum(range(1, 101)), 200)}


@pytest.mark.parametrize("name", ["chatcmpl-7", "chatcmpl-998", "cmpl-12"])
def test_ids_of_servers_that_have_a_thousand_of_them_are_told_apart_by_their_instants(
    store: DuckStore, name: str
) -> None:
    for at_s in (DAY + 100, DAY + 200, DAY + 200):
        send(store, Report(name, at_s))
    assert used(store) == {(): (2, 20, 4)}


def test_sessions_and_levels_use_their_ids_again(store: DuckStore) -> None:
    for at_s in (DAY, DAY + 1_200):
        send(store, Report("container_1", at_s, kind="code_interpreter_sessions"))
    query = Query(ORGANIZATION, DAY, NOW_MS // 1000, ALL_S, NOW_MS // 1000, ())
    (row,) = store.usage(KINDS["code_interpreter_sessions"], query)
    assert row.measures == (2,)


@pytest.mark.parametrize("is_folded", [False, True])
def test_a_call_is_known_after_a_restart_before_and_after_the_store_has_taken_in_what_it_holds(
    tmp_path: Path, is_folded: bool
) -> None:
    first = DuckStore(tmp_path, MEMORY)
    send(first, *(Report(f"resp_a{number}") for number in range(100)))
    first.close()
    second = DuckStore(tmp_path, MEMORY)
    if is_folded:
        second.fold()
    later = send(second, Report("resp_a1", DAY + 5), Report("resp_x", DAY + 5), source="litellm")
    assert (later.accepted.total(), later.duplicates.total()) == (1, 1)
    assert used(second) == {(): (101, 1_010, 202)}
    second.close()


def test_a_late_report_of_a_call_that_was_deleted_for_its_age_does_not_count_again(store: DuckStore) -> None:
    send(store, Report("resp_a1", DAY + 86_399), Report("resp_a2", DAY + 86_401), Report("resp_a9", DAY + 3 * 86_400))
    while store.expire(Keep(events=2), DAY + 3 * 86_400) is not None:
        pass
    assert store.kept.events_s == DAY + 86_400
    later = send(
        store, Report("resp_a1", DAY + 86_402), Report("resp_a2", DAY + 86_402), Report("resp_a3", DAY + 86_402)
    )
    assert later.accepted.total() == 1
    assert used(store) == {(): (4, 40, 8)}


def test_ids_of_deleted_calls_are_let_go_after_a_month(store: DuckStore) -> None:
    for day in (0, 35, 38):
        send(store, Report(f"resp_a{day}", DAY + day * 86_400))
    while store.expire(Keep(events=1), DAY + 38 * 86_400) is not None:
        pass
    assert store._fetch("SELECT id FROM past_calls", {}) == [("resp_a35",)]


def test_known_calls_forget_nothing_whatever_they_hold() -> None:
    known = KnownCalls(recent_max=10)
    known.complete(np.sort(digests("org", "completions", [f"old_{number}" for number in range(50)])))
    held = [f"old_{number}" for number in range(50)]
    for begin in range(0, 500, 7):
        names = [f"new_{number}" for number in range(begin, begin + 7)]
        calls = digests("org", "completions", names)
        assert not known.known(calls).any()
        known.add(calls, np.zeros(7, np.int64))
        held += names
        assert known.known(digests("org", "completions", held)).all()


@st.composite
def streams(draw: st.DrawFn) -> list[list[tuple[str, str, list[Report]]]]:
    """Commits of requests: source, organization and reports. Ids are few, so that most come again."""
    report = st.builds(
        Report,
        st.sampled_from([*(f"resp_a{number}" for number in range(6)), "chatcmpl-1", None]),
        st.integers(0, 35).map(lambda day: DAY + day * 86_400 + 1),
        st.integers(1, 3),
        st.integers(0, 3),
        st.sampled_from([None, "u1", "u2"]),
        st.just("completions"),
    )
    request = st.tuples(
        st.sampled_from(["otlp", "openai"]),
        st.sampled_from(["org-a", "org-b"]),
        st.lists(report, min_size=1, max_size=6),
    )
    return draw(st.lists(st.lists(request, min_size=1, max_size=3), max_size=8))


class Model:
    """The same in plain Python: what stands, by organization."""

    def __init__(self) -> None:
        self.stands: dict[str, dict[object, Report]] = {"org-a": {}, "org-b": {}}
        self._count = 0

    def send(self, organization: str, reports: Sequence[Report]) -> None:
        stands = self.stands[organization]
        best: dict[object, Report] = {}
        for report in reports:
            self._count += 1
            key: object = report.id if report.id is not None else self._count
            if report.id == "chatcmpl-1":
                key = (report.id, report.at_s)
                best.setdefault(key, report)
                continue
            known = best.get(key)
            best[key] = report if known is None or _whole(report) > _whole(known) else known
        for key, report in best.items():
            stands.setdefault(key, report)

    def totals(self, organization: str) -> dict[Any, tuple[int, ...]]:
        found = self.stands[organization].values()
        if not found:
            return {}
        return {(): (len(found), sum(each.input for each in found), sum(each.output for each in found))}


def _whole(report: Report) -> tuple[int, int]:
    """How many counts are not zero, then their sum."""
    return 1 + bool(report.output), report.input + report.output


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(streams(), st.randoms(use_true_random=False))
def test_any_stream_of_reports_counts_what_a_dictionary_counts(
    tmp_path_factory: pytest.TempPathFactory, commits: list[list[tuple[str, str, list[Report]]]], chance: Any
) -> None:
    directory = tmp_path_factory.mktemp("store")
    store = DuckStore(directory, MEMORY)
    model = Model()
    try:
        for requests in commits:
            store.append([batch(*reports, source=source, organization=owner) for source, owner, reports in requests])
            for _, owner, reports in requests:
                model.send(owner, reports)
            if chance.random() < 0.3:
                store.fold()
            if chance.random() < 0.1:
                store.close()
                store = DuckStore(directory, MEMORY)
            for owner in model.stands:
                assert used(store, owner) == model.totals(owner)
    finally:
        store.close()
