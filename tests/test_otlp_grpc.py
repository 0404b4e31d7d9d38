"""OTLP over gRPC: the same promises as over HTTP, kept to the real exporter and to clients that keep to nothing."""

import base64
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from tests.otlp_shaped import END_NS, Json, histogram, in_protobuf, metrics, point, traces
from tests.support import Server, read_log, resident_bytes
from tests.test_otlp_http import CALL, TOKENS, call, used

TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
METRICS = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
MIB = 1024 * 1024
ON = ("--otlp-grpc-port", "0", "--wrong-keys-max", "1000000")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with both ports."""
    server = Server.start(tmp_path_factory.mktemp("both"), args=[*ON, "--body-bytes-max", str(MIB)])
    yield server
    assert server.stop() == 0


def port(server: Server) -> str:
    (address,) = re.findall(r'"address":"([^"]+)"', (server.data / "server.log").read_text())[-1:]
    return str(address)


@pytest.fixture
def channel(both: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(port(both), options=[("grpc.max_send_message_length", -1)]) as found:
        yield found


def send(
    channel: grpc.Channel, key: str | None, body: bytes, method: str = TRACES, timeout_s: float = 30, **options: Any
) -> bytes:
    metadata = [("authorization", f"Bearer {key}")] if key else []
    caller: Any = channel.unary_unary(method)
    answer: bytes = caller(body, timeout=timeout_s, metadata=options.pop("metadata", metadata), **options)
    return answer


def refused(channel: grpc.Channel, key: str | None, body: bytes, **options: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as raised:
        send(channel, key, body, **options)
    error: Any = raised.value
    return error.code(), error.details()


def calls(*numbers: int) -> bytes:
    return in_protobuf(traces(*(call(number) for number in numbers)))


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_spans_are_stored_when_they_are_acknowledged_and_once(
    both: Server, channel: grpc.Channel, organization: str, compression: grpc.Compression
) -> None:
    key = both.key(organization)
    for _ in range(2):
        answer = send(channel, key, calls(*range(100)), compression=compression)
        assert not ExportTraceServiceResponse.FromString(answer).HasField("partial_success")
        with both.http(key) as api:
            assert (used(api), used(api, "input_tokens")) == (100, 900)


def test_metrics_have_a_service_as_well(both: Server, channel: grpc.Channel, organization: str) -> None:
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o", "gen_ai.token.type": "input"}
    body = in_protobuf(metrics(histogram("gen_ai.client.token.usage", point(attributes, sum=10, count=2))))
    key = both.key(organization)
    answer = ExportMetricsServiceResponse.FromString(send(channel, key, body, METRICS))
    assert answer.partial_success.rejected_data_points == 0, answer
    with both.http(key) as api:
        assert used(api, "input_tokens") == 10


def test_what_is_not_counted_is_a_partial_success(both: Server, channel: grpc.Channel, organization: str) -> None:
    bad = call(1, **{"gen_ai.usage.input_tokens": -1})
    answer = send(channel, both.key(organization), in_protobuf(traces(bad, call(2))))
    success = ExportTraceServiceResponse.FromString(answer).partial_success
    assert success.rejected_spans == 1
    assert "At index 0" in success.error_message


def basic(pair: str) -> str:
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("authorization", "Bearer {}"),
        ("authorization", "{}"),
        ("x-api-key", "{}"),
        ("api-key", "{}"),
        ("authorization", "basic:pk:{}"),
        ("authorization", "basic:{}:"),
    ],
)
def test_a_key_works_in_every_form_that_http_takes(
    both: Server, channel: grpc.Channel, organization: str, name: str, form: str
) -> None:
    value = form.format(both.key(organization, ["api.usage.write"]))
    if value.startswith("basic:"):
        value = basic(value.removeprefix("basic:"))
    send(channel, None, calls(1), metadata=[(name, value)])


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"\x0a\xff", grpc.StatusCode.INVALID_ARGUMENT), (b"\x1f\x8bno gzip", grpc.StatusCode.INVALID_ARGUMENT)],
)
def test_what_can_never_be_read_is_an_invalid_argument(
    both: Server, channel: grpc.Channel, organization: str, body: bytes, code: grpc.StatusCode
) -> None:
    assert refused(channel, both.key(organization), body)[0] is code


def test_keys_are_asked_for_as_everywhere(both: Server, channel: grpc.Channel, organization: str) -> None:
    for key in (None, "sk-admin-wrong"):
        code, message = refused(channel, key, calls(1))
        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert "API key" in message
    code, message = refused(channel, both.key(organization, ["api.usage.read"]), calls(1))
    assert (code, "api.usage.write" in message) == (grpc.StatusCode.PERMISSION_DENIED, True)


def test_an_unknown_service_says_which_there_are(both: Server, channel: grpc.Channel) -> None:
    code, message = refused(channel, both.admin_key, b"", method="/some.Service/Call")
    assert (code, TRACES in message) == (grpc.StatusCode.UNIMPLEMENTED, True)


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
@pytest.mark.parametrize("with_key", [True, False])
def test_a_message_of_any_size_costs_no_more_than_the_limit(
    both: Server, channel: grpc.Channel, compression: grpc.Compression, with_key: bool
) -> None:
    before = resident_bytes(both.pid)
    bomb = b"\0" * (200 * MIB)
    code, message = refused(channel, both.admin_key if with_key else None, bomb, compression=compression)
    if with_key:
        assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert str(MIB) in message
    else:
        assert code is grpc.StatusCode.UNAUTHENTICATED
    assert resident_bytes(both.pid) - before < 40 * MIB
    assert "Traceback" not in read_log(both.data)


def test_too_many_wrong_keys_are_not_asked_to_try_again(tmp_path: Path) -> None:
    server = Server.start(tmp_path / "data", args=["--otlp-grpc-port", "0", "--wrong-keys-max", "3"])
    with grpc.insecure_channel(port(server)) as channel:
        found = [refused(channel, "sk-admin-wrong", calls(1)) for _ in range(5)]
        assert {code for code, _ in found} == {grpc.StatusCode.UNAUTHENTICATED}
        assert "after more than 3 wrong ones" in found[-1][1]
        send(channel, server.admin_key, calls(1))
    assert server.stop() == 0


def test_a_full_queue_says_when_to_try_again(tmp_path: Path) -> None:
    """One body at a time comes in; that a slow one does is what the others are told, and what the exporter heeds."""
    limits = ["--queue-bytes-max", "1024", "--queue-s-max", "1", "--body-bytes-max", "1048576"]
    server = Server.start(tmp_path / "data", args=["--otlp-grpc-port", "0", *limits])
    metadata = [("authorization", f"Bearer {server.admin_key}")]
    with grpc.insecure_channel(port(server)) as slow, grpc.insecure_channel(port(server)) as channel:
        ends = threading.Event()

        def nothing() -> Iterator[bytes]:
            ends.wait(20)
            yield calls(1)

        stream: Any = slow.stream_unary(TRACES)
        held = stream.future(nothing(), metadata=metadata)
        time.sleep(0.5)
        with pytest.raises(grpc.RpcError) as raised:
            send(channel, server.admin_key, calls(2))
        error: Any = raised.value
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        trailers = dict(error.trailing_metadata())
        retry = RetryInfo()
        assert Status.FromString(trailers["grpc-status-details-bin"]).details[0].Unpack(retry)
        assert retry.retry_delay.seconds == 1
        ends.set()
        held.result(10)
        send(channel, server.admin_key, calls(2))
    with server.http() as api:
        assert used(api) == 2
    assert server.stop() == 0


def test_a_call_too_many_is_sent_again_by_the_real_exporter_and_stored(tmp_path: Path) -> None:
    server = Server.start(tmp_path / "data", args=["--otlp-grpc-port", "0", "--connections-max", "3"])
    metadata = (("authorization", f"Bearer {server.admin_key}"),)
    ends = threading.Event()

    def later(number: int) -> Iterator[bytes]:
        ends.wait(20)
        yield calls(number)

    with grpc.insecure_channel(port(server)) as slow:
        stream: Any = slow.stream_unary(TRACES)
        held = [stream.future(later(number), metadata=metadata) for number in range(3)]
        time.sleep(0.5)
        assert refused(slow, None, calls(4))[0] is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as raised:
            send(slow, server.admin_key, calls(4))
        error: Any = raised.value
        assert (error.code(), "connections-max" in error.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
        retry = RetryInfo()
        status = Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
        assert (status.details[0].Unpack(retry), retry.retry_delay.seconds) == (True, 1)
        exporter = OTLPSpanExporter(endpoint=f"http://{port(server)}", insecure=True, headers=metadata)
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(exporter))
        attributes: Json = CALL | TOKENS | {"gen_ai.response.id": "resp_4"}
        provider.get_tracer("test").start_span("chat", attributes=attributes, start_time=END_NS - 10**6).end(END_NS)
        timer = threading.Timer(1.5, ends.set)
        timer.start()
        provider.shutdown()
        assert ends.is_set()
        for call_ in held:
            call_.result(10)
    with server.http() as api:
        assert used(api) == 4
    assert server.stop() == 0


def test_a_connection_without_calls_is_held_for_seconds_and_senders_connect_again(
    both: Server, organization: str
) -> None:
    host, _, number = port(both).rpartition(":")
    key = both.key(organization)
    with (
        socket.create_connection((host, int(number)), timeout=30) as silent,
        grpc.insecure_channel(port(both)) as channel,
    ):
        silent.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))  # and empty settings
        send(channel, key, calls(1))
        began = time.monotonic()
        with suppress(ConnectionResetError):
            while silent.recv(65_536):
                pass
        held_s = time.monotonic() - began
        assert held_s < 25
        send(channel, key, calls(2))
    with both.http(key) as api:
        assert used(api) == 2


def test_a_deadline_of_the_client_ends_the_call(both: Server, channel: grpc.Channel) -> None:
    ends = threading.Event()

    def nothing() -> Iterator[bytes]:
        ends.wait(20)
        yield b""

    metadata = [("authorization", f"Bearer {both.admin_key}")]
    stream: Any = channel.stream_unary(TRACES)
    with pytest.raises(grpc.RpcError) as raised:
        stream(nothing(), metadata=metadata, timeout=0.5)
    ends.set()
    error: Any = raised.value
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    send(channel, both.admin_key, calls(1))
    time.sleep(0.2)
    text = httpx.get(f"{both.url}/metrics", trust_env=False).text
    assert f'tallybook_grpc_requests_total{{code="CANCELLED",service="{TRACES}"}}' in text


def send_until_it_ends(server: Server, worker: int, acknowledged: list[int]) -> None:
    with grpc.insecure_channel(port(server)) as channel:
        for number in range(1_000):
            first = (worker * 1_000 + number) * 500
            try:
                send(channel, server.admin_key, calls(*range(first, first + 500)))
            except grpc.RpcError:
                return
            acknowledged.append(500)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_however_the_server_ends_nothing_acknowledged_is_lost(tmp_path: Path, number: signal.Signals) -> None:
    server = Server.start(tmp_path / "data", args=ON)
    acknowledged: list[int] = []
    threads = [threading.Thread(target=send_until_it_ends, args=(server, worker, acknowledged)) for worker in range(3)]
    for thread in threads:
        thread.start()
    while not acknowledged:
        time.sleep(0.1)
    time.sleep(1)
    server.signal(number)
    assert server.wait() == (0 if number is signal.SIGTERM else -number)
    for thread in threads:
        thread.join()
    assert "Traceback" not in read_log(tmp_path / "data")
    again = Server.start(tmp_path / "data")
    with again.http() as api:
        assert used(api) >= sum(acknowledged) > 0
    assert again.stop() == 0


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
def test_the_real_exporter_delivers(both: Server, organization: str, compression: grpc.Compression | None) -> None:
    exporter = OTLPSpanExporter(
        endpoint=f"http://{port(both)}",
        insecure=True,
        headers=(("authorization", f"Bearer {both.key(organization)}"),),
        compression=compression,
    )
    provider = TracerProvider(resource=Resource.create({"service.name": "search"}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    for number in range(1_000):
        attributes: Json = CALL | TOKENS | {"gen_ai.response.id": f"resp_{number}"}
        tracer.start_span("chat", attributes=attributes, start_time=END_NS - 10**6).end(END_NS)
    provider.shutdown()
    with both.http(both.key(organization)) as api:
        assert used(api) == 1_000


@pytest.mark.parametrize("args", [[], ["--host", "::1"]], ids=["4", "6"])
def test_a_port_in_use_is_named(both: Server, tmp_path: Path, args: Sequence[str]) -> None:
    taken = port(both).rpartition(":")[2]
    if args:
        server = Server.start(tmp_path / "six", args=[*args, "--otlp-grpc-port", "0"])
        taken = port(server).rpartition(":")[2]
    with pytest.raises(RuntimeError, match=f"port {taken}: .*choose another --host or --otlp-grpc-port"):
        Server.start(tmp_path / "data", args=[*args, "--otlp-grpc-port", taken])
    if args:
        with grpc.insecure_channel(port(server)) as channel:
            send(channel, server.admin_key, calls(1))
        assert server.stop() == 0


def test_without_the_extra_the_setting_says_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['grpc'] = None\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with pytest.raises(RuntimeError, match=r"pip install 'tallybook\[grpc\]'"):
        Server.start(tmp_path / "data", args=["--otlp-grpc-port", "0"], env={"PYTHONPATH": path})


def test_the_library_is_not_loaded_unless_it_is_used(server: Server) -> None:
    assert "cygrpc" not in Path(f"/proc/{server.pid}/maps").read_text()
