"""The API described as OpenAPI 3.1, derived from the table of kinds."""

from typing import Final

from tallybook import __version__
from tallybook.event import COUNT_MAX, TEXT_MAX
from tallybook.keys import ALL_SCOPES, LIFE_S_MAX
from tallybook.kinds import DIMENSIONS, KINDS, Dimension, UsageKind
from tallybook.timegrid import INSTANT_MAX_S, WIDTHS

Json = dict[str, object]

_INTEGER: Final[Json] = {"type": "integer"}
_STRING: Final[Json] = {"type": "string"}
_COUNT: Final[Json] = {"type": "integer", "minimum": 0, "maximum": COUNT_MAX}
_INSTANT: Final[Json] = {"type": "integer", "minimum": 0, "maximum": INSTANT_MAX_S}
_TEXT: Final[Json] = {"type": "string", "minLength": 1, "maxLength": TEXT_MAX}


def openapi() -> Json:
    """Return the description as a JSON-ready object."""
    paths: Json = {f"/v1/organization/usage/{kind.name}": {"get": _usage(kind)} for kind in KINDS.values()}
    paths |= _EVENTS | _QUARANTINE | _KEYS | _MAINTAIN | _OPERATE
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tallybook",
            "version": __version__,
            "description": "Records what an AI platform used, and answers in the wire format of OpenAI's organization "
            "Usage API.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"admin_key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"admin_key": {"type": "http", "scheme": "bearer", "description": "sk-admin-..."}},
            "schemas": _SCHEMAS | {f"{kind.name}_event": _event(kind) for kind in KINDS.values()},
        },
    }


def _usage(kind: UsageKind) -> Json:
    parameters = [
        _parameter("start_time", _INSTANT, "Start of the window, Unix seconds, inclusive.", required=True),
        _parameter("end_time", _INSTANT, "End of the window, Unix seconds, exclusive. Absent: now."),
        _parameter("bucket_width", {"type": "string", "enum": list(WIDTHS), "default": "1d"}, "Width of a bucket."),
        _parameter(
            "group_by",
            {"type": "array", "items": {"type": "string", "enum": list(kind.group_by)}},
            "Dimensions that each get a row of their own.",
        ),
        _parameter("limit", {"type": "integer", "minimum": 1, "maximum": 1440}, _limits()),
        _parameter("page", _STRING, "next_page of the answer before."),
    ]
    parameters += [_filter(name, dimension) for name, dimension in kind.filters.items()]
    bucket = {
        "type": "object",
        "required": ["object", "start_time", "end_time", "results", "result"],
        "properties": {
            "object": {"const": "bucket"},
            "start_time": _INTEGER,
            "end_time": _INTEGER,
            "results": {"type": "array", "items": _result(kind)},
            "result": {"type": "array", "items": _result(kind)},
        },
    }
    page: Json = {
        "type": "object",
        "required": ["object", "data", "has_more", "next_page"],
        "properties": {
            "object": {"const": "page"},
            "data": {"type": "array", "items": bucket},
            "has_more": {"type": "boolean"},
            "next_page": {"type": ["string", "null"]},
        },
    }
    return _operation(f"usage_{kind.name}", f"Usage: {kind.name}", "usage", page, parameters=parameters)


def _limits() -> str:
    limits = (f"{width.name}: {width.limit_default}, at most {width.limit_max}" for width in WIDTHS.values())
    return f"Buckets a page. Default by width: {'; '.join(limits)}."


def _filter(name: str, dimension: Dimension) -> Json:
    if name == "batch":
        return _parameter(name, {"type": "boolean"}, "Only batch jobs, or only others. Absent: both.")
    items = {"type": "string", "enum": list(dimension.values)} if dimension.values else _TEXT
    return _parameter(name, {"type": "array", "items": items, "maxItems": 1000}, f"Only these: {dimension.meaning}.")


def _result(kind: UsageKind) -> Json:
    dimensions = {name: _nullable(name) for name in kind.group_by}
    return {
        "type": "object",
        "required": ["object", *kind.measures, *kind.group_by],
        "properties": {
            "object": {"const": kind.object},
            **dict.fromkeys(kind.measures, _INTEGER),
            **dimensions,
        },
    }


def _nullable(name: str) -> Json:
    return {
        "type": ["boolean" if name == "batch" else "string", "null"],
        "description": f"{DIMENSIONS[name].meaning.capitalize()}; null unless grouped by it.",
    }


