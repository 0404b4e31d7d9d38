"""What a client that speaks HTTP/2 on the HTTP port is answered: what gRPC shows to whoever made the call.

OTLP's exporters speak gRPC by default. Cut off, they say no more than that the server is unavailable, and go
on trying. So the first call on a connection gets the status UNIMPLEMENTED with a sentence that says what to set, which
exporters log and do not try again, and the connection ends; a few frames of RFC 9113 are all that takes. Nothing a
client sends is kept.
"""

from typing import Final
from urllib.parse import quote

MESSAGE: Final = (
    "This is Tallybook's HTTP port, and gRPC reached it. Set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or send to the "
    "port that the server's setting otlp-grpc-port names."
)
_PREFACE_END: Final = b"SM\r\n\r\n"
_FRAME_HEAD: Final = 9
_HEADERS, _SETTINGS, _GOAWAY = 1, 4, 7
_ACK = _END_STREAM = 1
_END_HEADERS: Final = 4
_NO_ERROR: Final = 0
"""Not HTTP_1_1_REQUIRED, at which the clients of gRPC's C library end their whole process (seen with 1.85.3)."""
_UNIMPLEMENTED: Final = b"12"


class Refusal:
    """One connection's answer.

    Attributes:
        is_over: nothing more is to be sent.
    """

    def __init__(self) -> None:
        self.is_over = False
        self._head = b""
        self._skip = 0

    def begin(self, data: bytes) -> bytes:
        """Return what to send first.

        Args:
            data: the piece that the preface ended in, and what came with it.
        """
        _, end, rest = data.partition(_PREFACE_END)
        if not end:  # it came in several pieces, of which this has the end of the end
            size = next((size for size in range(5, 0, -1) if data.startswith(_PREFACE_END[-size:])), 0)
            rest = data[size:]
        return _frame(_SETTINGS, 0, 0) + self.answer(rest)

    def answer(self, data: bytes) -> bytes:
        """Return what to send after frames, cut anywhere."""
        answers = []
        while data and not self.is_over:
            if self._skip:
                passed = min(self._skip, len(data))
                self._skip -= passed
                data = data[passed:]
                continue
            head = self._head + data[: _FRAME_HEAD - len(self._head)]
            data = data[_FRAME_HEAD - len(self._head) :]
            if len(head) < _FRAME_HEAD:
                self._head = head
                break
            self._head = b""
            self._skip = int.from_bytes(head[:3])
            answers.append(self._answer_frame(head[3], head[4], int.from_bytes(head[5:]) & 0x7FFFFFFF))
        return b"".join(answers)

    def _answer_frame(self, kind: int, flags: int, stream: int) -> bytes:
        if kind == _SETTINGS and not flags & _ACK:
            return _frame(_SETTINGS, _ACK, 0)
        if kind == _HEADERS and stream:
            self.is_over = True
            goodbye = stream.to_bytes(4) + _NO_ERROR.to_bytes(4) + MESSAGE.encode()
            return _frame(_HEADERS, _END_STREAM | _END_HEADERS, stream, _STATUS) + _frame(_GOAWAY, 0, 0, goodbye)
        return b""


def _frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return len(content).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + content


def _field(name: bytes, value: bytes) -> bytes:
    """Return a header as HPACK spells it without table and without Huffman's code."""
    return b"\x00" + _text(name) + _text(value)


def _text(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes((len(text),)) + text
    rest, length = len(text) - 127, bytearray((127,))
    while rest >= 128:
        length.append(rest % 128 + 128)
        rest //= 128
    length.append(rest)
    return bytes(length) + text


_STATUS: Final = b"".join(
    (
        b"\x88",  # :status 200, as gRPC has it for whatever is in its own status
        _field(b"content-type", b"application/grpc"),
        _field(b"grpc-status", _UNIMPLEMENTED),
        _field(b"grpc-message", quote(MESSAGE, safe=" !\"#$&'()*+,-./:;<=>?@[]^_`{|}~").encode()),
    )
)
