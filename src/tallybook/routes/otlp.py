"""``POST /v1/traces``, ``/v1/logs`` and ``/v1/metrics``: OTLP over HTTP, protobuf and JSON.

Answers, also of what goes wrong, are in the type of the request and in OTLP's manner: partial success for what is not
counted, a Status for what is refused. A full quarantine refuses nothing here: senders try again for seconds only, and
then the good spans would be lost. A sender takes 400, 401, 403 and 413 for good, and tries again after 429 and 503.

Source: OTLP specification 1.x, "OTLP/HTTP Response".
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec
from google.rpc.code_pb2 import Code
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tallybook.errors import RequestError, UnsupportedMediaType
from tallybook.ingest.decode import Decoded
from tallybook.ingest.otlp import Limits, decode_logs, decode_metrics, decode_traces
from tallybook.keys import Key
from tallybook.mistakes import Mistake
from tallybook.routes.context import REFUSE, Context, answer, client_address, context
from tallybook.routes.events import OWNER, Sent, is_worth_keeping, take, take_body
from tallybook.store.protocol import Outcome

_JSON: Final = "application/json"
_PROTOBUF: Final = "application/x-protobuf"
_TYPES: Final[dict[str, bool | None]] = {
    _JSON: True,
    "text/json": True,
    _PROTOBUF: False,
    "application/protobuf": False,
    "application/vnd.google.protobuf": False,
    # What clients say who were not given a type: the first byte tells.
    "": None,
    "application/octet-stream": None,
    "application/x-www-form-urlencoded": None,
    "text/plain": None,
}
"""Which types are JSON."""
_CODES: Final = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.UNIMPLEMENTED,
    408: Code.DEADLINE_EXCEEDED,
    413: Code.INVALID_ARGUMENT,
    415: Code.INVALID_ARGUMENT,
    429: Code.RESOURCE_EXHAUSTED,
    503: Code.UNAVAILABLE,
}


class _Signal(NamedTuple):
    """One of the three endpoints.

    Attributes:
        dialect: as quarantine and metrics have it.
        items: what a body has many of.
        decode: reads a body.
        response: what is answered, in protobuf.
        rejected: its field that counts what is not counted, in protobuf and in JSON.
    """

    dialect: str
    items: str
    decode: Callable[..., Decoded]
    response: Callable[..., Any]
    rejected: tuple[str, str]


_TRACES: Final = _Signal(
    "otlp", "Spans", decode_traces, ExportTraceServiceResponse, ("rejected_spans", "rejectedSpans")
)
_METRICS: Final = _Signal(
    "otlp-metrics",
    "Data points",
    decode_metrics,
    ExportMetricsServiceResponse,
    ("rejected_data_points", "rejectedDataPoints"),
)


_LOGS: Final = _Signal(
    "otlp-logs",
    "Log records",
    decode_logs,
    ExportLogsServiceResponse,
    ("rejected_log_records", "rejectedLogRecords"),
)


def receiver(signal: _Signal) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint of a signal."""

    async def receive(request: Request) -> Response:
        read = _Reader(signal, _is_json(request), request.scope)
        if read.is_json is not None:  # else it is somebody with curl, rather than a sender that reads a Status
            request.scope[REFUSE] = partial(_refusal, is_json=read.is_json)
        outcome, decoded, quarantined = await take(request, read, signal.dialect, may_drop=True)
        return _accepted(signal, *_not_counted(signal, outcome, decoded, bool(quarantined)), is_json=bool(read.is_json))

    return receive


async def export(app: Context, service: str, key: Key, incoming: Sent) -> bytes:
    """Store what a call of one of `SERVICES` brings; return its response, in protobuf, once it is on disk.

    Raises:
        RequestError: nothing from it was stored.
    """
    signal = SERVICES[service]
    read = _Reader(signal, False, {OWNER: key.organization_id})
    outcome, decoded, quarantined = await take_body(app, key, incoming, read, signal.dialect, may_drop=True)
    return bytes(_accepted(signal, *_not_counted(signal, outcome, decoded, bool(quarantined)), is_json=False).body)


