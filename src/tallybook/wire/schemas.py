"""What requests and answers are made of, as JSON schemas of the OpenAPI description."""

from typing import Final

from tallybook.event import COUNT_MAX, TEXT_MAX
from tallybook.keys import ALL_SCOPES, LIFE_S_MAX
from tallybook.kinds import KINDS
from tallybook.timegrid import INSTANT_MAX_S

Json = dict[str, object]

INTEGER: Final[Json] = {"type": "integer"}
STRING: Final[Json] = {"type": "string"}
COUNT: Final[Json] = {"type": "integer", "minimum": 0, "maximum": COUNT_MAX}
INSTANT: Final[Json] = {"type": "integer", "minimum": 0, "maximum": INSTANT_MAX_S}
TEXT: Final[Json] = {"type": "string", "minLength": 1, "maxLength": TEXT_MAX}
OPTIONAL_AMOUNT: Final[Json] = {
    "type": ["object", "null"],
    "properties": {"value": {"type": "number"}, "currency": {"const": "usd"}},
}


def ref(name: str) -> Json:
    """Point to a schema by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


SCHEMAS: Final[Json] = {
    "error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": STRING,
                    "type": STRING,
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                },
            }
        },
    },
    "fault": {
        "type": "object",
        "required": ["index", "outcome", "field", "value", "message", "quarantine_id"],
        "properties": {
            "index": INTEGER,
            "outcome": {"enum": ["rejected", "conflict"]},
            "field": {"type": ["string", "null"]},
            "value": {},
            "message": STRING,
            "quarantine_id": {"type": ["string", "null"]},
        },
    },
    "receipt": {
        "type": "object",
        "required": ["object", "accepted", "duplicates", "conflicts", "rejected", "ignored", "faults"],
        "properties": {
            "object": {"const": "organization.usage.events.receipt"},
            "accepted": INTEGER,
            "duplicates": INTEGER,
            "conflicts": INTEGER,
            "rejected": INTEGER,
            "ignored": INTEGER,
            "faults": {"type": "array", "items": ref("fault"), "maxItems": 100},
        },
    },
    "unpriced": {
        "type": "object",
        "required": [
            *("object", "kind", "model", "line_item", "counted"),
            *("since", "until", "quantity", "quantity_unit", "events"),
        ],
        "properties": {
            "object": {"const": "organization.costs.unpriced"},
            "kind": {"enum": list(KINDS)},
            "model": {"type": ["string", "null"]},
            "service_tier": {"type": ["string", "null"]},
            "batch": {"type": ["boolean", "null"]},
            "line_item": STRING | {"description": "What it would be charged as."},
            "counted": STRING | {"description": "What a line of a price file counts, to give it a price."},
            "since": INTEGER | {"description": "First event of it."},
            "until": INTEGER | {"description": "Last event of it."},
            "quantity": {"type": "number"},
            "quantity_unit": {"type": ["string", "null"]},
            "events": {"type": ["integer", "null"], "description": "Null where not all are kept any more, or counted."},
            **{
                name: {"type": ["string", "null"], "description": "Present where grouped by it."}
                for name in ("project_id", "user_id", "api_key_id", "api_source")
            },
            "start_time": INTEGER | {"description": "Start of the bucket; present with a bucket_width."},
            "end_time": INTEGER | {"description": "Its end, exclusive."},
        },
    },
    "price": {
        "type": "object",
        "required": ["object", "provider", "model", "kind", "counted", "unit", "price"],
        "properties": {
            "object": {"const": "organization.costs.price"},
            "provider": {"type": ["string", "null"]},
            "model": {"type": ["string", "null"]},
            "kind": {"enum": list(KINDS)},
            "counted": STRING,
            "service_tier": {"type": ["string", "null"]},
            "batch": {"type": ["boolean", "null"]},
            "above_input_tokens": {"type": ["integer", "null"]},
            "size": {"type": ["string", "null"]},
            "quality": {"type": ["string", "null"]},
            "context_level": {"type": ["string", "null"]},
            "inference_geo": {"type": ["string", "null"]},
            "hours": {"type": ["string", "null"], "description": "Days and hours of the week it is for."},
            "unit": STRING,
            "price": {"type": "number"},
            "free": {"type": ["number", "null"], "description": "GiB every organization has for nothing."},
            "from": {"type": ["integer", "null"]},
            "until": {"type": ["integer", "null"]},
            "source": STRING,
            "checked": {"type": ["string", "null"]},
        },
    },
    "book": {
        "type": "object",
        "required": ["object", "provider", "days", "read_at", "recorded", "billed", "difference", "ratio", "beyond"],
        "properties": {
            "object": {"const": "organization.reconciliation.book"},
            "provider": STRING,
            "days": INTEGER | {"description": "How many days were read."},
            "read_at": INTEGER | {"description": "When it was last read."},
            "start_time": {"type": ["integer", "null"], "description": "First of the last settled days."},
            "end_time": {"type": ["integer", "null"]},
            "recorded": OPTIONAL_AMOUNT,
            "billed": OPTIONAL_AMOUNT,
            "difference": OPTIONAL_AMOUNT,
            "ratio": {"type": ["number", "null"]},
            "beyond": {"type": "boolean", "description": "Whether the difference is beyond the settings."},
            "allowed": {"type": "object"},
        },
    },
    "day_read": {
        "type": "object",
        "required": ["object", "start_time", "end_time", "read_at"],
        "properties": {
            "object": {"const": "organization.reconciliation.day"},
            "start_time": INTEGER,
            "end_time": INTEGER,
            "read_at": INTEGER,
        },
    },
    "rerating": {
        "type": "object",
        "required": ["object", "dry_run", "book_id", "days"],
        "properties": {
            "object": {"const": "organization.costs.rerating"},
            "dry_run": {"type": "boolean"},
            "book_id": STRING,
            "days": {"type": "array", "items": {"type": "object"}, "description": "Days that change, oldest first."},
        },
    },
    "rerated_day": {
        "type": "object",
        "required": ["object", "id", "created_at", "start_time", "book_id", "events", "before", "after"],
        "properties": {
            "object": {"const": "organization.costs.rerating"},
            "id": STRING,
            "created_at": INTEGER,
            "start_time": INTEGER,
            "book_id": STRING,
            "events": INTEGER,
            "before": {"type": "number"},
            "after": {"type": "number"},
        },
    },
    "quarantined_event": {
        "type": "object",
        "required": ["object", "id", "created_at", "source", "event", "faults"],
        "properties": {
            "object": {"const": "organization.usage.quarantined_event"},
            "id": STRING,
            "created_at": INTEGER,
            "source": STRING | {"description": "What it is a record of: events, or the dialect it was sent in."},
            "event": {"description": "As it was sent; a string if it was not JSON."},
            "faults": {"type": "array", "items": {"type": "object"}},
        },
    },
    "new_key": {
        "type": "object",
        "required": ["name"],
        "additionalProperties": False,
        "properties": {
            "name": TEXT,
            "expires_in_seconds": {"type": "integer", "minimum": 1, "maximum": LIFE_S_MAX},
            "scopes": {
                "type": "array",
                "minItems": 1,
                "items": {"enum": [*ALL_SCOPES]},
                "description": "Absent: those of the asking key.",
            },
        },
    },
    "admin_api_key": {
        "type": "object",
        "required": ["object", "id", "name", "redacted_value", "created_at", "owner", "scopes"],
        "properties": {
            "object": {"const": "organization.admin_api_key"},
            "id": STRING,
            "name": STRING,
            "redacted_value": STRING,
            "created_at": INTEGER,
            "last_used_at": {"type": ["integer", "null"]},
            "expires_at": {"type": ["integer", "null"]},
            "scopes": {"type": "array", "items": STRING},
            "owner": {"type": "object"},
            "value": STRING | {"description": "Only in the answer that made the key."},
        },
    },
}
