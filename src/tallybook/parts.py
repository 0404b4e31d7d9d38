"""Parts: the disjoint pieces of usage that have a price of their own. Nothing is in two, nothing is in none.

Each part's quantity is a sum of measures, some of them subtracted, so that it can be computed from an event, from an
hour or from a month alike. The token parts of an event add up to its ``input_tokens`` and ``output_tokens``; what a
source counts into no modality is text, as `tallybook.tokens` has it.

Names of line items: published answers of the Costs API, ``<model>, input`` and its like.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tallybook.kinds import KINDS, TOKEN_MEASURES


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of usage.

    Attributes:
        name: as price files and the store call it.
        label: what its line items are called, after the model.
        field: the same in the words of the Usage API's fields.
        quantity_unit: as Costs results name it, None where the API has no word.
        measured: what one unit of its quantity is, as price files call it.
        terms: measure to sign, for each usage kind that has the part: the quantity is their sum.
        fallbacks: parts whose price it takes where it has none of its own, first to last.
        has_model: its line items begin with the model.
        is_optional: it is charged only where the book has a price for it, and never missed.
    """

    name: str
    label: str
    field: str
    quantity_unit: str | None
    measured: str
    terms: Mapping[str, Mapping[str, int]]
    fallbacks: tuple[str, ...] = ()
    has_model: bool = True
    is_optional: bool = False


_TOKEN_KINDS: Final = tuple(
    name for name, kind in KINDS.items() if kind.measures[: len(TOKEN_MEASURES)] == TOKEN_MEASURES
)
_INPUT_ONLY_KINDS: Final = ("embeddings", "moderations")


def _tokens(
    name: str, label: str, field: str, *added: str, less: tuple[str, ...] = (), of: tuple[str, ...] = ()
) -> Part:
    terms = dict.fromkeys(added, 1) | dict.fromkeys(less, -1)
    kinds: dict[str, Mapping[str, int]] = dict.fromkeys(_TOKEN_KINDS, terms)
    if name == "input":
        kinds |= {kind: {"input_tokens": 1} for kind in _INPUT_ONLY_KINDS}
    return Part(name, label, field, "tokens", "token", kinds, of)


def _counts(
    name: str, label: str, kind: str, measure: str, unit: str | None, measured: str, *, tool: bool = False
) -> Part:
    return Part(name, label, label if tool else measure, unit, measured, {kind: {measure: 1}}, has_model=not tool)


PARTS: Final[Mapping[str, Part]] = {
    part.name: part
    for part in (
        _tokens(
            "input",
            "input",
            "input_tokens",
            "input_uncached_tokens",
            "input_cached_audio_tokens",
            less=("input_image_tokens", "input_audio_tokens"),
        ),
        _tokens("image_input", "image input", "input_image_tokens", "input_image_tokens", of=("input",)),
        _tokens(
            "audio_input",
            "audio input",
            "input_audio_tokens",
            "input_audio_tokens",
            less=("input_cached_audio_tokens",),
            of=("input",),
        ),
        _tokens(
            "cached_input",
            "cached input",
            "input_cached_tokens",
            "input_cached_tokens",
            less=("input_cached_image_tokens", "input_cached_audio_tokens"),
            of=("input",),
        ),
        _tokens(
            "cached_image_input",
            "cached image input",
            "input_cached_image_tokens",
            "input_cached_image_tokens",
            of=("cached_input", "image_input", "input"),
        ),
        _tokens(
            "cached_audio_input",
            "cached audio input",
            "input_cached_audio_tokens",
            "input_cached_audio_tokens",
            of=("cached_input", "audio_input", "input"),
        ),
        _tokens(
            "cache_write_30m",
            "cache write 30m",
            "input_cache_write_30m_tokens",
            "input_cache_write_30m_tokens",
            of=("input",),
        ),
        _tokens(
            "cache_write_12h",
            "cache write 12h",
            "input_cache_write_12h_tokens",
            "input_cache_write_12h_tokens",
            of=("cache_write_30m", "input"),
        ),
        _tokens(
            "output",
            "output",
            "output_tokens",
            "output_tokens",
            less=("output_audio_tokens", "output_image_tokens"),
        ),
        _tokens("image_output", "image output", "output_image_tokens", "output_image_tokens", of=("output",)),
        _tokens("audio_output", "audio output", "output_audio_tokens", "output_audio_tokens", of=("output",)),
        Part(
            "requests",
            "requests",
            "num_model_requests",
            None,
            "request",
            {kind: {"num_model_requests": 1} for kind in _TOKEN_KINDS},
            is_optional=True,
        ),
        _counts("images", "images", "images", "images", "images", "image"),
        _counts("characters", "characters", "audio_speeches", "characters", "characters", "character"),
        _counts("seconds", "seconds", "audio_transcriptions", "seconds", "duration_seconds", "second"),
        _counts(
            "sessions",
            "code interpreter sessions",
            "code_interpreter_sessions",
            "num_sessions",
            None,
            "session",
            tool=True,
        ),
        _counts(
            "file_searches", "file search tool calls", "file_search_calls", "num_requests", None, "call", tool=True
        ),
        _counts("web_searches", "web search tool calls", "web_search_calls", "num_requests", None, "call", tool=True),
        # A level: its quantity is what is held times how long, see `tallybook.store.storage`.
        Part(
            "storage",
            "vector store storage",
            "vector store storage",
            "gibibyte_hours",
            "GiB-hour",
            {"vector_stores": {}},
            has_model=False,
        ),
        Part(
            "free_storage",
            "vector store storage, free",
            "vector store storage, free",
            "gibibyte_hours",
            "GiB-hour",
            {},
            has_model=False,
            is_optional=True,
        ),
        # What a producer says an event cost, whatever it used.
        Part("reported", "reported cost", "reported cost", None, "event", {}, is_optional=True),
    )
}


UNKNOWN_MODEL: Final = "unknown model"
"""What stands for the model in a line item of an event that names none."""
LINE_ITEM_MAX: Final = 512
"""The most characters of a line item: a model and what of it is charged."""

PARTS_OF: Final[Mapping[str, tuple[Part, ...]]] = {
    kind: tuple(part for part in PARTS.values() if kind in part.terms) for kind in KINDS
}
"""The parts of each usage kind."""


def line_item(part: Part, model: str | None, *, fields: bool = False) -> str:
    """Return the name of a line item.

    Args:
        part: what is charged.
        model: whose; of no matter for tools.
        fields: in the words of the Usage API's fields, ``gpt-4o, input_tokens``, not in plain ones, ``gpt-4o, input``.
    """
    label = part.field if fields else part.label
    return f"{model or UNKNOWN_MODEL}, {label}" if part.has_model else label


def read_line_item(name: str) -> tuple[str, str] | None:
    """Return part and model (empty where the part has none) of a line item's name in either spelling, None if none."""
    if name in _TOOLS:
        return _TOOLS[name], ""
    model, comma, label = name.rpartition(", ")
    return (_LABELS[label], model) if comma and label in _LABELS else None


_TOOLS: Final = {part.label: part.name for part in PARTS.values() if not part.has_model}
_LABELS: Final = {label: part.name for part in PARTS.values() if part.has_model for label in (part.label, part.field)}
