"""Bodies, questions, cursors and packed bodies that nobody would write: understood or refused, and nothing else."""

import gzip
import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tallybook.errors import InvalidRequest
from tallybook.ingest.decode import COLUMNS_MIN, decode
from tallybook.ingest.zstandard import zstd
from tallybook.kinds import KINDS
from tallybook.timegrid import INSTANT_MAX_S
from tallybook.wire.cursor import Cursor, read_cursor, write_cursor
from tests.fuzz import (
    ENDPOINTS,
    NOW_S,
    TARGETS,
    cursor_holds,
    decode_agrees,
    decode_holds,
    params_hold,
    unpack_holds,
)
from tests.model import Event
from tests.test_exactness import altered, events, respelled

FIRST = b'{"kind":"images","images":1}'
DAY = 1_748_822_400
LIKE = [
    b'{"kind":"images","images":1,"id":"a","timestamp":1748822400}',
    b'{"kind":"images","images":1,"timestamp":"2025-06-02T00:00:00Z","cost":{"value":0.1,"currency":"usd"}}',
    b'{"kind":"audio_transcriptions","seconds":1.5,"timestamp":1748822400.5}',
    b'{"kind":"completions","input_tokens":9,"input_cached_tokens":3,"output_tokens":2}',
]
"""What surrounds a fault in a large body: each is read as columns another way."""

many = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

# ------------------------------------------------------------------------------------------------------ bodies

NUMBERS = [
    *("0", "-0", "1", "-1", "1.0", "1.5", "0.5", "2.4999999999999996", "1E3", "1e-3", "1e400", "-1e400", "1e22"),
    *(str(number) for number in (2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**64, 10**25, 10**400)),
    *("1420070400", "1420070399.9999999", "1420070399.9999994", f"{NOW_S + 3600}", f"{NOW_S + 3600}.0009"),
    *("1748822400.0005", "1748822400.1234567", "1748822400123", "00", "01", "1.", ".5", "+1", "0x1", "1_0"),
]
TEXTS = [
    *('""', '"a"', '"\\u0000"', '"\\u0085"', '"\x7f"', '"\u0085"', '"\ud83d\ude00"', '"\\ud800"', '"\\ud83d\\ude00"'),
    *('"true"', '"agents_api"', '"image.edit"', '"low"', f'"{"x" * 256}"', f'"{"x" * 257}"', '"\\/\\b\\n"', '"\\x"'),
    *('"2025-06-02T00:00:00Z"', '"2025-06-02t00:00:00.123456789+05:45"', '"2025-06-31T00:00:00Z"', '"1748822400"'),
    *('"2016-12-31T23:59:60Z"', '"9999-12-31T23:59:59-23:59"', '"0001-01-01T00:00:00+23:59"'),
]
OTHERS = [
    *("null", "true", "false", "{}", "[]", "NaN", "Infinity", "nul", "", "{", "]", '{"a":{"b":[1,2,{"c":null}]}}'),
    *('{"value":1,"currency":"usd"}', '{"value":0.1234567890123456789,"currency":"usd"}', '{"value":"1","currency":0}'),
    *('{"value":1e12,"currency":"usd"}', '{"value":1e13,"currency":"usd"}', '{"value":-1,"currency":"usd"}'),
    *(
        '{"value":1e-18,"currency":"usd"}',
        '{"value":1e-19,"currency":"usd"}',
        '{"value":1e-999999999,"currency":"usd"}',
    ),
    *('{"value":"NaN","currency":"usd"}', '{"value":"1_0","currency":"usd"}', '{"value":1,"currency":"eur"}'),
]
values = st.sampled_from([text.encode("utf-8", "surrogatepass") for text in (*NUMBERS, *TEXTS, *OTHERS)])
names = st.sampled_from(["id", "timestamp", "cost", "kind", "modle", "", "a\\u0000b", "\\ud800", "x" * 300])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An event with fields that are not what they should be: of another type, out of bounds, doubled, unknown."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    fields = st.sampled_from([*KINDS[kind].dimensions, *KINDS[kind].measures]) | names
    pairs = [(name.encode(), draw(values)) for name in draw(st.lists(fields, max_size=5))]
    if draw(st.booleans()):
        pairs += [(name.encode(), b"7") for name in KINDS[kind].required]
    pairs.insert(draw(st.integers(0, len(pairs))), (b"kind", f'"{kind}"'.encode()))
    return b"{" + b",".join(b'"' + name + b'":' + value for name, value in pairs) + b"}"


good = events(sorted(KINDS), [DAY, DAY + 86_400])
costly = st.builds(
    lambda event, value: event | {"cost": {"value": value, "currency": "usd"}}, good, st.sampled_from([0, 1, 0.25])
)


def compact(event: Event) -> bytes:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


@many
@given(st.lists(damaged() | values.filter(bool), min_size=1, max_size=6))
def test_a_body_with_faults_is_what_its_items_are_one_by_one(items: list[bytes]) -> None:
    decode_agrees([FIRST, *items])


@many
@given(
    st.lists(damaged() | values.filter(bool), min_size=1, max_size=3),
    st.sampled_from(LIKE),
    st.integers(0, COLUMNS_MIN),
)
@example([b'{"kind":"images","images":1,"timestamp":1' + b"0" * 400 + b"}"], LIKE[0], 0)
def test_a_large_body_with_faults_is_what_its_items_are_one_by_one(items: list[bytes], like: bytes, place: int) -> None:
    decode_agrees([FIRST, *[like] * place, *items, *[like] * (COLUMNS_MIN - place)])


