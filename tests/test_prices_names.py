"""A name finds the list price of the model it proves to be, however it is spelled; no other name has a price."""

from decimal import Decimal
from pathlib import Path

import pytest

from tallybook.kinds import KINDS
from tallybook.prices.book import PRICE_DIMENSIONS, PriceBook, load
from tallybook.prices.file import read
from tallybook.spelling import offer

NOON_MS = 1_793_059_200_000  # 2026-10-26T12:00Z


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> PriceBook:
    return load(tmp_path_factory.mktemp("data"), None)


def listed(book: PriceBook, model: str, kind: str = "completions", **dimensions: str | bool) -> list[Decimal] | None:
    """Prices of input and output (or of the only part) below the first threshold."""
    every = dict.fromkeys(PRICE_DIMENSIONS) | {"model": model} | dimensions
    classes = book.classes(kind, every, NOON_MS)
    parts = ("input", "output") if kind == "completions" else ("input", "images", "characters", "seconds")
    return [classes[0][1][part].value for part in parts if part in classes[0][1]] if classes else None


PRICED = [
    # The provider before the model, as gateways and frameworks write it.
    ("openai/gpt-4o-mini", "0.15 0.6"),
    ("openai:gpt-4o-mini", "0.15 0.6"),
    ("litellm_proxy/openai/gpt-4o-mini", "0.15 0.6"),
    ("OpenAI/GPT-4o-mini", "0.15 0.6"),
    ("openai/gpt-4o:nitro", "2.5 10"),
    ("openai/ft:gpt-4o-mini-2024-07-18:acme::abc", "0.3 1.2"),
    ("anthropic/claude-sonnet-4-5-20250929", "3 15"),
    ("anthropic/claude-sonnet-4.5", "3 15"),
    ("anthropic/claude-3.7-sonnet:thinking", "3 15"),
    ("anthropic:claude-opus-5", "5 25"),
    ("gemini/gemini-2.5-flash", "0.3 2.5"),
    ("google/gemini-2.5-flash", "0.3 2.5"),
    ("google-gla:gemini-2.5-flash", "0.3 2.5"),
    ("models/gemini-2.5-flash", "0.3 2.5"),
    ("xai/grok-4", "3 15"),
    ("x-ai/grok-4", "3 15"),
    ("deepseek:deepseek-v4-pro", "0.66 1.98"),
    ("mistralai:mistral-large-latest", "2 6"),
    ("deepseek/deepseek-chat", "0.15 0.6"),
    ("mistral/mistral-large-latest", "2 6"),
    ("cohere/command-r-plus", "2.5 10"),
    # Amazon Bedrock: a geography, or no profile at all, costs a tenth more than the global profile from Claude 4.5 on.
    ("anthropic.claude-3-5-sonnet-20241022-v2:0", "3 15"),
    ("anthropic.claude-sonnet-4-5-20250929-v1:0", "3.3 16.5"),
    ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "3.3 16.5"),
    ("eu.anthropic.claude-opus-4-6-v1", "5.5 27.5"),
    ("jp.anthropic.claude-sonnet-4-5-20250929-v1:0", "3.3 16.5"),
    ("apac.anthropic.claude-3-5-sonnet-20240620-v1:0", "3 15"),
    ("global.anthropic.claude-sonnet-4-5-20250929-v1:0", "3 15"),
    ("bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0", "3.3 16.5"),
    ("bedrock:global.anthropic.claude-opus-5", "5 25"),
    ("bedrock/converse/us.amazon.nova-pro-v1:0", "0.8 3.2"),
    ("bedrock/us-east-1/anthropic.claude-3-haiku-20240307-v1:0", "0.25 1.25"),
    ("arn:aws:bedrock:us-east-1:123456789012:inference-profile/global.anthropic.claude-opus-5", "5 25"),
    ("arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-opus-5", "5.5 27.5"),
    ("arn:aws:bedrock:eu-central-1::foundation-model/anthropic.claude-3-5-sonnet-20240620-v1:0", "3 15"),
    ("bedrock/arn:aws:bedrock:us-east-1:1:inference-profile/eu.anthropic.claude-opus-4-6-v1", "5.5 27.5"),
    ("amazon.nova-pro-v1:0", "0.8 3.2"),
    ("meta.llama3-1-70b-instruct-v1:0", "0.72 0.72"),
    # Vertex AI.
    ("claude-sonnet-4-5@20250929", "3 15"),
    ("claude-opus-5-5@20260901", "4 20"),
    ("vertex_ai/claude-sonnet-4-5@20250929", "3 15"),
    ("vertex_ai/claude-opus-5@default", "5 25"),
    ("vertex_ai/gemini-2.0-flash@001", "0.1 0.4"),
    ("publishers/google/models/gemini-2.5-flash", "0.3 2.5"),
    ("projects/p/locations/us-central1/publishers/google/models/gemini-2.5-flash", "0.3 2.5"),
    ("projects/p/locations/global/publishers/anthropic/models/claude-opus-4-6", "5 25"),
    # Azure: the whole name of a model.
    ("azure/gpt-4o", "2.5 10"),
    ("azure/gpt-4o-2024-08-06", "2.5 10"),
    # Resellers, at their own prices.
    ("groq/llama-3.3-70b-versatile", "0.59 0.79"),
    ("groq/openai/gpt-oss-120b", "0.15 0.6"),
    ("together_ai/meta-llama/Llama-3.3-70B-Instruct-Turbo", "0.88 0.88"),
    ("openrouter/anthropic/claude-sonnet-4.5", "3 15"),
    ("openrouter/anthropic/claude-sonnet-4.5:thinking", "3 15"),
    ("openrouter/openai/gpt-4o:nitro", "2.5 10"),
    ("openrouter/meta-llama/llama-3.3-70b-instruct", "0.1 0.32"),
    # An alias that a model's own provider has, and the fast mode of gateways.
    ("claude-fable-5-1-latest", "10 50"),
    ("anthropic/claude-opus-4.8-fast", "10 50"),
    ("openrouter/anthropic/claude-opus-4.8-fast", "10 50"),
]
UNPRICED = [
    "gpt-99-nova",
    "openai/gpt-99-nova",
    "openai/claude-sonnet-4-5",  # whoever serves it there, it is not OpenAI
    "anthropic/gpt-4o",
    "openai/my-model",
    "openai/gpt-4o:free",
    "hosted_vllm/gpt-4o",
    "github_copilot/gpt-4o",
    "my-gemini-1.5-flash",
    "foo/gemini-1.5-flash",
    # Open weights: who serves them sets the price.
    "openai/gpt-oss-120b",
    "gpt-oss-120b",
    "qwen/qwen3-32b",
    "qwen3-32b",
    "meta-llama/llama-3.3-70b-instruct",
    "google/gemma-3-27b-it",
    "mistralai/mistral-7b-instruct",
    "mistralai/mistral-nemo",
    "minimax/minimax-m2",
    "deepseek/deepseek-v4-pro",
    "moonshotai/kimi-k2",
    "z-ai/glm-5.3-flash",
    "deepseek/deepseek-v3.2",
    "deepseek/deepseek-chat-v3.1:free",
    "deepseek-r1:8b",
    "ollama/deepseek-r1:8b",
    # Resellers that have no such model, or no price for what the name says.
    "groq/gpt-4o",
    "openrouter/gpt-99/nova",
    "openrouter/meta-llama/llama-3.3-70b-instruct:free",
    "openrouter/meta-llama/llama-3.3-70b-instruct:nitro",
    # Places with other prices, which the list has not.
    "xx.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "eu.amazon.nova-pro-v1:0",
    "apac.amazon.nova-lite-v1:0",
    "global.amazon.nova-pro-v1:0",
    "us-gov.anthropic.claude-3-5-sonnet-20240620-v1:0",
    "bedrock/eu-central-1/amazon.nova-pro-v1:0",
    "projects/p/locations/us-east5/publishers/anthropic/models/claude-opus-4-6",
    "azure/eu/gpt-4o-2024-08-06",
    # Names that operators give.
    "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123",
    "projects/p/locations/us-central1/endpoints/1234567890",
    "bedrock/my-import",
    "azure/prod",
    "azure/my-gpt-4o",
    "azure/gpt-4o-eu",
    "azure_ai/deepseek-r1",
]


