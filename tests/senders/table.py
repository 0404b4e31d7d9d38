"""The senders: who reports which calls in which way, and what of them Tallybook can know.

A sender must come out as the provider reported, call by call. What a sender does not report is an expectation of its
own, with the reason; a run fails if it is otherwise, for better or worse.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.senders.calls import BY_NAME, CALLS, Call

HERE = Path(__file__).parent
LOCKS = {
    "python": HERE / "python" / "requirements.lock",
    "litellm": HERE / "litellm" / "requirements.lock",
    "node": HERE / "node" / "package.json",
}
Usage = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Sender:
    """A sender, alone or two at a time.

    Attributes:
        title: what the documentation calls it.
        packages: whose versions the documentation names, as locked in its environment.
        client: makes the calls; `tracers` report them. Their names are those of the environment's program.
        apis: all calls of these are made, but for `without`: by call, the reason why it cannot make it.
        batch: whether spans are exported together; otherwise each by itself as soon as it has ended.
        loses: by field of the usage API, why it is 0 though the provider counted something.
        passes_over: by call, why it is not counted at all.
        renames: what of a model's name is not reported, as a pattern.
        doubles: why every call counts twice: two reports of it have no id in common. They are noticed as alike.
        advice: what to set or to switch off.
        settings: variables of its environment.
        is_core: whether `make test` runs it; `make senders` runs all.
    """

    title: str
    packages: tuple[str, ...]
    client: str
    tracers: tuple[str, ...]
    apis: tuple[str, ...]
    environment: str = "python"
    without: Mapping[str, str] = field(default_factory=dict)
    batch: bool = True
    loses: Mapping[str, str] = field(default_factory=dict)
    passes_over: Mapping[str, str] = field(default_factory=dict)
    renames: str = ""
    renames_why: str = ""
    doubles: str = ""
    advice: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    is_core: bool = False

    @property
    def made(self) -> tuple[Call, ...]:
        """Its calls, in order."""
        return tuple(call for call in CALLS if call.api in self.apis and call.name not in self.without)

    def expected(self, reported: Usage) -> Usage:
        """Return what Tallybook must find, by model, of what the provider reported."""
        passed_over = {BY_NAME[name].model for name in self.passes_over}
        return {
            re.sub(self.renames, "", model): {
                name: 0 if name in self.loses else count * (2 if self.doubles else 1) for name, count in counts.items()
            }
            for model, counts in reported.items()
            if model not in passed_over
        }

    @property
    def versions(self) -> str:
        """Its packages, as locked."""
        return ", ".join(f"{name} {_locked(self.environment)[name]}" for name in self.packages)

    @property
    def verdict(self) -> str:
        """`exact`, or what upstream loses."""
        if self.doubles:
            return f"twice: {self.doubles}"
        lost = {
            **{f"`{name}`": why for name, why in self.loses.items()},
            **{f"calls of `{name}`": why for name, why in self.passes_over.items()},
            **({"part of the model's name": self.renames_why} if self.renames else {}),
        }
        by_reason: dict[str, list[str]] = {}
        for what, why in lost.items():
            by_reason.setdefault(why, []).append(what)
        return "; ".join(f"loses {', '.join(what)}: {why}" for why, what in by_reason.items()) or "exact"


def _locked(environment: str) -> dict[str, str]:
    """Versions by package, of a lock."""
    text = LOCKS[environment].read_text()
    if environment == "node":
        return dict(re.findall(r'"([^"]+)": "(?:npm:[^"]+@)?([0-9][^"]*)"', text))
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))


OPENAI = ("chat", "responses", "embeddings")
MODELS = ("chat", "responses")
NO_AUDIO = dict.fromkeys(("input_audio_tokens", "output_audio_tokens"), "its spans do not say which tokens are audio")
NO_HOUR = {"input_cache_write_12h_tokens": "its spans do not say how long what was written is kept"}
NO_SDK = {"ANTHROPIC_OPEN_TELEMETRY": "false"}
SWITCH_SDK_OFF = "measured with `ANTHROPIC_OPEN_TELEMETRY=false`"
AUDIO_REFUSED = {"chat audio": "it refuses audio"}
STREAM_USAGE = "`stream_usage=True`, or streams of OpenAI's chat report nothing"
INCLUDE_USAGE = "`ModelSettings(include_usage=True)`, or streams of chat report nothing"
AGENTS_CHAT = "where the model is one of chat completions, its spans do not say the cached part"
LITELLM_OTEL = dict.fromkeys(
    ("input_cached_tokens", "input_cache_write_tokens", *NO_HOUR, *NO_AUDIO),
    "its spans have them only in a text that is not JSON",
)

SENDERS = {
    # Clients that trace themselves
    "anthropic": Sender(
        "Anthropic's SDK, which traces itself wherever a tracer provider is set", ("anthropic",),
        "anthropic", (), ("messages",), is_core=True,
    ),
    "anthropic-helper": Sender(
        "Anthropic's SDK, its streaming helper", ("anthropic",), "anthropic-helper", (), ("messages",),
    ),
    "pydantic-ai": Sender(
        "pydantic-ai", ("pydantic-ai-slim",), "pydantic-ai", ("pydantic-ai",), ("chat", "responses", "gemini"),
    ),
    "logfire-pydantic-ai": Sender(
        "pydantic-ai with logfire", ("pydantic-ai-slim", "logfire"), "pydantic-ai", ("logfire-pydantic-ai",),
        ("chat", "responses", "gemini"),
    ),
    "logfire-openai": Sender("logfire on OpenAI's SDK", ("logfire", "openai"), "openai", ("logfire-openai",), OPENAI),
    "logfire-anthropic": Sender(
        "logfire on Anthropic's SDK, once", ("logfire", "anthropic"), "anthropic", ("logfire-anthropic",),
        ("messages",), settings=NO_SDK, advice=SWITCH_SDK_OFF,
    ),
    # The official instrumentations
    "genai-openai": Sender(
        "official instrumentation of OpenAI's SDK", ("opentelemetry-instrumentation-genai-openai", "openai"),
        "openai", ("genai-openai",), OPENAI, is_core=True,
    ),
    "genai-anthropic": Sender(
        "official instrumentation of Anthropic's SDK", ("opentelemetry-instrumentation-genai-anthropic",),
        "anthropic", ("genai-anthropic",), ("messages",), loses=NO_HOUR, settings=NO_SDK, advice=SWITCH_SDK_OFF,
    ),
    "google-genai": Sender(
        "official instrumentation of Google's SDK", ("opentelemetry-instrumentation-google-genai", "google-genai"),
        "google", ("google-genai",), ("gemini",),
    ),
    "botocore": Sender(
        "official instrumentation of botocore, on Bedrock", ("opentelemetry-instrumentation-botocore", "boto3"),
        "bedrock", ("botocore",), ("converse",),
    ),
    "genai-bedrock": Sender(
        "official instrumentation of Bedrock", ("opentelemetry-instrumentation-genai-bedrock",),
        "bedrock", ("genai-bedrock",), ("converse",),
    ),
    "genai-langchain": Sender(
        "official instrumentation of LangChain", ("opentelemetry-instrumentation-genai-langchain", "langchain-openai"),
        "langchain", ("genai-langchain",), MODELS, advice=STREAM_USAGE,
    ),
    # OpenLLMetry
    "openllmetry-openai": Sender(
        "OpenLLMetry on OpenAI's SDK", ("opentelemetry-instrumentation-openai",),
        "openai", ("openllmetry-openai",), OPENAI, loses=NO_AUDIO,
    ),
    "openllmetry-langchain": Sender(
        "OpenLLMetry on LangChain", ("opentelemetry-instrumentation-langchain",),
        "langchain", ("openllmetry-langchain",), MODELS, loses=NO_AUDIO, advice=STREAM_USAGE,
    ),
    "openllmetry-google": Sender(
        "OpenLLMetry on Google's SDK", ("opentelemetry-instrumentation-google-generativeai",),
        "google", ("openllmetry-google",), ("gemini",),
    ),
    "openllmetry-bedrock": Sender(
        "OpenLLMetry on Bedrock", ("opentelemetry-instrumentation-bedrock",),
        "bedrock", ("openllmetry-bedrock",), ("converse",),
        renames=r"^[a-z]+\.", renames_why="it cuts off the vendor",
    ),
    # OpenInference
    "openinference-openai": Sender(
        "OpenInference on OpenAI's SDK", ("openinference-instrumentation-openai",),
        "openai", ("openinference-openai",), OPENAI,
    ),
    "openinference-anthropic": Sender(
        "OpenInference on Anthropic's SDK", ("openinference-instrumentation-anthropic",),
        "anthropic", ("openinference-anthropic",), ("messages",), loses=NO_HOUR, settings=NO_SDK, advice=SWITCH_SDK_OFF,
    ),
    "openinference-langchain": Sender(
        "OpenInference on LangChain", ("openinference-instrumentation-langchain",),
        "langchain", ("openinference-langchain",), MODELS, advice=STREAM_USAGE,
    ),
    "openinference-google": Sender(
        "OpenInference on Google's SDK", ("openinference-instrumentation-google-genai",),
        "google", ("openinference-google",), ("gemini",),
    ),
    "openinference-bedrock": Sender(
        "OpenInference on Bedrock", ("openinference-instrumentation-bedrock",),
        "bedrock", ("openinference-bedrock",), ("converse",),
    ),
    "openinference-agents": Sender(
        "OpenInference on openai-agents", ("openinference-instrumentation-openai-agents", "openai-agents"),
        "agents", ("openinference-agents",), ("responses",),
    ),
    "openinference-agents-chat": Sender(
        "OpenInference on openai-agents, models of chat completions",
        ("openinference-instrumentation-openai-agents", "openai-agents"), "agents", ("openinference-agents",),
        ("chat",), without=AUDIO_REFUSED, loses={"input_cached_tokens": AGENTS_CHAT}, advice=INCLUDE_USAGE,
    ),
    # Langfuse
    "langfuse": Sender(
        "Langfuse's SDK on OpenAI's", ("langfuse", "openai"), "langfuse-openai", ("langfuse",), OPENAI,
        advice="`LANGFUSE_BASE_URL`: Tallybook's address; `LANGFUSE_SECRET_KEY`: its key",
    ),
    # Two at a time
    "pydantic-ai + anthropic": Sender(
        "pydantic-ai over Anthropic's SDK", ("pydantic-ai-slim", "anthropic"),
        "pydantic-ai", ("pydantic-ai",), ("messages",), is_core=True,
    ),
    "pydantic-ai + anthropic, one by one": Sender(
        "the same, each span exported by itself", ("pydantic-ai-slim", "anthropic"),
        "pydantic-ai", ("pydantic-ai",), ("messages",), batch=False,
    ),
    "logfire + anthropic": Sender(
        "logfire over Anthropic's SDK", ("logfire", "anthropic"), "anthropic", ("logfire-anthropic",), ("messages",),
    ),
    "pydantic-ai + logfire + anthropic": Sender(
        "pydantic-ai and Anthropic's SDK, both with logfire", ("pydantic-ai-slim", "logfire", "anthropic"),
        "pydantic-ai", ("logfire-pydantic-ai", "logfire-anthropic"), ("messages",),
    ),
    "genai-anthropic + anthropic": Sender(
        "official instrumentation over Anthropic's SDK", ("opentelemetry-instrumentation-genai-anthropic", "anthropic"),
        "anthropic", ("genai-anthropic",), ("messages",), is_core=True,
    ),
    "openllmetry-anthropic + anthropic": Sender(
        "OpenLLMetry over Anthropic's SDK", ("opentelemetry-instrumentation-anthropic", "anthropic"),
        "anthropic", ("openllmetry-anthropic",), ("messages",), is_core=True,
        advice="OpenLLMetry's: of streams it counts the first tokens of the output twice",
    ),
    "openinference-anthropic + anthropic": Sender(
        "OpenInference over Anthropic's SDK", ("openinference-instrumentation-anthropic", "anthropic"),
        "anthropic", ("openinference-anthropic",), ("messages",),
    ),
    "genai-langchain + anthropic": Sender(
        "official instrumentation of LangChain over Anthropic's SDK",
        ("opentelemetry-instrumentation-genai-langchain", "langchain-anthropic", "anthropic"),
        "langchain", ("genai-langchain",), ("messages",),
    ),
    "genai-langchain + genai-openai": Sender(
        "official instrumentations of LangChain and of OpenAI's SDK",
        ("opentelemetry-instrumentation-genai-langchain", "opentelemetry-instrumentation-genai-openai"),
        "langchain", ("genai-langchain", "genai-openai"), MODELS, advice=STREAM_USAGE,
    ),
    "genai-agents + genai-openai": Sender(
        "official instrumentations of openai-agents and of OpenAI's SDK",
        ("opentelemetry-instrumentation-genai-openai-agents", "opentelemetry-instrumentation-genai-openai"),
        "agents", ("genai-openai-agents", "genai-openai"), MODELS, without=AUDIO_REFUSED,
        advice=f"that of openai-agents alone reports no calls; {INCLUDE_USAGE}",
    ),
    "genai-bedrock + botocore": Sender(
        "official instrumentations of Bedrock and of botocore",
        ("opentelemetry-instrumentation-genai-bedrock", "opentelemetry-instrumentation-botocore"),
        "bedrock", ("genai-bedrock", "botocore"), ("converse",),
    ),
    "genai-openai + openllmetry-openai": Sender(
        "official instrumentation and OpenLLMetry on OpenAI's SDK",
        ("opentelemetry-instrumentation-genai-openai", "opentelemetry-instrumentation-openai"),
        "openai", ("genai-openai", "openllmetry-openai"), ("chat", "responses"),
    ),
    "genai-openai + openinference-openai": Sender(
        "official instrumentation and OpenInference on OpenAI's SDK",
        ("opentelemetry-instrumentation-genai-openai", "openinference-instrumentation-openai"),
        "openai", ("genai-openai", "openinference-openai"), OPENAI, is_core=True,
    ),
    "openinference-langchain + openinference-openai": Sender(
        "OpenInference on LangChain and on OpenAI's SDK",
        ("openinference-instrumentation-langchain", "openinference-instrumentation-openai"),
        "langchain", ("openinference-langchain", "openinference-openai"), MODELS,
        doubles="the spans of LangChain do not have the response's id, and are not above those of the client",
        advice="switch off one of the two",
    ),
    # LiteLLM's proxy
    "litellm-proxy": Sender(
        "LiteLLM's proxy, its callback", ("litellm",), "proxy", ("tallybook",), (*OPENAI, "messages"),
        environment="litellm",
    ),
    "litellm-proxy-otel": Sender(
        "LiteLLM's proxy, its callback `otel`", ("litellm",), "proxy", ("otel",), (*OPENAI, "messages"),
        environment="litellm", loses=LITELLM_OTEL,
        advice="the callback above instead; its `OTEL_EXPORTER_OTLP_HEADERS` with a space, not `%20`",
    ),
    "litellm-proxy + otel": Sender(
        "LiteLLM's proxy, both callbacks", ("litellm",), "proxy", ("tallybook", "otel"), (*OPENAI, "messages"),
        environment="litellm", loses=LITELLM_OTEL,
        advice="`otel`: its report of a call comes first, and the first stands",
    ),
    # npm
    "npm-anthropic": Sender(
        "Anthropic's SDK of npm, which traces itself", ("@anthropic-ai/sdk",), "anthropic", (), ("messages",),
        environment="node",
    ),
    "ai7": Sender(
        "Vercel's AI SDK 7 with `@ai-sdk/otel`", ("ai", "@ai-sdk/otel"), "ai7", (), (*OPENAI, "messages"),
        environment="node", loses=NO_AUDIO | NO_HOUR,
    ),
    "ai6": Sender(
        "Vercel's AI SDK 6 with `experimental_telemetry`", ("ai6",), "ai6", (), (*OPENAI, "messages"),
        environment="node", loses=NO_AUDIO,
    ),
}  # fmt: skip
