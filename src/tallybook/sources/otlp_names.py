"""How attributes are read, decided by their names alone: prompts and answers have other names and are passed by.

An attribute is read where something looks for its name. Of the others, a name that speaks of tokens is read where its
value is a number or short digits, and a name of a model is noted as there: a record that names a model and carries
counts which nobody reads must not be dropped in silence.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final

import msgspec

RESPONSE_ID: Final = "gen_ai.response.id"
READ: Final = 1
"""As it is."""
COUNT: Final = 2
"""Only if it is a number."""
THERE: Final = 3
"""Only that it is there."""
ID: Final = 4
"""Only the id of the response it begins with."""
_PASSED_BY: Final = 0
_NAMES_MAX: Final = 4096
"""So many names a request are remembered; those of more are decided each time."""
_NAME_MAX: Final = 128

_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_COUNTS: Final = re.compile(r"(?<![a-z])tokens?(?![a-z])|(?<![a-z])(?:gen_ai|ai|llm)\.usage\.")
_NO_COUNTS: Final = re.compile(
    r"(?<![a-z])(?:max|limit|budget|remaining|per|rate|price|cost|window|threshold|percent|ratio|type|id|auth|access"
    r"|refresh|bearer|csrf|secret|efficiency|latency|ms|s|second|seconds|time|storage|pre|post|before|after"
    r"|currency|amount)(?![a-z])"
)
"""Words of settings, secrets, rates and costs, and of what is left in a conversation once it is made shorter."""
_MODELS: Final = re.compile(r"(?<![a-z])model(?:[._]?(?:name|id))?$")
TOTALS: Final = frozenset({"all_messages_events", "pydantic_ai.all_messages"})
"""What only runs of agents have, which hold a conversation: it is never read, only that it is there."""
_IRRELEVANT: Final = re.compile(
    r"(?<![a-z])(?:total|no_cache|uncached|non_cached|fresh|text|prediction|reasoning)(?![a-z])"
    r"|\.usage\.details\.(?:thoughts|candidates|tool_use_prompt|input|output|prompt|completion|cached_content"
    r"|cache_read_input|cache_creation_input)_tokens$"
)
"""Sums, and parts that have the price of the rest: they repeat what other counts say."""
_DIGITS_MAX: Final = 16
_ANSWERS: Final = frozenset({"output.value"})
"""What OpenInference has an answer of the API in, as it came, and nowhere else its id."""
_ID: Final = re.compile(r'\s*\{\s*"id"\s*:\s*"((?:chatcmpl|cmpl|msg|resp|gen)[-_][\w.=-]{1,249})"')
_ID_MAX: Final = 300
"""Characters of an answer within which its id stands, if it begins with it."""


class Names:
    """How the attributes of each name are read.

    Attributes:
        read: names of those that are read as they are.
        passed: names of those that are not looked at, as far as they are known: plain sets, since there is a look-up
            for each attribute of a body.
    """

    __slots__ = ("_others", "passed", "read")

    def __init__(self, read: Iterable[str], others: Callable[[str], int] | None = None) -> None:
        self.read = set(read)
        self.passed: set[str] = set()
        self._others = others or how_of

    def decide(self, name: str) -> int:
        """Return how a name is read that is in neither set: `READ`, `COUNT`, `THERE`, `ID`, or 0 for not at all."""
        how = self._others(name) if isinstance(name, str) and len(name) <= _NAME_MAX else _PASSED_BY
        known = self.passed if how == _PASSED_BY else self.read
        if how in (READ, _PASSED_BY) and len(known) < _NAMES_MAX:
            known.add(name)
        return how


@lru_cache(4096)
def how_of(name: str) -> int:
    """Return how an attribute is read that nobody asks for by its name."""
    if name in TOTALS:
        return THERE
    if name in _ANSWERS:
        return ID
    name = _CAMEL.sub("_", name).lower()
    if _MODELS.search(name):
        return THERE
    return COUNT if _COUNTS.search(name) and not _NO_COUNTS.search(name) else _PASSED_BY


@lru_cache(4096)
def is_count(name: str) -> bool:
    """Return whether a name is one of counted tokens, be it of an attribute or of a metric."""
    return how_of(name) == COUNT


@lru_cache(4096)
def is_irrelevant(name: str) -> bool:
    """Return whether a count of this name repeats others, so that nothing is lost if nobody reads it."""
    return bool(_IRRELEVANT.search(_CAMEL.sub("_", name).lower()))


OBJECTS: Final = frozenset(
    {"ai.response.providerMetadata", "gen_ai.usage.raw", "mlflow.chat.tokenUsage", "lk.llm_metrics"}
    | {"langfuse.observation.usage_details", "langfuse.observation.cost_details"}
)
"""Attributes that hold an object as JSON, of which only what was used matters: others put queries into it."""
_WORD: Final = re.compile(r"[\w.-]{1,32}")


def usage_only(value: object) -> str:
    """Return an object in JSON with its numbers, and with short words of usage; "" for what is not one."""
    try:
        found = msgspec.json.decode(str(value))
    except (msgspec.DecodeError, RecursionError):
        return ""
    return msgspec.json.encode(_numbers(found, is_usage=False)).decode()


def _numbers(value: Any, *, is_usage: bool, levels: int = 8) -> Any:
    if isinstance(value, dict) and levels:
        inside = {
            name: _numbers(item, is_usage=is_usage or name == "usage", levels=levels - 1)
            for name, item in value.items()
        }
        return {name: item for name, item in inside.items() if item is not None}
    if isinstance(value, list) and levels and is_usage:
        return [_numbers(item, is_usage=True, levels=levels - 1) for item in value]
    if isinstance(value, int | float):
        return value
    return value if is_usage and isinstance(value, str) and _WORD.fullmatch(value) else None


def response_id(value: object) -> str | None:
    """Return the id of a response that a text begins with; of the text nothing else is looked at."""
    found = _ID.match(value[:_ID_MAX]) if isinstance(value, str) else None
    return found[1] if found else None


def counted(value: object, how: int) -> int | float | None:
    """Return what is noted of a value under a name that nobody asked for; None if nothing is."""
    if how == THERE:
        return True if value else None
    if isinstance(value, str):
        return int(value) if len(value) <= _DIGITS_MAX and value.isascii() and value.isdigit() else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
