"""The running server against a brute-force model: whatever is posted, however it is asked.

Every example has an organization of its own, so that nothing but its own events can be in an answer.
"""

import gzip
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import HealthCheck, Phase, assume, given, note, settings
from hypothesis import strategies as st

from tests.model import (
    COUNTS,
    INPUT_CACHED_PARTS,
    KINDS,
    LIMITS_MAX,
    SPANS_S,
    TOKENS,
    WIDTHS_S,
    Book,
    Event,
    Question,
    Row,
    milliseconds,
    normalise,
)
from tests.support import Server

pytestmark = pytest.mark.timeout(600)  # a failing example is made small before it is told, for at most 300 s

DAY_S = 86_400
EPOCH_S = int(datetime(2015, 1, 1, tzinfo=UTC).timestamp())  # the earliest instant an event may have
NOW_S = int(time.time()) // 60 * 60
TODAY_S = NOW_S // DAY_S * DAY_S
LATEST_MS = (NOW_S + 1_800) * 1000  # an hour ahead is refused; half of it leaves room for a slow run
COUNT_MAX = 2**53 - 1
PAGES_MAX = 400

DAYS_S = [
    *(
        int(datetime(*date, tzinfo=UTC).timestamp())
        for date in [(2016, 12, 31), (2023, 12, 31), (2024, 2, 28), (2024, 2, 29), (2024, 3, 1)]
    ),
    EPOCH_S,
    TODAY_S - 40 * DAY_S,
    TODAY_S - DAY_S,
    TODAY_S,
    TODAY_S,
]
TEXTS = {
    "project_id": ["alpha", "Alpha", "模型, 一"],
    "user_id": ["na\u00efve", "nai\u0308ve", "100% & +=#?"],  # composed and decomposed: two names
    "api_key_id": ["key_1", "🔑"],
    "model": ["gpt-4o-2024-08-06", "o4-mini, input"],
    "service_tier": ["default", "flex"],
    "api_source": ["agents_api", "somewhere else"],
    "size": ["1024x1024", "auto"],
    "source": ["image.generation", "image.edit", "image.variation"],
    "vector_store_id": ["vs_1", "vs_2"],
    "context_level": ["low", "medium", "high"],
}
RUN_KINDS = set(KINDS) - {"vector_stores", "code_interpreter_sessions", "file_search_calls"}


