"""The table of usage kinds: endpoints, events, columns and documentation are all derived from it.

Source: the published reference of the organization Usage API and the types of the official ``openai`` client.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Dimension:
    """Something usage can be grouped by.

    Attributes:
        name: field of events and results.
        filter: query parameter that selects by it, None where the API has none.
        values: the only values it can have, None for free text.
        meaning: one phrase for the documentation.
    """

    name: str
    filter: str | None
    meaning: str
    values: tuple[str, ...] | None = None


DIMENSIONS: Final[Mapping[str, Dimension]] = {
    dimension.name: dimension
    for dimension in (
        Dimension("project_id", "project_ids", "project that used it"),
        Dimension("user_id", "user_ids", "user that used it"),
        Dimension("api_key_id", "api_key_ids", "key it was used with"),
        Dimension("model", "models", "model that did the work"),
        Dimension("batch", "batch", "whether it ran as a batch job", ("true", "false")),
        Dimension("service_tier", None, "service tier the response reported"),
        Dimension("api_source", None, "API it came through", ("agents_api", "unlabeled")),
        Dimension("size", "sizes", "size of the images"),
        Dimension(
            "source",
            "sources",
            "how the images were made",
            ("image.generation", "image.edit", "image.variation"),
        ),
        Dimension("vector_store_id", "vector_store_ids", "vector store"),
        Dimension("context_level", "context_levels", "search context size", ("low", "medium", "high")),
        Dimension("quality", None, "quality of the images, which their price depends on"),
        Dimension("inference_geo", None, "where the model had to run, if that changes the price"),
    )
}

_WHO = ("project_id", "user_id", "api_key_id")
_RUN = (*_WHO, "model", "batch", "service_tier")

TOKEN_MEASURES: Final = (
    "input_tokens",
    "input_cached_tokens",
    "input_cache_write_tokens",
    "input_cache_write_30m_tokens",
    "input_cache_write_12h_tokens",
    "input_uncached_tokens",
    "input_text_tokens",
    "input_image_tokens",
    "input_audio_tokens",
    "input_cached_text_tokens",
    "input_cached_audio_tokens",
    "input_cached_image_tokens",
    "output_tokens",
    "output_text_tokens",
    "output_audio_tokens",
    "output_image_tokens",
)


@dataclass(frozen=True, slots=True)
class UsageKind:
    """One kind of usage.

    Attributes:
        name: last part of the endpoint's path, and ``kind`` of its events.
        result: which result it is: ``organization.usage.<result>.result``.
        measures: integer fields of a result, in wire order.
        required: measures an event must give; the others are derived or have a default.
        counts: measures that are 1 when an event does not give them.
        dimensions: fields an event may carry. Wider than ``group_by``: costs are asked for by more.
        group_by: dimensions a question may group by, and filter on where the dimension has a filter.
        is_level: the measure is a level that holds until the next report, not a flow that adds up.
        reuses_ids: ids of its events name a thing that is used again and again, such as a container, and no call.
    """

    name: str
    result: str
    measures: tuple[str, ...]
    dimensions: tuple[str, ...]
    group_by: tuple[str, ...]
    required: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()
    is_level: bool = False
    reuses_ids: bool = False

    @property
    def object(self) -> str:
        """The ``object`` field of a result."""
        return f"organization.usage.{self.result}.result"

    @property
    def filters(self) -> dict[str, Dimension]:
        """Filter parameters of the endpoint, in reference order."""
        dimensions = (DIMENSIONS[name] for name in self.group_by)
        return {dimension.filter: dimension for dimension in dimensions if dimension.filter}


def _model_kind(name: str, measure: str, *, more: tuple[str, ...] = (), priced_by: tuple[str, ...] = ()) -> UsageKind:
    """A kind with one measure and the number of requests, by model."""
    return UsageKind(
        name,
        name,
        (measure, "num_model_requests"),
        (*_RUN, *more, *priced_by),
        (*_WHO, "model", *more),
        required=(measure,),
        counts=("num_model_requests",),
    )


def _token_kind(name: str) -> UsageKind:
    """A kind with all token parts. No single one is required: see `tallybook.tokens`."""
    dimensions = (*_RUN, "api_source")
    return UsageKind(
        name,
        name,
        (*TOKEN_MEASURES, "num_model_requests"),
        (*dimensions, "inference_geo"),
        dimensions,
        counts=("num_model_requests",),
    )


KINDS: Final[Mapping[str, UsageKind]] = {
    kind.name: kind
    for kind in (
        _token_kind("completions"),
        _token_kind("decisions"),
        _model_kind("embeddings", "input_tokens"),
        _model_kind("moderations", "input_tokens"),
        _model_kind("images", "images", more=("size", "source"), priced_by=("quality",)),
        _model_kind("audio_speeches", "characters"),
        _model_kind("audio_transcriptions", "seconds"),
        UsageKind(
            "vector_stores",
            "vector_stores",
            ("usage_bytes",),
            (*_WHO, "vector_store_id"),
            ("project_id",),
            required=("vector_store_id", "usage_bytes"),
            is_level=True,
            reuses_ids=True,
        ),
        UsageKind(
            "code_interpreter_sessions",
            "code_interpreter_sessions",
            ("num_sessions",),
            _WHO,
            ("project_id",),
            counts=("num_sessions",),
            reuses_ids=True,
        ),
        UsageKind(
            "file_search_calls",
            "file_searches",
            ("num_requests",),
            (*_WHO, "vector_store_id"),
            (*_WHO, "vector_store_id"),
            counts=("num_requests",),
        ),
        UsageKind(
            "web_search_calls",
            "web_searches",
            ("num_requests", "num_model_requests"),
            (*_RUN, "context_level", "api_source"),
            (*_WHO, "model", "context_level", "api_source"),
            counts=("num_requests", "num_model_requests"),
        ),
    )
}

MEASURES: Final = tuple(dict.fromkeys(measure for kind in KINDS.values() for measure in kind.measures))
"""Every measure of every kind, each once: the measure columns of the store."""

FLOWS: Final = tuple(
    dict.fromkeys(measure for kind in KINDS.values() if not kind.is_level for measure in kind.measures)
)
"""The measures that add up over time: the measure columns of the rollups."""
