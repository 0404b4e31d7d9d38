"""Makes calls with one client, traced in the ways asked for. Runs with the packages beside it, not with ours.

Standard input: JSON of `models` (address of the provider), `client`, `tracers`, `calls` ({api, model, stream} each) and
`batch` (whether spans are exported together). Where spans go is said by OpenTelemetry's variables.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

Call = dict[str, Any]
Make = Callable[[Call], Any]
ASKED = json.load(sys.stdin)
MODELS: str = ASKED["models"]
SAID: list[Any] = [{"role": "user", "content": "hi"}]
WITH_USAGE = {"stream_options": {"include_usage": True}}
os.environ |= {
    "OPENAI_API_KEY": "sk-none",
    "OPENAI_BASE_URL": f"{MODELS}/v1",
    "ANTHROPIC_API_KEY": "sk-none",
    "ANTHROPIC_BASE_URL": MODELS,
    "GOOGLE_API_KEY": "none",
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": MODELS,
}


# Clients: each gives a function that makes one call. Libraries are imported only by those that use them, after tracing
# has been set up.


def openai() -> Make:
    from openai import OpenAI

    return _openai(OpenAI(max_retries=0))


def langfuse_openai() -> Make:
    from langfuse.openai import OpenAI

    return _openai(OpenAI(max_retries=0))


def _openai(client: Any) -> Make:
    def make(call: Call) -> None:
        model = call["model"]
        if call["api"] == "embeddings":
            client.embeddings.create(model=model, input="hi")
        elif call["api"] == "responses" and call["stream"]:
            _read(client.responses.create(model=model, input="hi", stream=True))
        elif call["api"] == "responses":
            client.responses.create(model=model, input="hi")
        elif call["stream"]:
            _read(client.chat.completions.create(model=model, messages=SAID, stream=True, **WITH_USAGE))
        else:
            client.chat.completions.create(model=model, messages=SAID)

    return make


def anthropic() -> Make:
    from anthropic import Anthropic

    client = Anthropic(max_retries=0)

    def make(call: Call) -> None:
        asked = {"model": call["model"], "messages": SAID, "max_tokens": 1_000}
        if call["stream"]:
            _read(client.messages.create(stream=True, **asked))
        else:
            client.messages.create(**asked)

    return make


def anthropic_helper() -> Make:
    """Streams with the SDK's helper, of which applications use the final message."""
    from anthropic import Anthropic

    client = Anthropic(max_retries=0)

    def make(call: Call) -> None:
        with client.messages.stream(model=call["model"], messages=SAID, max_tokens=1_000) as stream:
            stream.get_final_message()

    return make


def google() -> Make:
    from google.genai import Client

    client = Client(http_options={"base_url": MODELS})

    def make(call: Call) -> None:
        if call["stream"]:
            _read(client.models.generate_content_stream(model=call["model"], contents="hi"))
        else:
            client.models.generate_content(model=call["model"], contents="hi")

    return make


def bedrock() -> Make:
    import boto3

    client = boto3.client("bedrock-runtime")
    said = [{"role": "user", "content": [{"text": "hi"}]}]

    def make(call: Call) -> None:
        if call["stream"]:
            _read(client.converse_stream(modelId=call["model"], messages=said)["stream"])
        else:
            client.converse(modelId=call["model"], messages=said)

    return make


def langchain() -> Make:
    from langchain_anthropic import ChatAnthropic
    from langchain_openai import ChatOpenAI

    def make(call: Call) -> None:
        if call["api"] == "messages":
            model: Any = ChatAnthropic(model=call["model"], max_retries=0)
        else:
            # With an address of one's own it asks for the usage of a stream only if told to.
            responses = call["api"] == "responses"
            model = ChatOpenAI(model=call["model"], max_retries=0, use_responses_api=responses, stream_usage=True)
        if call["stream"]:
            _read(model.stream("hi"))
        else:
            model.invoke("hi")

    return make


def pydantic_ai() -> Make:
    from pydantic_ai import Agent

    apis = {"messages": "anthropic", "chat": "openai-chat", "responses": "openai-responses", "gemini": "google"}

    def make(call: Call) -> None:
        if call["api"] == "gemini":
            from pydantic_ai.models.google import GoogleModel
            from pydantic_ai.providers.google import GoogleProvider

            model: Any = GoogleModel(call["model"], provider=GoogleProvider(api_key="none", base_url=MODELS))
        else:
            model = f"{apis[call['api']]}:{call['model']}"
        agent = Agent(model)

        async def stream() -> None:
            async with agent.run_stream("hi") as run:
                await run.get_output()

        if call["stream"]:
            asyncio.run(stream())
        else:
            agent.run_sync("hi")

    return make


def agents() -> Make:
    from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner
    from openai import AsyncOpenAI

    shapes = {"chat": OpenAIChatCompletionsModel, "responses": OpenAIResponsesModel}

    async def run(call: Call) -> None:
        async with AsyncOpenAI(max_retries=0) as client:
            model = shapes[call["api"]](call["model"], client)
            agent = Agent(name="a", model=model, model_settings=ModelSettings(include_usage=True))
            if call["stream"]:
                async for _ in Runner.run_streamed(agent, "hi").stream_events():
                    pass
            else:
                await Runner.run(agent, "hi")

    return lambda call: asyncio.run(run(call))