@pytest.mark.parametrize("event", LIKE)
def test_a_large_body_without_a_fault_is_read_as_columns(event: bytes) -> None:
    decoded = decode(b"\n".join([event] * COLUMNS_MIN), NOW_S * 1000, COLUMNS_MIN)
    assert decoded.records == []
    assert [len(columns) for columns in decoded.columns] == [COLUMNS_MIN]


@many
@given(st.data())
def test_a_large_body_of_any_events_is_what_its_items_are_one_by_one(data: st.DataObject) -> None:
    """Some events many times, each time another way: so that columns have every mixture of what is given and not."""
    ways: list[Any] = [lambda event: event, respelled, altered]
    some = data.draw(st.lists(good | costly, min_size=1, max_size=4))
    repeats = data.draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=6))
    found = [ways[way](some[which % len(some)]) for which, way in repeats]
    decode_agrees([compact(event) for event in found] * (COLUMNS_MIN // len(found) + 1))


@many
@given(st.binary(max_size=300) | st.lists(damaged() | values, max_size=4).map(b"\n".join))
def test_any_bytes_are_events_faults_or_no_json(data: bytes) -> None:
    decode_holds(data)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"kind":', b'{"kind":"images","images":'])
@pytest.mark.parametrize("depth", [100, 1_000, 10_000, 1_000_000])
def test_any_depth_is_refused_in_good_order(opening: bytes, depth: int) -> None:
    closing = opening.replace(b'"kind":"images",', b"").translate(bytes.maketrans(b"[{", b"]}"), b'"a:kindimages ')
    decode_holds(opening * depth)
    decode_holds(opening * depth + b"1" + closing[::-1] * depth)


# --------------------------------------------------------------------------------------------------- questions

PARAMETERS = sorted({
    *("start_time", "end_time", "bucket_width", "group_by", "limit", "page", "zzz", "", "[]", "group_by[][]"),
    *(name for endpoint in ENDPOINTS for name in endpoint.filters),
})  # fmt: skip
ASKED = [
    *("", "0", "1", "-1", "31", "32", "180", "1440", "1e9", "1.5", "true", "True", "1m", "1h", "1d"),
    *("\u0663", "\uff11"),
    *(str(number) for number in (DAY, DAY + 59, NOW_S, NOW_S + 1, INSTANT_MAX_S, INSTANT_MAX_S + 1, 10**18, 10**70)),
    *("model", "project_id", "model,user_id", "line_item", "model,", ",", "batch", "\x00", "\ufffd", "a" * 300),
]  # fmt: skip


@many
@given(
    st.integers(0, 255),
    st.lists(
        st.tuples(
            st.sampled_from(PARAMETERS), st.sampled_from(["", "%5B%5D", "[]"]), st.sampled_from(ASKED) | st.text()
        ),
        max_size=6,
    ),
    st.sampled_from([f"start_time={DAY}&", f"start_time={DAY}&end_time={DAY + 864_000}&bucket_width=1h&", ""]),
)
def test_any_question_has_a_page_or_is_refused_by_a_parameter(
    which: int, pairs: list[tuple[str, str, str]], start: str
) -> None:
    query = "&".join(f"{name}{suffix}={quote(value)}" for name, suffix, value in pairs)
    params_hold(bytes([which]) + (start + query).encode())


@many
@given(st.binary(max_size=80))
def test_any_text_is_no_cursor(data: bytes) -> None:
    cursor_holds(data)


@many
@given(st.integers(0, INSTANT_MAX_S - 1), st.integers(5, 48), st.integers(1, 255))
def test_a_cursor_with_any_byte_damaged_is_refused(next_s: int, place: int, change: int) -> None:
    cursor = Cursor(next_s, INSTANT_MAX_S)
    good = write_cursor(cursor, b"question")
    assert read_cursor(good, b"question") == cursor
    damaged = bytearray(good.encode())
    damaged[place] ^= change
    with pytest.raises(InvalidRequest):
        read_cursor(damaged.decode("latin-1"), b"question")
    with pytest.raises(InvalidRequest):
        read_cursor(good, b"another question")


# ----------------------------------------------------------------------------------------------- packed bodies


@many
@given(st.binary(max_size=100), st.integers(0, 60), st.binary(max_size=4), st.sampled_from(["gzip", "zstd"]))
def test_a_packed_body_that_is_damaged_is_refused(content: bytes, place: int, damage: bytes, encoding: str) -> None:
    packed = gzip.compress(content, mtime=0) if encoding == "gzip" else zstd.compress(content)
    unpack_holds(packed[:place] + damage + packed[place:])
    unpack_holds(packed[:place] + damage + packed[place + len(damage) :])
    unpack_holds(packed[:place])


def test_the_fuzzer_runs_every_target() -> None:
    for target in TARGETS.values():
        for data in (b"", b"\n", FIRST, FIRST + b"\n" + FIRST, b"\x00start_time=0", b"\xff" * 60):
            target(data)


def test_a_cursor_that_differs_in_bits_that_do_not_count_is_damaged() -> None:
    cursor_holds(b"questionAQAAAAAAAAAAAAAAAGr9hsDjbl9gsf5IXBT2L1sQMa8S=")