class _Reader:
    """Makes events of a body.

    Attributes:
        is_json: which of the two types it has; None until its first byte has told.
    """

    def __init__(self, signal: _Signal, is_json: bool | None, scope: Mapping[str, Any]) -> None:
        self._signal = signal
        self._scope = scope
        self.is_json = is_json

    def __call__(self, app: Context, body: bytes, received_ms: int) -> Decoded:
        """Return the events."""
        if self.is_json is None:
            # A message of protobuf can begin with white space, but does not also end with a brace then.
            text = body.strip() if body[:1].isspace() else body.rstrip()
            self.is_json = text.startswith(b"{") and text.endswith(b"}")
        limits = Limits(received_ms, app.settings.events_max, app.store.kept.events_s * 1000)
        options = replace(app.options, owner=self._scope[OWNER])
        return self._signal.decode(body, options, limits, is_json=self.is_json)


def _is_json(request: Request) -> bool | None:
    """Return which of the two types a body has; None where the header leaves it open.

    Raises:
        UnsupportedMediaType: neither.
    """
    sent = request.headers.get("content-type", "")
    name = sent.partition(";")[0].strip().lower()
    if name not in _TYPES:
        context(request).mistakes.note(Mistake.CONTENT_TYPE, client_address(request))
        raise UnsupportedMediaType(
            f"Content-Type {sent[:64]!r} is not OTLP's; send {_PROTOBUF} or {_JSON}",
            param="Content-Type",
            code="unsupported_content_type",
        )
    return _TYPES[name]


def _not_counted(signal: _Signal, outcome: Outcome, decoded: Decoded, is_kept: bool) -> tuple[int, str]:
    """Return how many items are not counted, and why the first of them is not."""
    # A call that was reported before is counted, whatever this report says of it; `tallybook doctor` shows that.
    conflicts = {decoded.indexes[each.position]: each for each in outcome.conflicts if not each.is_call}
    count = len(decoded.rejected) + len(conflicts)
    if decoded.rejected:
        first = decoded.rejected[0]
        where = ""
        if is_kept:
            where = "; in quarantine, to be mended and replayed"
        elif any(map(is_worth_keeping, decoded.rejected)):
            where = "; not kept: quarantine is full"
        problem = first.faults[0].message
        return count, f"{signal.items} not counted: {count}{where}. At index {first.index}: {problem}"
    if conflicts:
        index, conflict = next(iter(conflicts.items()))
        problem = (
            f"the same event is stored already with {conflict.field} {conflict.stored}, and now has {conflict.sent}; "
            "the first stands"
        )
        return count, f"{signal.items} not counted: {count}. At index {index}: {problem}"
    return 0, ""


def _accepted(signal: _Signal, rejected: int, message: str, *, is_json: bool) -> Response:
    in_protobuf, in_json = signal.rejected
    if is_json:
        partial_success = {in_json: str(rejected), "errorMessage": message}
        return answer({"partialSuccess": partial_success} if rejected else {})
    response = signal.response()
    if rejected:
        setattr(response.partial_success, in_protobuf, rejected)
        response.partial_success.error_message = message
    return Response(response.SerializeToString(), media_type=_PROTOBUF)


def judged(error: RequestError) -> tuple[int, int, int | None]:
    """Return what a sender is to make of an error: HTTP's status, gRPC's code, and after how many seconds to try again.

    There are none where that cannot help. A key that is wrong stays wrong: who is asked to try again later would do
    that, with every batch.
    """
    is_hopeless = error.code == "too_many_attempts"
    status = 401 if is_hopeless else error.status
    return status, int(_CODES.get(status, Code.INTERNAL)), None if is_hopeless else error.retry_after_s


def _refusal(error: RequestError, *, is_json: bool) -> Response:
    """Return an error as a Status."""
    status, code, retry_after_s = judged(error)
    if is_json:
        content = msgspec.json.encode({"code": code, "message": error.message})
    else:
        content = Status(code=code, message=error.message).SerializeToString()
    response = Response(content, status, media_type=_JSON if is_json else _PROTOBUF)
    if retry_after_s is not None:
        response.headers["retry-after"] = str(retry_after_s)
    return response


SERVICES: Final = {
    f"/opentelemetry.proto.collector.{name}Service/Export": signal
    for name, signal in (
        ("trace.v1.Trace", _TRACES),
        ("metrics.v1.Metrics", _METRICS),
        ("logs.v1.Logs", _LOGS),
    )
}
"""What is called over gRPC."""

routes = [
    Route("/v1/traces", receiver(_TRACES), methods=["POST"]),
    Route("/v1/metrics", receiver(_METRICS), methods=["POST"]),
    Route("/v1/logs", receiver(_LOGS), methods=["POST"]),
    Route("/api/public/otel/v1/traces", receiver(_TRACES), methods=["POST"]),  # where Langfuse's SDK sends them
]
