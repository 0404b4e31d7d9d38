"""What must hold whatever bytes come in: for Hypothesis (test_fuzz.py), and for a fuzzer that watches what code runs.

`python -m tests.fuzz decode|sources|params|cursor|unpack [libFuzzer's arguments]` feeds one target for as long as it is
told (`-max_total_time=60`); `make soak` does that for each. It needs atheris, which there is for Linux on x86-64 only.
"""

import gzip
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NoReturn
from urllib.parse import parse_qsl

import msgspec

from tallybook.errors import BodyTooLarge, InvalidRequest, UnsupportedEncoding
from tallybook.event import FAULTS_MAX, Fault, Record
from tallybook.ingest.decode import Decoded, decode, decode_one, decode_records
from tallybook.ingest.otlp import Limits, decode_lines, decode_metrics, decode_traces
from tallybook.ingest.unpack import ENCODINGS, unpack
from tallybook.sources.record import Options
from tallybook.sources.table import SOURCES
from tallybook.timegrid import INSTANT_MAX_S
from tallybook.wire.cursor import Cursor, read_cursor, write_cursor
from tallybook.wire.params import COSTS, USAGE, Endpoint, PageRequest, parse

NOW_S: Final = 1_795_000_000
EVENTS_MAX: Final = 1_000
UNPACKED_BYTES_MAX: Final = 1 << 16
OPTIONS: Final = Options(takes_costs=True, attributes={"user_id": ("user.id",), "project_id": ("service.name",)})
ENDPOINTS: Final = (*USAGE.values(), COSTS)

Found = tuple[dict[int, Record], dict[int, list[Fault]]]
"""By place in the body: the good events, and what is wrong with the others."""


def found_in(body: bytes) -> Found:
    """What decoding finds in a body, which must be in order and fit for a receipt."""
    decoded = decode(body, NOW_S * 1000, EVENTS_MAX)
    records = dict(zip(decoded.indexes, decoded.records, strict=False))
    for columns in decoded.columns:
        records |= {position: columns.record(place) for place, position in enumerate(columns.positions.tolist())}
    rejected = {item.index: item.faults for item in decoded.rejected}
    assert [*decoded.indexes] == sorted(records)
    assert sorted([*records, *rejected]) == list(range(len(records) + len(rejected)))
    for faults in rejected.values():
        assert 1 <= len(faults) <= FAULTS_MAX
        msgspec.json.encode([(fault.field, fault.value, fault.message) for fault in faults])
    for item in decoded.rejected:
        assert item.raw in body
    return records, rejected


def decode_agrees(items: Sequence[bytes]) -> None:
    """A body is what its items are one by one, whichever way it is written.

    Args:
        items: of one line each; at least two, the first of them an object.
    """
    expected: Found = {}, {}
    for index, item in enumerate(items):
        found = decode_one(item, NOW_S * 1000)
        if isinstance(found, Record):
            expected[0][index] = found
        else:
            expected[1][index] = found
    assert found_in(b"\n".join(items)) == expected
    if all(map(is_json, items)):
        assert found_in(b"[" + b",".join(items) + b"]") == expected