def _event(kind: UsageKind) -> Json:
    properties: Json = {
        "kind": {"const": kind.name},
        "id": _TEXT | {"description": "The producer's id. With kind and timestamp it is the event's identity."},
        "timestamp": {
            "type": ["number", "string"],
            "description": "Unix seconds or RFC 3339, from 2015 to an hour ahead. Absent: time of receipt.",
        },
    }
    properties |= {name: _event_dimension(DIMENSIONS[name]) for name in kind.dimensions}
    properties |= {
        name: {"type": "number", "minimum": 0, "maximum": COUNT_MAX} if name == "seconds" else _COUNT
        for name in kind.measures
    }
    properties["cost"] = {
        "type": "object",
        "required": ["value", "currency"],
        "additionalProperties": False,
        "properties": {
            "value": {"type": ["number", "string"], "description": "Decimal."},
            "currency": {"const": "usd"},
        },
        "description": "The producer's own figure.",
    }
    return {
        "type": "object",
        "required": ["kind", *kind.required],
        "additionalProperties": False,
        "properties": properties,
    }


def _event_dimension(dimension: Dimension) -> Json:
    if dimension.name == "batch":
        return {"type": "boolean", "description": dimension.meaning}
    if dimension.values and dimension.name != "api_source":
        return {"type": "string", "enum": list(dimension.values), "description": dimension.meaning}
    return _TEXT | {"description": dimension.meaning}


def _parameter(name: str, schema: Json, meaning: str, *, required: bool = False, where: str = "query") -> Json:
    return {"name": name, "in": where, "required": required, "schema": schema, "description": meaning}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(schema: Json) -> Json:
    return {"content": {"application/json": {"schema": schema}}}


def _operation(
    name: str,
    summary: str,
    tag: str,
    schema: Json,
    *,
    parameters: list[Json] | None = None,
    body: Json | None = None,
) -> Json:
    operation: Json = {
        "operationId": name,
        "summary": summary,
        "tags": [tag],
        "responses": {
            "200": {"description": "Done."} | _json(schema),
            "default": {"description": "What is wrong, in OpenAI's envelope."} | _json(_ref("error")),
        },
    }
    if parameters:
        operation["parameters"] = parameters
    if body:
        operation["requestBody"] = {"required": True} | _json(body)
    return operation


def _list(item: str) -> Json:
    return {
        "type": "object",
        "required": ["object", "data", "first_id", "last_id", "has_more"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": _ref(item)},
            "first_id": {"type": ["string", "null"]},
            "last_id": {"type": ["string", "null"]},
            "has_more": {"type": "boolean"},
        },
    }


def _deleted(name: str) -> Json:
    return {
        "type": "object",
        "required": ["object", "id", "deleted"],
        "properties": {"object": {"const": f"{name}.deleted"}, "id": _STRING, "deleted": {"const": True}},
    }