@pytest.mark.parametrize(("model", "prices"), PRICED, ids=[model for model, _ in PRICED])
def test_a_name_has_the_price_of_the_model_it_proves_to_be(book: PriceBook, model: str, prices: str) -> None:
    assert listed(book, model) == [Decimal(price) for price in prices.split()]


@pytest.mark.parametrize("model", UNPRICED)
def test_a_name_that_proves_nothing_has_no_price(book: PriceBook, model: str) -> None:
    assert listed(book, model) is None


@pytest.mark.parametrize(
    ("model", "kind", "dimensions", "price"),
    [
        ("openai/whisper-1", "audio_transcriptions", {}, "0.006"),
        ("openai/dall-e-3", "images", {"size": "1024x1024"}, "0.04"),
        ("openai/tts-1", "audio_speeches", {}, "15"),
        ("openai/text-embedding-3-small", "embeddings", {}, "0.02"),
        ("embed-v4.0", "embeddings", {}, "0.12"),
        ("cohere/embed-v4.0", "embeddings", {}, "0.12"),
        ("embed-of-mine", "embeddings", {}, None),
        ("anthropic/whisper-1", "audio_transcriptions", {}, None),
    ],
)
def test_what_our_own_file_prices_is_found_the_same_way(
    book: PriceBook, model: str, kind: str, dimensions: dict[str, str | bool], price: str | None
) -> None:
    assert listed(book, model, kind, **dimensions) == ([Decimal(price)] if price else None)


