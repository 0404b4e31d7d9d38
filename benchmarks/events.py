"""Lifelike events as NDJSON, made far faster than any server takes them in.

A few bodies are composed field by field; every further one is such a body with new ids and timestamps, filled in by one
string operation. Ids are random, as real ones are: they are what a store can least compress.
"""

import json
import math
from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

PROJECTS: Final = 20
USERS: Final = 300
KEYS_OF_PROJECT: Final = 3
CHAT_MODELS: Final = (
    "gpt-5-2025-08-07",
    "gpt-5-mini-2025-08-07",
    "gpt-4o-2024-08-06",
    "gpt-4.1-2025-04-14",
    "gpt-4.1-mini-2025-04-14",
    "o4-mini-2025-04-16",
    "meta-llama/Llama-3.3-70B-Instruct",
)
MODELS_OF_PROJECT: Final = 4
KINDS: Final = {
    "completions": 860,
    "embeddings": 80,
    "moderations": 25,
    "images": 10,
    "audio_transcriptions": 10,
    "file_search_calls": 10,
    "web_search_calls": 5,
}
TEMPLATES: Final = 8


def bodies(events: int, events_in_body: int, start_ms: int, end_ms: int, seed: int = 1) -> Iterator[bytes]:
    """Return bodies that hold so many events in all, in time order; the same seed gives the same bodies.

    Args:
        events: how many; what is left over after whole bodies is not made.
        events_in_body: how many are in one body.
        start_ms: start of the window, Unix milliseconds.
        end_ms: its end, exclusive.
        seed: of the dice.
    """
    random = Random(seed)
    people = _people(random)
    # Composed at once and not with the first body: whoever times the sending shall not time this.
    count = events // events_in_body
    templates = ["\n".join(_lines(random, people, events_in_body)) for _ in range(min(count, TEMPLATES))]
    step_ms = (end_ms - start_ms) / events

    def body(number: int) -> bytes:
        first = number * events_in_body
        digits = random.randbytes(12 * events_in_body).hex()
        values: list[object] = [None] * (2 * events_in_body)
        values[0::2] = [digits[at : at + 24] for at in range(0, len(digits), 24)]
        values[1::2] = [(start_ms + step_ms * (first + at)) / 1000 for at in range(events_in_body)]
        return (templates[number % len(templates)] % tuple(values)).encode()

    return map(body, range(count))


def lines(count: int, seed: int = 1) -> list[str]:
    """Return events of the same people with a hole for the id (`%s`) and one for the time (`%.3f`)."""
    random = Random(seed)
    return list(_lines(random, _people(random), count))


def _people(random: Random) -> list[tuple[str, int]]:
    """Users and their projects, busiest first."""
    return [(f"user-{random.getrandbits(96):024x}", random.randrange(PROJECTS)) for _ in range(USERS)]


def _lines(random: Random, people: Sequence[tuple[str, int]], count: int) -> Iterator[str]:
    activity = [1 / (rank + 3) for rank in range(len(people))]  # Zipf's law, a little flattened at the top
    kinds = random.choices(list(KINDS), list(KINDS.values()), k=count)
    for kind, (user, project) in zip(kinds, random.choices(people, activity, k=count), strict=True):
        who = {
            "project_id": f"proj_{project:024d}",
            "user_id": user,
            "api_key_id": f"key_{project * KEYS_OF_PROJECT + random.randrange(KEYS_OF_PROJECT):016d}",
        }
        event = {"kind": kind, "id": "resp_%s", "timestamp": None} | who | _usage(random, kind, project)
        yield json.dumps(event, separators=(",", ":")).replace("null", "%.3f", 1)


def _usage(random: Random, kind: str, project: int) -> dict[str, object]:
    tokens = round(random.lognormvariate(math.log(1_800), 1.1)) + 1
    if kind == "completions":
        cached = random.choice((0, 0.5, 0.8)) * tokens // 128 * 128
        return {
            "model": CHAT_MODELS[(project + random.randrange(MODELS_OF_PROJECT)) % len(CHAT_MODELS)],
            "service_tier": random.choices(("default", "priority"), (9, 1))[0],
            "input_tokens": tokens,
            "input_cached_tokens": round(cached),
            "output_tokens": round(random.lognormvariate(math.log(260), 0.9)) + 1,
        }
    uses: dict[str, dict[str, object]] = {
        "embeddings": {
            "model": random.choice(("text-embedding-3-small", "text-embedding-3-large")),
            "input_tokens": tokens,
        },
        "moderations": {"model": "omni-moderation-latest", "input_tokens": tokens},
        "images": {"model": "gpt-image-1", "size": "1024x1024", "source": "image.generation", "images": 1},
        "audio_transcriptions": {"model": "whisper-1", "seconds": tokens / 10},
        "file_search_calls": {"vector_store_id": f"vs_{project:024d}"},
        "web_search_calls": {"model": CHAT_MODELS[0], "context_level": "medium"},
    }
    return uses[kind]
