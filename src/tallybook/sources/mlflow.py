"""Spans of MLflow's tracing, whose attributes are all JSON as text: read as the attributes that others have.

Only spans of models count. MLflow writes what a model used into ``mlflow.chat.tokenUsage``.

Source: MLflow 3, ``mlflow/tracing/constant.py``.
"""

from collections.abc import Mapping
from typing import Final

from tallybook.sources.otlp_wire import Attributes, Plain

TYPE: Final = "mlflow.spanType"
_USAGE: Final = "mlflow.chat.tokenUsage"
_MODEL: Final = "mlflow.llm.model"
_PROVIDER: Final = "mlflow.llm.provider"
NAMES: Final = frozenset({TYPE, _USAGE, _MODEL, _PROVIDER})
_OPERATIONS: Final[Mapping[str, str]] = {"CHAT_MODEL": "chat", "LLM": "chat", "EMBEDDING": "embeddings"}


def translated(attributes: Attributes) -> Attributes:
    """Return the attributes of a span: of one of a model's with those of the convention, of others without MLflow's."""
    operation = _OPERATIONS.get(_text(attributes.get(TYPE)).upper())
    found = {name: value for name, value in attributes.items() if name not in NAMES}
    if operation is None or _USAGE not in attributes:
        return found
    more: dict[str, Plain] = {
        "gen_ai.operation.name": operation,
        "gen_ai.usage.raw": attributes[_USAGE],
        "gen_ai.request.model": _text(attributes.get(_MODEL)),
        "gen_ai.provider.name": _text(attributes.get(_PROVIDER)),
    }
    return {name: value for name, value in more.items() if value} | found


def _text(value: object) -> str:
    """Return the text that JSON as text holds."""
    return value.strip('" ') if isinstance(value, str) else ""