def exact(examples: int) -> settings:
    """The same examples on every run; a failure is shrunk before it is told."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],  # explaining takes longer than it tells
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


# --------------------------------------------------------------------------------------------- what is posted


@dataclass(frozen=True)
class Post:
    """The events of one request, and how they are written: object, array or ndjson, gzip or not."""

    events: list[Event]
    form: str
    packed: bool = False

    def send(self, api: httpx.Client) -> httpx.Response:
        texts = [json.dumps(event, ensure_ascii=len(self.events) % 2 == 0) for event in self.events]
        text = f"[{', '.join(texts)}]" if self.form == "array" else "\n".join(texts)
        body, headers = text.encode(), {"content-type": "application/json"}
        if self.packed:
            body, headers["content-encoding"] = gzip.compress(body), "gzip"
        return api.post("/v1/organization/usage/events", content=body, headers=headers)


counts = st.sampled_from([0, 1, 2, 7, 100, 1_000_003])
sizes = counts | st.sampled_from([2**40, COUNT_MAX])


@st.composite
def instants_ms(draw: st.DrawFn, days_s: Sequence[int]) -> int:
    """On the edges of buckets, a millisecond beside them, and anywhere."""
    within_s = draw(st.sampled_from([0, 0, 60, 3_540, 3_600, 43_200, 86_340]) | st.integers(0, DAY_S - 1))
    beside_ms = draw(st.sampled_from([0, 0, -1, 1, 500]))
    instant_ms = (draw(st.sampled_from(days_s)) + within_s) * 1000 + beside_ms
    return min(max(instant_ms, EPOCH_S * 1000), LATEST_MS)


@st.composite
def token_counts(draw: st.DrawFn) -> Event:
    """Counts that add up, and any selection of them; now and then one that does not fit."""
    leaf = counts if draw(st.booleans()) else st.sampled_from([0, 0, 3, 2**44])
    text, image, audio, cached_text, cached_audio, cached_image, write_30m, write_12h = draw(st.tuples(*[leaf] * 8))
    output_text, output_audio, output_image, unknown = draw(st.tuples(*[leaf] * 4))
    cached, uncached, write = (
        cached_text + cached_audio + cached_image,
        text + image + audio,
        write_30m + write_12h,
    )
    parts = {
        "input_cached_tokens": cached,
        "input_cache_write_tokens": write,
        "input_cache_write_30m_tokens": write_30m,
        "input_cache_write_12h_tokens": write_12h,
        "input_uncached_tokens": uncached,
        "input_text_tokens": text,
        "input_image_tokens": image,
        "input_audio_tokens": audio + cached_audio,
        "input_cached_text_tokens": cached_text,
        "input_cached_audio_tokens": cached_audio,
        "input_cached_image_tokens": cached_image,
    }
    outputs = {
        "output_text_tokens": output_text,
        "output_audio_tokens": output_audio,
        "output_image_tokens": output_image,
    }
    event: Event = {}
    sides = draw(st.sampled_from(["both", "both", "input", "output"]))
    if sides != "output":
        chosen = draw(st.sets(st.sampled_from(sorted(parts))))
        if "input_uncached_tokens" in chosen and chosen & set(INPUT_CACHED_PARTS):
            chosen.add("input_cached_tokens")  # which of the two it follows from has a test of its own
        event |= {"input_tokens": cached + uncached + write} | {name: parts[name] for name in sorted(chosen)}
    if sides != "input":
        chosen = draw(st.sets(st.sampled_from(sorted(outputs))))
        event |= {"output_tokens": output_text + output_audio + output_image + unknown}
        event |= {name: outputs[name] for name in sorted(chosen)}
    if draw(st.integers(0, 19)) == 0:
        event[draw(st.sampled_from(sorted(event)))] = draw(counts)
    return event


def texts_of(kind: str) -> dict[str, st.SearchStrategy[Any]]:
    names = {*KINDS[kind].dimensions, "project_id", "user_id", "api_key_id"} - {"batch"}
    names |= {"model", "service_tier"} if kind in RUN_KINDS else set()
    return {name: st.sampled_from(TEXTS[name]) for name in sorted(names)}


@st.composite
def events(draw: st.DrawFn, kinds: Sequence[str], days_s: Sequence[int]) -> Event:
    kind = draw(st.sampled_from(kinds))
    event: Event = {"kind": kind, "timestamp": draw(instants_ms(days_s)) / 1000}
    event |= draw(st.fixed_dictionaries({}, optional=texts_of(kind)))
    if kind in RUN_KINDS:
        event |= draw(st.fixed_dictionaries({}, optional={"batch": st.booleans()}))
    if (number := draw(st.integers(0, 6))) > 0:
        event["id"] = f"id-{number}"
    optional = {name: counts for name in KINDS[kind].measures if name in COUNTS}
    event |= draw(st.fixed_dictionaries({}, optional=optional))
    match kind:
        case "completions" | "decisions":
            event |= draw(token_counts())
        case "embeddings" | "moderations":
            event["input_tokens"] = draw(sizes)
        case "images":
            event["images"] = draw(counts)
        case "audio_speeches":
            event["characters"] = draw(sizes)
        case "audio_transcriptions":
            event["seconds"] = draw(st.sampled_from([0, 0.499, 0.5, 1.5, 2.5, 3, 59.9, 1e6, 7.0]))
        case "vector_stores":
            event["vector_store_id"] = draw(st.sampled_from(TEXTS["vector_store_id"]))
            event["usage_bytes"] = draw(sizes)
    return event


def respelled(event: Event) -> Event:
    """The same event in other words: RFC 3339, explicit nulls and defaults, every derived count given."""
    facts = normalise(event)
    if facts is None:
        return event
    instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=facts["ms"])
    kind = KINDS[event["kind"]]
    texts = dict.fromkeys(texts_of(event["kind"]))
    given = {name: value for name, value in event.items() if name != "api_source" or value == "agents_api"}
    return (
        texts
        | {name: facts[name] for name in kind.measures}
        | ({"batch": False} if event["kind"] in RUN_KINDS else {})
        | {name: value for name, value in given.items() if name not in kind.measures}
        | {"timestamp": instant.astimezone(timezone(timedelta(hours=5, minutes=45))).isoformat()}
    )


def altered(event: Event) -> Event:
    """The same identity with other content."""
    name = next(name for name in KINDS[event["kind"]].measures if name in event or name in COUNTS)
    count = event.get(name, 1)
    return event | {name: count - 1 if count == COUNT_MAX else count + 1}


@st.composite
def histories(draw: st.DrawFn, *, conflicts: bool = True, kinds: Sequence[str] = tuple(KINDS)) -> list[Post]:
    """What one organization sends: late, doubled, contradicting, faulty events, cut into requests anyhow."""
    few = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3, unique=True))  # so that they meet
    days_s = draw(st.lists(st.sampled_from(DAYS_S), min_size=1, max_size=3))
    found = [draw(events(few, days_s)) for _ in range(draw(st.integers(1, 40)))]
    if not conflicts:
        found = [event | {"id": f"only-{index}"} for index, event in enumerate(found)]
    again = draw(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 2)), max_size=6))
    for which, where, how in again:
        event = found[which % len(found)]
        other = [event, respelled(event), altered(event) if conflicts else event][how]
        found.insert(where % (len(found) + 1), other)
    return draw(splits(untied(found)))


def untied(found: Sequence[Event]) -> list[Event]:
    """Without equal reports that put a store into two projects at one millisecond: no answer is right."""
    projects: dict[tuple[Any, ...], Any] = {}
    kept = []
    for event in found:
        if event["kind"] == "vector_stores" and (facts := normalise(event)):
            place = facts["vector_store_id"], facts["ms"], facts["usage_bytes"]
            if projects.setdefault(place, facts["project_id"]) != facts["project_id"]:
                continue
        kept.append(event)
    return kept


@st.composite
def splits(draw: st.DrawFn, found: Sequence[Event]) -> list[Post]:
    lengths = draw(st.lists(st.sampled_from([1, 2, 5, 30]), min_size=1, max_size=4))
    posts: list[Post] = []
    rest = list(found)
    while rest:
        length = lengths[len(posts) % len(lengths)]
        form = draw(st.sampled_from(["object", "array", "ndjson"] if length == 1 else ["array", "ndjson"]))
        posts.append(Post(rest[:length], form, packed=draw(st.booleans())))
        rest = rest[length:]
    return posts


# ---------------------------------------------------------------------------------------------- what is asked


@st.composite
def questions(draw: st.DrawFn, history: Sequence[Post]) -> Question:
    """About a kind that was used, around a moment it was used at, and cut anywhere."""
    event = draw(st.sampled_from([event for post in history for event in post.events]))
    kind = event["kind"]
    width = draw(st.sampled_from(sorted(SPANS_S)))
    grid_s = draw(st.sampled_from([1, 60, 3_600, DAY_S]))
    before_s = draw(st.sampled_from([0, 0, -1, 1, 59, 60, 3_600, DAY_S, 7 * DAY_S, 40 * DAY_S]))
    start = max(EPOCH_S, min(milliseconds(event["timestamp"]) // 1000 // grid_s * grid_s - before_s, NOW_S))
    length_s = draw(st.sampled_from([1, 60, 61, 3_599, 3_600, DAY_S, 3 * DAY_S, 45 * DAY_S, 400 * DAY_S]))
    end = start + max(60, min(before_s + length_s, 400 * SPANS_S[width]))
    if end > NOW_S and draw(st.booleans()):
        return Question(kind, start, None, width, **draw(narrowings(kind)))
    if kind == "vector_stores":
        end = max(start - start % 60 + 1, min(end, NOW_S))  # a level so far has a test of its own
    return Question(kind, start, end, width, **draw(narrowings(kind)))


@st.composite
def narrowings(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    group_by = draw(st.lists(st.sampled_from(KINDS[kind].dimensions), unique=True))
    filtered = draw(st.lists(st.sampled_from(KINDS[kind].filters), max_size=draw(st.integers(0, 2)), unique=True))
    filters = {name: draw(filter_values(name)) for name in filtered}
    return {"group_by": tuple(group_by), "filters": filters}


def filter_values(name: str) -> st.SearchStrategy[list[Any]]:
    if name == "batch":
        return st.sampled_from([[True], [False]])
    return st.lists(st.sampled_from(TEXTS[name.removesuffix("s")]), min_size=1, max_size=2, unique=True)


def parameters(question: Question) -> list[tuple[str, Any]]:
    """Lists are spelled as clients spell them, each way depending on the question."""
    plain = question.start % 120 < 60
    found: list[tuple[str, Any]] = [("start_time", question.start), ("bucket_width", question.width)]
    if question.end is not None:
        found.append(("end_time", question.end))
    if question.group_by and len(question.group_by) % 3 == 0:
        found.append(("group_by", ",".join(question.group_by)))
    else:
        found += [("group_by" if plain else "group_by[]", name) for name in question.group_by]
    for name, values in question.filters.items():
        if name == "batch":
            found.append((name, "true" if values[0] else "false"))
        else:
            found += [(name if plain else f"{name}[]", value) for value in values]
    return found


def ask(api: httpx.Client, question: Question, limit: int | None = None) -> list[Row]:
    """All buckets of a question, from pages of `limit` buckets (as many as allowed when None)."""
    asked = [*parameters(question), ("limit", limit or LIMITS_MAX[question.width])]
    data: list[Row] = []
    page: list[tuple[str, Any]] = []
    for _ in range(PAGES_MAX):
        answer = api.get(f"/v1/organization/usage/{question.kind}", params=[*asked, *page])
        assert answer.status_code == 200, f"{answer.request.url}\n{answer.text}"
        body = answer.json()
        assert body["object"] == "page"
        assert body["has_more"] == (body["next_page"] is not None) == (limit_reached(body, asked))
        data += body["data"]
        if not body["has_more"]:
            return data
        page = [("page", body["next_page"])]
    raise AssertionError(f"more than {PAGES_MAX} pages: {question}")


def limit_reached(body: Row, asked: Sequence[tuple[str, Any]]) -> bool:
    """A page is full exactly when there is more, unless the window ends with it."""
    return bool(body["has_more"]) and len(body["data"]) == dict(asked)["limit"]


def rows(data: Sequence[Row]) -> list[tuple[int, int, list[str]]]:
    """Buckets in a form that compares: the order of the rows within one is not promised."""
    for bucket in data:
        assert bucket["result"] == bucket["results"], bucket
    return [
        (
            bucket["start_time"],
            bucket["end_time"],
            sorted(json.dumps(row, sort_keys=True, ensure_ascii=False) for row in bucket["results"]),
        )
        for bucket in data
    ]


def assert_same(question: Question, found: Sequence[Row], expected: Sequence[Row]) -> None:
    """Fail with the question and the first bucket that differs."""
    ours, theirs = rows(found), rows(expected)
    if ours == theirs:
        return
    url = httpx.URL(f"/v1/organization/usage/{question.kind}", params=parameters(question))
    assert [bucket[:2] for bucket in ours] == [bucket[:2] for bucket in theirs], f"other buckets: {url}"
    first = next(pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1])
    lines = [f"GET {url}", f"bucket {first[0][0]}-{first[0][1]}"]
    lines += [f"  server only: {row}" for row in (Counter(first[0][2]) - Counter(first[1][2])).elements()]
    lines += [f"  model only:  {row}" for row in (Counter(first[1][2]) - Counter(first[0][2])).elements()]
    pytest.fail("\n".join(lines), pytrace=False)


def totals(found: Sequence[Row]) -> list[Counter[str]]:
    """The measures of every bucket, summed over its rows; a bucket without rows sums to nothing."""
    return [
        sum(
            (
                Counter({name: n for name, n in row.items() if isinstance(n, int) and not isinstance(n, bool)})
                for row in bucket["results"]
            ),
            Counter(),
        )
        for bucket in found
    ]


# --------------------------------------------------------------------------------------------------- together


@contextmanager
def fresh(server: Server) -> Iterator[httpx.Client]:
    """A client in an organization that nobody has used."""
    with server.http(server.key(f"org-{uuid4().hex}")) as api:
        yield api


def post_all(api: httpx.Client, book: Book, history: Sequence[Post]) -> None:
    """Post everything, and hold every receipt against the model."""
    for post in history:
        outcomes = [book.post(event) for event in post.events]
        answer = post.send(api)
        all_rejected = set(outcomes) == {"rejected"}
        assert answer.status_code == (400 if all_rejected else 200), f"{post}\n{answer.text}"
        receipt = answer.json()
        counted = {name: receipt[name] for name in ("accepted", "duplicates", "conflicts", "rejected")}
        expected = {name: outcomes.count(name) for name in counted}
        assert counted == expected, f"{post}\nexpected {outcomes}\n{answer.text}"
        named = {(fault["index"], fault["outcome"]) for fault in receipt["faults"]}
        wrong = {"rejected": "rejected", "conflicts": "conflict"}
        assert named == {(index, wrong[name]) for index, name in enumerate(outcomes) if name in wrong}


def check(api: httpx.Client, book: Book, question: Question) -> list[Row]:
    """Ask the server and the model; they must agree. Without an end, the server says until when it is."""
    before_s = int(time.time())
    found = ask(api, question)
    now_s = found[-1]["end_time"] if found else 0
    if question.end is None:
        assert before_s < now_s <= int(time.time()) + 1
    assert_same(question, found, book.answer(question, now_s if question.end is None else time.time()))
    return found


def kinds_of(history: Sequence[Post]) -> list[str]:
    return [event["kind"] for post in history for event in post.events]


def at_rest(question: Question) -> Question:
    """The same with an end, so that it can be asked twice: a level so far moves with the clock."""
    if question.end is not None:
        return question
    if question.kind != "vector_stores":
        return replace(question, end=NOW_S + DAY_S)
    return replace(question, end=max(question.start - question.start % 60 + 1, NOW_S))


def day_of(data: st.DataObject, history: Sequence[Post]) -> tuple[str, int]:
    """A kind that was used and a day that it was used on, complete by now."""
    events = [event for post in history for event in post.events]
    days = [(event["kind"], milliseconds(event["timestamp"]) // 1000 // DAY_S * DAY_S) for event in events]
    days = [(kind, day_s) for kind, day_s in days if day_s < TODAY_S]
    assume(days)
    return data.draw(st.sampled_from(days))


@exact(45)
@given(data=st.data(), history=histories())
def test_every_answer_is_the_models(server: Server, data: st.DataObject, history: list[Post]) -> None:
    book = Book()
    with fresh(server) as api:
        post_all(api, book, history)
        for question in data.draw(st.lists(questions(history), min_size=3, max_size=6)):
            check(api, book, question)


@exact(25)
@given(data=st.data(), history=histories(kinds=["vector_stores"]))
def test_levels_are_the_models(server: Server, data: st.DataObject, history: list[Post]) -> None:
    book = Book()
    with fresh(server) as api:
        post_all(api, book, history)
        for question in data.draw(st.lists(questions(history), min_size=2, max_size=5)):
            check(api, book, question)


@exact(15)
@given(data=st.data(), history=histories())
def test_groups_add_up_to_the_ungrouped_total(server: Server, data: st.DataObject, history: list[Post]) -> None:
    with fresh(server) as api:
        post_all(api, Book(), history)
        question = replace(at_rest(data.draw(questions(history))), group_by=())
        total = totals(ask(api, question))
        every = KINDS[question.kind].dimensions
        some = data.draw(st.lists(st.sampled_from(every), min_size=1, unique=True))
        for group_by in (tuple(some), every):
            assert totals(ask(api, replace(question, group_by=group_by))) == total, f"{question} by {group_by}"


@exact(25)
@given(data=st.data(), history=histories())
def test_a_day_is_its_hours_and_its_minutes(server: Server, data: st.DataObject, history: list[Post]) -> None:
    with fresh(server) as api:
        post_all(api, Book(), history)
        kind, day_s = day_of(data, history)
        group_by = tuple(data.draw(st.lists(st.sampled_from(KINDS[kind].dimensions), unique=True)))
        question = Question(kind, day_s, day_s + DAY_S, "1d", group_by)
        (day,) = by_group(ask(api, question), group_by)
        for width, parts in (("1h", 24), ("1m", 1_440)):
            found = by_group(ask(api, replace(question, width=width)), group_by)
            assert len(found) == parts
            summed: Counter[tuple[Any, ...]] = sum(found, Counter())
            if kind != "vector_stores":
                assert summed == day, f"{question} in {width}"
                continue
            # Rounded once for each store in each project, in the day as in each of its parts.
            rounded = sum(1 for name in kinds_of(history) if name == kind)
            for group in summed.keys() | day.keys():
                assert abs(summed[group] / parts - day[group]) <= rounded, f"{question} in {width}"


def by_group(found: Sequence[Row], group_by: Sequence[str]) -> list[Counter[tuple[Any, ...]]]:
    """For every bucket: (dimension values, measure) -> count."""
    return [
        Counter(
            {
                (*(row[name] for name in group_by), measure): row[measure]
                for row in bucket["results"]
                for measure in (*TOKENS, *COUNTS, "images", "characters", "seconds", "usage_bytes")
                if measure in row
            }
        )
        for bucket in found
    ]


@exact(20)
@given(data=st.data(), history=histories())
def test_pages_of_any_size_are_one_answer(server: Server, data: st.DataObject, history: list[Post]) -> None:
    with fresh(server) as api:
        post_all(api, Book(), history)
        kind, day_s = day_of(data, history)
        width = data.draw(st.sampled_from(sorted(WIDTHS_S)))
        limit = data.draw(st.integers(1, 30))
        buckets = min(LIMITS_MAX[width], limit * data.draw(st.integers(1, 8)) + data.draw(st.integers(0, 1)))
        start = day_s - data.draw(st.sampled_from([0, 60, 61, DAY_S]))
        end = start // WIDTHS_S[width] * WIDTHS_S[width] + buckets * WIDTHS_S[width]
        if kind == "vector_stores":
            end = min(end, NOW_S)
        assume(EPOCH_S <= start < end)
        question = Question(kind, start, end, width, **data.draw(narrowings(kind)))
        note(f"{question} in pages of {limit}")
        assert_same(question, ask(api, question, limit), ask(api, question))


@exact(25)
@given(data=st.data(), history=histories())
def test_a_filter_and_its_complement_are_everything(server: Server, data: st.DataObject, history: list[Post]) -> None:
    """What has no value passes no filter, and is the third part of the total."""
    with fresh(server) as api:
        post_all(api, Book(), history)
        question = replace(at_rest(data.draw(questions(history))), group_by=(), filters={})
        name = data.draw(st.sampled_from(KINDS[question.kind].filters))
        dimension = name if name == "batch" else name.removesuffix("s")
        values: list[Any] = [True, False] if name == "batch" else TEXTS[dimension]
        cut = data.draw(st.integers(1, len(values) - 1))
        parts = [totals(ask(api, replace(question, filters={name: part}))) for part in (values[:cut], values[cut:])]
        grouped = ask(api, replace(question, group_by=(dimension,)))
        nameless = totals(
            [bucket | {"results": [row for row in bucket["results"] if row[dimension] is None]} for bucket in grouped]
        )
        total = totals(ask(api, question))
        assert [sum(three, Counter()) for three in zip(*parts, nameless, strict=True)] == [+sums for sums in total]


@exact(12)
@given(data=st.data(), history=histories())
def test_rollups_rebuilt_from_raw_events_answer_the_same(
    server: Server, data: st.DataObject, history: list[Post]
) -> None:
    book = Book()
    with fresh(server) as api:
        post_all(api, book, history)
        asked = data.draw(st.lists(questions(history), min_size=2, max_size=4))
        for _ in range(2):
            for question in asked:
                check(api, book, question)
            verdict = api.get("/v1/organization/usage/check").json()
            assert verdict["ok"] is True, verdict
            assert verdict["differences"] == []
            body = {"start_time": EPOCH_S, "end_time": NOW_S + DAY_S}
            answer = api.post("/v1/organization/usage/rebuild", json=body)
            assert answer.status_code == 200, answer.text


@exact(15)
@given(data=st.data(), history=histories(conflicts=False))
def test_order_and_split_and_resending_change_nothing(server: Server, data: st.DataObject, history: list[Post]) -> None:
    book = Book()
    found = [event for post in history for event in post.events]
    random.Random(data.draw(st.integers(0, 999))).shuffle(found)
    other = data.draw(splits(found))
    asked = data.draw(st.lists(questions(history), min_size=2, max_size=4))
    with fresh(server) as one, fresh(server) as two:
        post_all(one, book, history)
        post_all(two, Book(), other)
        kept = len(book.stored)
        post_all(one, book, other)
        assert len(book.stored) == kept, "the model itself must not count anything twice"
        for question in asked:
            check(one, book, question)
            check(two, book, question)


# ------------------------------------------------------------------------------------------------ named edges


def test_the_first_instant_of_a_bucket_is_in_it_and_the_last_millisecond_before_is_not(
    api: httpx.Client,
) -> None:
    leap_s = int(datetime(2024, 2, 29, tzinfo=UTC).timestamp())
    stamps = [
        "2024-02-28T23:59:59.999Z",
        "2024-02-29T00:00:00Z",
        "2024-02-29T23:59:59.999Z",
        "2024-03-01T00:00:00Z",
    ]
    found = [
        {"kind": "embeddings", "id": stamp, "timestamp": stamp, "input_tokens": 10**index}
        for index, stamp in enumerate(stamps)
    ]
    post_all(api, Book(), [Post(found, "array")])
    days = ask(api, Question("embeddings", leap_s - DAY_S, leap_s + 2 * DAY_S))
    assert [bucket["results"][0]["input_tokens"] for bucket in days] == [1, 110, 1000]
    for width, seconds in WIDTHS_S.items():
        edge = ask(api, Question("embeddings", leap_s - seconds, leap_s + seconds, width))
        expected = [1, 110 if width == "1d" else 10]
        assert [bucket["results"][0]["input_tokens"] for bucket in edge] == expected, width


def test_an_event_without_a_timestamp_counts_now_and_every_time(api: httpx.Client) -> None:
    before_s = int(time.time())
    post = Post([{"kind": "images", "id": "same", "images": 2}] * 2, "array")
    for _ in range(2):
        receipt = post.send(api).json()
        assert (receipt["accepted"], receipt["duplicates"]) == (2, 0), receipt
    found = totals(ask(api, Question("images", before_s, None, "1m")))
    assert sum(found, Counter()) == {"images": 8, "num_model_requests": 4}


@pytest.mark.parametrize(("cached_text", "outcome"), [(0, "accepted"), (6, "accepted"), (7, "rejected")])
def test_cached_tokens_follow_from_uncached_ones_before_their_parts(
    api: httpx.Client, cached_text: int, outcome: str
) -> None:
    """Input less uncached is an equation; the parts given may fall short of their whole but not exceed it."""
    event: Event = {"kind": "completions", "timestamp": DAYS_S[2], "input_tokens": 10}
    event |= {"input_uncached_tokens": 4, "input_cached_text_tokens": cached_text}
    assert Book().post(event) == outcome
    assert Post([event], "object").send(api).json()[outcome] == 1


def test_the_first_stands_and_no_later_one_of_its_request(api: httpx.Client) -> None:
    """A repeat is compared with what is stored, not with a conflicting event that was sent beside it."""
    first: Event = {"kind": "images", "id": "a", "timestamp": DAYS_S[2], "images": 1}
    other = first | {"images": 2}
    post_all(api, Book(), [Post([first], "object"), Post([other, other, first], "array")])


def test_sums_beyond_64_bits_are_exact(api: httpx.Client) -> None:
    """Each count is as large as an event may have it; a sum knows no limit."""
    book = Book()
    found: list[Event] = [
        {"kind": "embeddings", "id": str(index), "timestamp": DAYS_S[2] + index, "input_tokens": COUNT_MAX}
        for index in range(2_100)
    ]
    post_all(api, book, [Post(found, "ndjson")])
    for width in WIDTHS_S:
        (total,) = totals(check(api, book, Question("embeddings", DAYS_S[2], DAYS_S[2] + 60, width)))
        assert total["input_tokens"] == 60 * COUNT_MAX
    (total,) = totals(check(api, book, Question("embeddings", DAYS_S[2], DAYS_S[2] + DAY_S)))
    assert total["input_tokens"] == 2_100 * COUNT_MAX > 2**64


def test_a_level_so_far_is_the_mean_of_what_has_elapsed(api: httpx.Client) -> None:
    """A day in progress is not diluted by the hours to come, and nothing is held in buckets to come."""
    now_s = int(time.time())
    start_s = now_s // DAY_S * DAY_S
    book = Book()
    old: Event = {
        "kind": "vector_stores",
        "vector_store_id": "old",
        "project_id": "p",
        "usage_bytes": 1_000_000,
    }
    new: Event = {"kind": "vector_stores", "vector_store_id": "new", "project_id": "q", "usage_bytes": 2**50}
    stamps = {"timestamp": start_s - 5 * DAY_S}, {"timestamp": now_s - 3_600}, {"timestamp": now_s + 1_800}
    post_all(api, book, [Post([old | stamps[0], new | stamps[1], new | stamps[2] | {"usage_bytes": 1}], "array")])
    question = Question("vector_stores", start_s - DAY_S, start_s + 3 * DAY_S, "1d", ("project_id",))
    before_s = int(time.time())
    found = ask(api, question)
    after_s = int(time.time()) + 1
    # The server's own second is not known, but it is one of these.
    possible = [book.answer(question, now_s) for now_s in range(before_s, after_s + 1)]
    assert rows(found) in [rows(answer) for answer in possible], f"{rows(found)}\n{rows(possible[0])}"
    assert found[2]["results"] == found[3]["results"] == [] or start_s // DAY_S != int(time.time()) // DAY_S
