"""Names of models and line items as others spell them: which of them mean the same.

A provider's book and what was recorded here name one thing differently: `gpt-4o, input` and `gpt-4o, input_tokens`, a
model by its alias and by its dated snapshot, a fine-tuned model by what it came from. Source of the spellings:
published answers of the providers' usage and cost APIs.
"""

import re
from collections.abc import Collection, Mapping
from typing import Final

from tallybook.parts import PARTS

_DATE: Final = re.compile(r"-(latest|\d{4}-\d{2}-\d{2}|\d{8}|\d{4})$")
"""What a snapshot's name has after the model's."""
_FINE_TUNED: Final = re.compile(r"ft:([^:]+)(:.*)?")
_SURFACE: Final = " | "
"""Between what a model was used through, such as evaluations, and the line item."""

_LABELS: Final[Mapping[str, str]] = {
    label.lower(): part.name for part in PARTS.values() if part.has_model for label in (part.label, part.field)
} | {"input tokens": "input", "cached input tokens": "cached_input", "output tokens": "output"}
_TOOLS: Final[Mapping[str, str]] = {part.label.lower(): part.name for part in PARTS.values() if not part.has_model} | {
    "code interpreter": "sessions",
    "file search": "file_searches",
    "file search calls": "file_searches",
    "web search": "web_searches",
    "web search calls": "web_searches",
}


def read_name(name: str) -> tuple[str, str] | None:
    """Return part and model (empty where the part has none) of a provider's line item, None if it is none of ours.

    The model is as it is spelled there; see `same`.
    """
    item = name.rpartition(_SURFACE)[2].strip()
    if item.lower() in _TOOLS:
        return _TOOLS[item.lower()], ""
    model, comma, label = item.rpartition(", ")
    part = _LABELS.get(label.strip().lower())
    return (part, model) if comma and part else None


def same(model: str) -> str:
    """Return what is the same for all spellings of a model's name."""
    lower = model.lower()
    fine_tuned = _FINE_TUNED.fullmatch(lower)
    return f"ft-{fine_tuned[1]}" if fine_tuned else lower


def undated(model: str) -> str:
    """Return the name of a snapshot without what tells it from others of its model."""
    return _DATE.sub("", model)


def aliases(ours: Collection[str], theirs: Collection[str]) -> dict[str, str]:
    """Return the names that have to be read as one, each with that one.

    Where one side names a model without a date that the other only knows by its snapshots, all of them are compared
    together: nobody can tell which snapshot stood behind the name. What both sides name alike stays apart.

    Args:
        ours: models of one side, as `same` has them.
        theirs: those of the other.
    """
    families: dict[str, tuple[set[str], set[str]]] = {}
    for side, names in enumerate((ours, theirs)):
        for name in names:
            families.setdefault(undated(name), (set(), set()))[side].add(name)
    found: dict[str, str] = {}
    for model, (one, other) in families.items():
        names = one | other
        has_alias = bool(names & {model, f"{model}-latest"})
        if one and other and one != other and has_alias:
            found |= dict.fromkeys(names, model)
    return found