def is_json(item: bytes) -> bool:
    """Whether an item can stand in an array: it is JSON to its last byte."""
    try:
        json.loads(item.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def decode_holds(data: bytes) -> None:
    """Any bytes are events, faults, or no JSON at all; never anything else."""
    try:
        found_in(data)
    except (InvalidRequest, BodyTooLarge) as error:
        msgspec.json.encode(error.envelope())
    first, *rest = data.splitlines() or [b""]
    lines = [line.strip() for line in (first, *rest) if line.strip()]
    if lines and len(lines) < EVENTS_MAX and not data.startswith((b"[", b"\xef")):
        decode_agrees([b'{"kind":"images","images":1}', *lines])


def sources_hold(data: bytes) -> None:
    """Any bytes are events and faults of a source's records, or are refused; never anything else."""
    names = [*SOURCES, "traces", "metrics"]
    name, body = names[data[0] % len(names)] if data else names[0], data[1:]
    try:
        found = _read(name, body)
    except (InvalidRequest, BodyTooLarge) as error:
        msgspec.json.encode(error.envelope())
        return
    for record in found.records:
        msgspec.json.encode(record.dimensions)
    for rejected in found.rejected:
        assert rejected.faults
        msgspec.json.encode([(fault.field, fault.value, fault.message) for fault in rejected.faults])


def _read(name: str, body: bytes) -> Decoded:
    limits = Limits(NOW_S * 1000, EVENTS_MAX)
    if name in ("traces", "metrics"):
        read = decode_traces if name == "traces" else decode_metrics
        return read(body, OPTIONS, limits, is_json=body[:1] == b"{")
    read_all = decode_lines if name.startswith("otlp") else decode_records
    return read_all(SOURCES[name], OPTIONS, body, NOW_S * 1000, EVENTS_MAX)


def params_hold(data: bytes) -> None:
    """Any query is a page within the endpoint's limits, or refused by the name of a parameter."""
    endpoint = ENDPOINTS[data[0] % len(ENDPOINTS)] if data else COSTS
    parameters = parse_qsl(data[1:].decode(errors="replace"), keep_blank_values=True)
    try:
        page = parse(endpoint, parameters, "org", NOW_S, 10)
    except InvalidRequest as error:
        refused = error
    else:
        page_holds(endpoint, page, parameters)
        return
    assert refused.param is not None
    msgspec.json.encode(refused.envelope())


def page_holds(endpoint: Endpoint, page: PageRequest, parameters: Sequence[tuple[str, str]]) -> None:
    """A page has whole buckets in a row, no more than allowed, and the next page goes on where it ends."""
    width_s = page.query.width_s
    (limit_max,) = [width.limit_max for width in endpoint.widths.values() if width.seconds == width_s]
    assert 1 <= len(page.buckets) <= limit_max
    assert (page.buckets[0][0], page.buckets[-1][1]) == (page.query.start_s, page.query.end_s)
    assert all(start < end <= start - start % width_s + width_s for start, end in page.buckets)
    assert all(end == start for (_, end), (start, _) in zip(page.buckets, page.buckets[1:], strict=False))
    assert set(page.query.group_by) <= set(endpoint.group_by)
    if page.next_page is not None:
        again = [(name, value) for name, value in parameters if name not in ("page", "page[]")]
        following = parse(endpoint, [*again, ("page", page.next_page)], "org", NOW_S + 1, 10)
        assert following.buckets[0][0] == page.buckets[-1][1]


def cursor_holds(data: bytes) -> None:
    """Any text is refused as a cursor, but for those that were written for the question."""
    question, text = data[:8], data[8:].decode(errors="surrogateescape")
    try:
        cursor = read_cursor(text, question)
    except InvalidRequest as error:
        msgspec.json.encode(error.envelope())
    else:
        assert write_cursor(cursor, question).removeprefix("page_") == text.removeprefix("page_")
    next_s = int.from_bytes(data[:4], "big") % INSTANT_MAX_S
    cursor = Cursor(next_s, INSTANT_MAX_S)
    assert read_cursor(write_cursor(cursor, question), question) == cursor


def unpack_holds(data: bytes) -> None:
    """Any bytes unpack to no more than the limit, or are refused."""
    for encoding in (*ENCODINGS, data[:8].decode("latin-1")):
        try:
            assert len(unpack(data, encoding, UNPACKED_BYTES_MAX)) <= max(UNPACKED_BYTES_MAX, len(data))
        except (InvalidRequest, BodyTooLarge, UnsupportedEncoding) as error:
            msgspec.json.encode(error.envelope())


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "decode": decode_holds,
    "sources": sources_hold,
    "params": params_hold,
    "cursor": cursor_holds,
    "unpack": unpack_holds,
}


SEEDS: Final = {
    "decode": b"""{"kind":"completions","id":"a","timestamp":1748822400.5,"input_tokens":9,"input_cached_tokens":3,
        "output_tokens":2,"cost":{"value":0.5,"currency":"usd"}}""",
    "sources": b"""\x01{"response":{"object":"response","id":"r","created_at":1748822400,"model":"m",
        "status":"completed","usage":{"input_tokens":9,"output_tokens":2}},"user_id":"u"}""",
    "params": b"\x00start_time=1748822400&end_time=1748908800&bucket_width=1h&group_by[]=model&limit=5&page=page_AQ",
    "cursor": b"question" + write_cursor(Cursor(0, NOW_S), b"question").encode(),
    "unpack": gzip.compress(b"{}", mtime=0),
}
"""What a target understands; a fuzzer goes on from there."""


def main(name: str, *arguments: str) -> None:
    """Feed a target what reaches code that nothing before it did."""
    import atheris  # noqa: PLC0415  only here: not every platform has it

    with TemporaryDirectory() as corpus:
        (Path(corpus) / "seed").write_bytes(SEEDS[name])
        atheris.instrument_all()
        atheris.Setup(["fuzz", *arguments, corpus], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