def test_tiers_and_batch_jobs_are_those_of_the_model(book: PriceBook) -> None:
    for model in ("gpt-5", "openai/gpt-5"):
        assert listed(book, model, batch=True) == [Decimal("0.625"), Decimal(5)], model
        assert listed(book, model, service_tier="priority") == [Decimal("2.5"), Decimal(20)], model


@pytest.mark.parametrize(
    ("text", "model", "price"),
    [
        ("model,counted,unit,price\nopenai/gpt-4o,input,1M tokens,1\n", "openai/gpt-4o", "1"),
        ("model,counted,unit,price\nopenai/gpt-4o,input,1M tokens,1\n", "gpt-4o", "2.5"),
        ("model,counted,unit,price\ngpt-4o,input,1M tokens,1\n", "openai/gpt-4o", "1"),
        ("model,counted,unit,price\ngpt-4o,input,1M tokens,1\n", "azure/gpt-4o", "2.5"),
        (
            "model,counted,unit,price\ngpt-4o,input,1M tokens,1\nopenai/gpt-4o,input,1M tokens,2\n",
            "openai/gpt-4o",
            "2",
        ),
        ("model,counted,unit,price\nopenai/*,input,1M tokens,1\n", "openai/gpt-4o", "1"),
        ("provider,model,factor\nopenai,,0.5\n", "openai/gpt-4o", "1.25"),
        ("provider,model,factor\naws,,0.5\n", "global.anthropic.claude-opus-5", "2.5"),
        ("provider,model,factor\nanthropic,,0.5\n", "global.anthropic.claude-opus-5", "5"),
        ("model,like\nprod,openai/gpt-4o\n", "prod", "2.5"),
    ],
)
def test_the_operators_file_prices_names_as_sent_first(tmp_path: Path, text: str, model: str, price: str) -> None:
    both = load(tmp_path, text)
    assert read(text, "test")
    assert (listed(both, model) or [])[:1] == [Decimal(price)]


def test_any_number_of_names_does_not_fill_the_memory(book: PriceBook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tallybook.prices.book._REMEMBERED_MAX", 300)
    kind = KINDS["completions"]
    for number in range(1_000):
        dimensions = dict.fromkeys(kind.dimensions) | {"model": f"openai/gpt-none-{number}", "batch": False}
        (rule,) = book.rules(kind, tuple(dimensions.values()), 1_793_059_200 // 86_400 * 86_400)
        assert rule.rate is None
    assert offer.cache_info().maxsize == 20_000
    assert len(book._remembered) <= 300