_LIST_PARAMETERS: Final = [
    _parameter("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}, "Entries a page."),
    _parameter("after", _STRING, "last_id of the page before."),
    _parameter("order", {"type": "string", "enum": ["asc", "desc"], "default": "asc"}, "Oldest or newest first."),
]

_EVENT: Final[Json] = {
    "oneOf": [_ref(f"{name}_event") for name in KINDS],
    "discriminator": {
        "propertyName": "kind",
        "mapping": {name: f"#/components/schemas/{name}_event" for name in KINDS},
    },
}

_EVENTS: Final[Json] = {
    "/v1/organization/usage/events": {
        "post": _operation(
            "record_events",
            "Record one event, an array of events, or one a line (NDJSON)",
            "events",
            _ref("receipt"),
            body={"oneOf": [_EVENT, {"type": "array", "items": _EVENT, "minItems": 1}]},
        )
    }
}

_QUARANTINE_ID: Final = [_parameter("quarantine_id", _STRING, "Id of the entry.", required=True, where="path")]
_QUARANTINE_PATH: Final = "/v1/organization/usage/quarantine"
_QUARANTINE: Final[Json] = {
    _QUARANTINE_PATH: {
        "get": _operation(
            "list_quarantine",
            "Events that could not be kept, in the order they arrived",
            "quarantine",
            _list("quarantined_event"),
            parameters=_LIST_PARAMETERS,
        ),
        "delete": _operation(
            "drop_quarantine",
            "Remove all of them for good",
            "quarantine",
            {
                "type": "object",
                "required": ["object", "deleted"],
                "properties": {
                    "object": {"const": "organization.usage.quarantine.deleted"},
                    "deleted": _INTEGER,
                },
            },
        ),
    },
    f"{_QUARANTINE_PATH}/replay": {
        "post": _operation("replay_quarantine", "Try all of them again", "quarantine", _ref("receipt"))
    },
    f"{_QUARANTINE_PATH}/{{quarantine_id}}": {
        "get": _operation(
            "get_quarantined",
            "One of them",
            "quarantine",
            _ref("quarantined_event"),
            parameters=_QUARANTINE_ID,
        ),
        "delete": _operation(
            "drop_quarantined",
            "Remove one for good",
            "quarantine",
            _deleted("organization.usage.quarantined_event"),
            parameters=_QUARANTINE_ID,
        ),
    },
    f"{_QUARANTINE_PATH}/{{quarantine_id}}/replay": {
        "post": _operation(
            "replay_quarantined",
            "Try one again, mended by the body if there is one",
            "quarantine",
            _ref("receipt"),
            parameters=_QUARANTINE_ID,
        )
        | {"requestBody": {"required": False} | _json(_EVENT)}
    },
}

_KEY_ID: Final = [_parameter("key_id", _STRING, "Id of the key.", required=True, where="path")]
_KEYS_PATH: Final = "/v1/organization/admin_api_keys"
_KEYS: Final[Json] = {
    _KEYS_PATH: {
        "get": _operation(
            "list_keys",
            "Keys of the organization",
            "keys",
            _list("admin_api_key"),
            parameters=_LIST_PARAMETERS,
        ),
        "post": _operation(
            "create_key",
            "Make a key; its value is told once",
            "keys",
            _ref("admin_api_key"),
            body=_ref("new_key"),
        ),
    },
    f"{_KEYS_PATH}/{{key_id}}": {
        "get": _operation("get_key", "One key", "keys", _ref("admin_api_key"), parameters=_KEY_ID),
        "delete": _operation(
            "revoke_key", "Revoke a key", "keys", _deleted("organization.admin_api_key"), parameters=_KEY_ID
        ),
    },
}

_MAINTAIN: Final[Json] = {
    "/v1/organization/usage/rebuild": {
        "post": _operation(
            "rebuild",
            "Make rollups anew from raw events, by whole days",
            "maintenance",
            {
                "type": "object",
                "required": ["object", "days"],
                "properties": {"object": {"const": "organization.usage.rebuild"}, "days": _INTEGER},
            },
            body={
                "type": "object",
                "required": ["start_time", "end_time"],
                "additionalProperties": False,
                "properties": {"start_time": _INSTANT, "end_time": _INSTANT},
            },
        )
    },
    "/v1/organization/usage/check": {
        "get": _operation(
            "check",
            "Compare rollups with raw events",
            "maintenance",
            {
                "type": "object",
                "required": ["object", "ok", "differences"],
                "properties": {
                    "object": {"const": "organization.usage.check"},
                    "ok": {"type": "boolean"},
                    "differences": {"type": "array", "items": {"type": "object"}},
                },
            },
        )
    },
}

_STATUS: Final[Json] = {"type": "object", "required": ["status"], "properties": {"status": _STRING}}
_OPERATE: Final[Json] = {
    "/healthz": {"get": _operation("healthz", "The process answers", "operation", _STATUS) | {"security": []}},
    "/readyz": {"get": _operation("readyz", "Events and questions are taken", "operation", _STATUS) | {"security": []}},
    "/metrics": {
        "get": {
            "operationId": "metrics",
            "summary": "Measurements for Prometheus",
            "tags": ["operation"],
            "security": [],
            "responses": {"200": {"description": "Text format.", "content": {"text/plain": {"schema": _STRING}}}},
        }
    },
}

_SCHEMAS: Final[Json] = {
    "error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": _STRING,
                    "type": _STRING,
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
            "index": _INTEGER,
            "outcome": {"enum": ["rejected", "conflict"]},
            "field": {"type": ["string", "null"]},
            "value": {},
            "message": _STRING,
            "quarantine_id": {"type": ["string", "null"]},
        },
    },
    "receipt": {
        "type": "object",
        "required": ["object", "accepted", "duplicates", "conflicts", "rejected", "faults"],
        "properties": {
            "object": {"const": "organization.usage.events.receipt"},
            "accepted": _INTEGER,
            "duplicates": _INTEGER,
            "conflicts": _INTEGER,
            "rejected": _INTEGER,
            "faults": {"type": "array", "items": _ref("fault"), "maxItems": 100},
        },
    },
    "quarantined_event": {
        "type": "object",
        "required": ["object", "id", "created_at", "event", "faults"],
        "properties": {
            "object": {"const": "organization.usage.quarantined_event"},
            "id": _STRING,
            "created_at": _INTEGER,
            "event": {"description": "As it was sent; a string if it was not JSON."},
            "faults": {"type": "array", "items": {"type": "object"}},
        },
    },
    "new_key": {
        "type": "object",
        "required": ["name"],
        "additionalProperties": False,
        "properties": {
            "name": _TEXT,
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
            "id": _STRING,
            "name": _STRING,
            "redacted_value": _STRING,
            "created_at": _INTEGER,
            "last_used_at": {"type": ["integer", "null"]},
            "expires_at": {"type": ["integer", "null"]},
            "scopes": {"type": "array", "items": _STRING},
            "owner": {"type": "object"},
            "value": _STRING | {"description": "Only in the answer that made the key."},
        },
    },
}
