"""Calls of every kind through LiteLLM, reported by its own callback. Runs with LiteLLM's packages, not with ours.

Arguments: address of the model server, of the endpoint, a key, LiteLLM's log format.
"""

import asyncio
import io
import os
import sys
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it would be fetched

import litellm
from litellm.integrations.generic_api.generic_api_callback import GenericAPILogger

MODELS, ENDPOINT, KEY, FORMAT = sys.argv[1:]
LOGGED = 14
"""Calls that are told, one of which fails."""
WAIT_S = 60
WHO = {"user_api_key_hash": "hash-1", "user_api_key_user_id": "ann", "user_api_key_team_id": "team-1"}
OPENAI: dict[str, Any] = {"api_base": f"{MODELS}/v1", "api_key": "sk-none", "max_retries": 0}
ANTHROPIC: dict[str, Any] = {"api_base": MODELS, "api_key": "sk-none"}


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def stream() -> None:
    told = {"stream": True, "stream_options": {"include_usage": True}}
    answer = await litellm.acompletion("openai/gpt-4o-mini", messages=said("s"), metadata=WHO, **told, **OPENAI)
    async for _ in answer:
        pass


async def cached_twice() -> None:
    for _ in range(2):
        await litellm.acompletion("openai/gpt-4o-mini", messages=said("c"), caching=True, **OPENAI)
        await asyncio.sleep(0.5)


async def response_looked_at_again() -> None:
    response = await litellm.aresponses(model="openai/gpt-4o-mini", input="x", **OPENAI)
    for _ in range(2):
        await litellm.aget_responses(response_id=response.id, custom_llm_provider="openai", **OPENAI)


async def failing() -> None:
    with suppress(litellm.InternalServerError):
        await litellm.acompletion("openai/gpt-4o-mini", messages=said("fail"), num_retries=0, **OPENAI)


async def main() -> None:
    logger = GenericAPILogger(
        endpoint=ENDPOINT,
        headers={"Authorization": f"Bearer {KEY}"},
        log_format=FORMAT,
        max_retries=6,
        retry_delay=1,
        flush_interval=3600,  # in one go, and no sooner than all is there
    )
    litellm.callbacks = [logger]
    litellm.cache = litellm.Cache(type="local")
    speech = io.BytesIO(b"RIFF")
    speech.name = "a.wav"
    calls: list[Awaitable[Any]] = [
        litellm.acompletion("openai/gpt-4o-mini", messages=said("a"), metadata=WHO, **OPENAI),
        stream(),
        cached_twice(),
        failing(),
        litellm.aembedding("openai/text-embedding-3-small", input=["a"], **OPENAI),
        litellm.aimage_generation(prompt="a", model="openai/dall-e-3", size="1024x1024", quality="hd", n=2, **OPENAI),
        litellm.atranscription("openai/whisper-1", file=speech, **OPENAI),
        litellm.aspeech("openai/tts-1", input="hello world", voice="alloy", **OPENAI),
        litellm.amoderation(input="x", model="openai/omni-moderation-latest", **OPENAI),
        response_looked_at_again(),
        litellm.acompletion("anthropic/claude-sonnet-4-5", messages=said("a"), **ANTHROPIC),
    ]
    for call in calls:
        await call
    for _ in range(WAIT_S):  # its callbacks work in the background
        await asyncio.sleep(1)
        if len(logger.log_queue) >= LOGGED:
            break
    await logger.flush_queue()


asyncio.run(main())
