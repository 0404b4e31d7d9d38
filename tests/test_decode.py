"""Decoding keeps pace with the size of a body, whatever is in it."""

import time

import pytest

from tallybook.errors import InvalidRequest
from tallybook.ingest.decode import decode

NOW_MS = 1_795_000_000_000
GOOD = b'{"kind":"images","images":1}'
SURROGATE = b'{"kind":"images","images":1,"model":"\\ud800"}'
MISSPELT = b'{"kind":"images","images":1,"modle%d":1}'


def seconds(body: bytes) -> float:
    started = time.process_time()
    decode(body, NOW_MS, 1_000_000)
    return time.process_time() - started


@pytest.mark.parametrize(
    "bad",
    [SURROGATE, MISSPELT % 1, b'{"kind":"image"}', b'{"kind":"images","images":1e400}'],
    ids=["surrogate", "misspelt", "unknown kind", "out of range"],
)
def test_a_body_with_a_fault_takes_time_in_proportion_to_its_size(bad: bytes) -> None:
    """Ten times the events take about ten times as long, and not a hundred times: 40 leaves room for a busy machine."""

    def body(count: int) -> bytes:
        return b"[" + b",".join([GOOD] * (count - 1) + [bad]) + b"]"

    seconds(body(2_000))
    assert seconds(body(20_000)) < 40 * max(seconds(body(2_000)), 0.005)


@pytest.mark.parametrize(
    "body", [b"[", b"[1", b"[1,", b'[{"a":"\\ud800"}', b'[{"a":"\\ud800"},', b'["\\ud800"]x', b'["\\ud800" 1]']
)
def test_an_array_cut_short_or_followed_by_something_is_not_json(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode(body, NOW_MS, 10)


@pytest.mark.parametrize(
    "body", [b'data: {"id": "a"}\n\ndata: [DONE]\n\n', b'event: message_start\ndata: {"type": "a"}\n\n']
)
def test_the_text_of_a_stream_is_refused_with_what_to_send(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="the text of a stream"):
        decode(body, NOW_MS, 1)