def _read(stream: Any) -> None:
    for _ in stream:
        pass


# Tracers: each switches one on. Without any, only libraries that trace themselves do.


def pydantic_ai_itself() -> None:
    from pydantic_ai import Agent

    Agent.instrument_all()


def logfire(*names: str) -> Callable[[], None]:
    def switch_on() -> None:
        import logfire

        for name in names:
            getattr(logfire, f"instrument_{name}")()

    return switch_on


def instrumentor(module: str, name: str) -> Callable[[], None]:
    def switch_on() -> None:
        made = getattr(__import__(module, fromlist=[name]), name)()
        # The lock has versions that do not match what an instrumentation asks for: to be skipped in silence is worse.
        made.instrument(skip_dep_check=True, raise_exception_on_conflict=True)

    return switch_on


OFFICIAL, INFERENCE = "opentelemetry.instrumentation", "openinference.instrumentation"
TRACERS: dict[str, Callable[[], None]] = {
    "pydantic-ai": pydantic_ai_itself,
    "logfire": lambda: None,
    "logfire-openai": logfire("openai"),
    "logfire-anthropic": logfire("anthropic"),
    "logfire-pydantic-ai": logfire("pydantic_ai"),
    "logfire-openai-agents": logfire("openai_agents"),
    "langfuse": lambda: None,
    "genai-openai": instrumentor(f"{OFFICIAL}.genai.openai", "OpenAIInstrumentor"),
    "genai-anthropic": instrumentor(f"{OFFICIAL}.genai.anthropic", "AnthropicInstrumentor"),
    "genai-bedrock": instrumentor(f"{OFFICIAL}.genai.bedrock", "BedrockInstrumentor"),
    "genai-langchain": instrumentor(f"{OFFICIAL}.genai.langchain", "LangChainInstrumentor"),
    "genai-openai-agents": instrumentor(f"{OFFICIAL}.genai.openai_agents", "OpenAIAgentsInstrumentor"),
    "google-genai": instrumentor(f"{OFFICIAL}.google_genai", "GoogleGenAiSdkInstrumentor"),
    "openai-v2": instrumentor(f"{OFFICIAL}.openai_v2", "OpenAIInstrumentor"),
    "botocore": instrumentor(f"{OFFICIAL}.botocore", "BotocoreInstrumentor"),
    "openllmetry-openai": instrumentor(f"{OFFICIAL}.openai", "OpenAIInstrumentor"),
    "openllmetry-anthropic": instrumentor(f"{OFFICIAL}.anthropic", "AnthropicInstrumentor"),
    "openllmetry-langchain": instrumentor(f"{OFFICIAL}.langchain", "LangchainInstrumentor"),
    "openllmetry-bedrock": instrumentor(f"{OFFICIAL}.bedrock", "BedrockInstrumentor"),
    "openllmetry-google": instrumentor(f"{OFFICIAL}.google_generativeai", "GoogleGenerativeAiInstrumentor"),
    "openllmetry-agents": instrumentor(f"{OFFICIAL}.openai_agents", "OpenAIAgentsInstrumentor"),
    "openinference-openai": instrumentor(f"{INFERENCE}.openai", "OpenAIInstrumentor"),
    "openinference-anthropic": instrumentor(f"{INFERENCE}.anthropic", "AnthropicInstrumentor"),
    "openinference-langchain": instrumentor(f"{INFERENCE}.langchain", "LangChainInstrumentor"),
    "openinference-google": instrumentor(f"{INFERENCE}.google_genai", "GoogleGenAIInstrumentor"),
    "openinference-bedrock": instrumentor(f"{INFERENCE}.bedrock", "BedrockInstrumentor"),
    "openinference-agents": instrumentor(f"{INFERENCE}.openai_agents", "OpenAIAgentsInstrumentor"),
}
CLIENTS: dict[str, Callable[[], Make]] = {
    "openai": openai,
    "langfuse-openai": langfuse_openai,
    "anthropic": anthropic,
    "anthropic-helper": anthropic_helper,
    "google": google,
    "bedrock": bedrock,
    "langchain": langchain,
    "pydantic-ai": pydantic_ai,
    "agents": agents,
}


def set_up(tracers: list[str]) -> Any:
    """Say where spans go, as each vendor documents it; return what ends in sending the rest."""
    if any(name.startswith("logfire") for name in tracers):
        import logfire

        logfire.configure(send_to_logfire=False, console=False)  # OpenTelemetry's variables say where to, then
        return logfire
    if "langfuse" in tracers:
        from langfuse import Langfuse

        return Langfuse()
    provider = TracerProvider()
    process = BatchSpanProcessor if ASKED["batch"] else SimpleSpanProcessor
    provider.add_span_processor(process(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider


def main() -> None:
    sending = set_up(ASKED["tracers"])
    for name in ASKED["tracers"]:
        TRACERS[name]()
    make = CLIENTS[ASKED["client"]]()
    failed: list[str] = []
    for call in ASKED["calls"]:
        try:
            make(call)
        except Exception as error:
            failed.append(f"{call}: {type(error).__name__}: {error}")
    sending.shutdown()
    if failed:
        sys.exit("\n".join(failed))


main()
