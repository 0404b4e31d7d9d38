"""A program that sends spans as applications do: with the SDK of OpenTelemetry, its exporter and its instrumentation.

``calls URL``: calls a model server in every way, traced by the instrumentation of the official client.
``batches FILE``: exports the same batches whenever it is run, from the first on that it has not noted as sent.
"""

import os
import sys
import time
from pathlib import Path

from openai import OpenAI, OpenAIError
from openai.types.chat import ChatCompletionMessageParam
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, TraceFlags

BATCHES = 200
SPANS_IN_BATCH = 20
START_NS = 1_763_800_000 * 10**9


def call_models(url: str) -> None:
    """Make calls inside a span of an agent, which says the total as agents do."""
    if os.environ.get("OTEL_TRACES_EXPORTER") != "none":
        tracers = TracerProvider()
        tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(tracers)
    meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())])
    metrics.set_meter_provider(meters)
    OpenAIInstrumentor().instrument()
    client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
    with trace.get_tracer("agent").start_as_current_span("invoke_agent") as agent:
        agent.set_attributes({"gen_ai.operation.name": "invoke_agent", "gen_ai.request.model": "gpt-4o-mini"})
        agent.set_attributes({"gen_ai.usage.input_tokens": 10_000, "gen_ai.usage.output_tokens": 10_000})
        client.chat.completions.create(model="gpt-4o-mini", messages=messages)
        for chunk in client.chat.completions.create(
            model="gpt-4o-mini", messages=messages, stream=True, stream_options={"include_usage": True}
        ):
            print(chunk.id)
        for chunk in client.chat.completions.create(model="gpt-4o", messages=messages, stream=True):
            print(chunk.id)
        client.responses.create(model="gpt-5", input="hi")
        client.embeddings.create(model="text-embedding-3-small", input="hi")
        try:
            client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "fail"}])
        except OpenAIError as error:
            print(error)
    if os.environ.get("OTEL_TRACES_EXPORTER") != "none":
        tracers.shutdown()
    meters.shutdown()


def send_batches(progress: Path) -> None:
    """Export what has not been noted as sent; what was sent and not noted is sent again."""
    exporter = OTLPSpanExporter()
    first = len(progress.read_text().splitlines()) if progress.exists() else 0
    with progress.open("a") as noted:
        for batch in range(first, BATCHES):
            while exporter.export([_span(batch, place) for place in range(SPANS_IN_BATCH)]) is not (
                SpanExportResult.SUCCESS
            ):
                time.sleep(0.1)
            noted.write(f"{batch}\n")
            noted.flush()


def _span(batch: int, place: int) -> ReadableSpan:
    number = batch * SPANS_IN_BATCH + place + 1
    return ReadableSpan(
        name="chat gpt-4o",
        context=SpanContext(trace_id=number, span_id=number, is_remote=False, trace_flags=TraceFlags(1)),
        resource=Resource({"service.name": "batches"}),
        attributes={
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.usage.input_tokens": number,
            "gen_ai.usage.output_tokens": 1,
        },
        start_time=START_NS,
        end_time=START_NS + number * 10**6,
        instrumentation_scope=InstrumentationScope("batches"),
    )


if __name__ == "__main__":
    if sys.argv[1] == "calls":
        call_models(sys.argv[2])
    else:
        send_batches(Path(sys.argv[2]))
