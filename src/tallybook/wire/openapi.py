"""The API described as OpenAPI 3.1, derived from the table of kinds."""

from typing import Final

from tallybook import __version__
from tallybook.event import COUNT_MAX, TEXT_MAX
from tallybook.keys import ALL_SCOPES, LIFE_S_MAX
from tallybook.kinds import DIMENSIONS, KINDS, Dimension, UsageKind
from tallybook.parts import LINE_ITEM_MAX
from tallybook.timegrid import INSTANT_MAX_S
from tallybook.wire.params import COSTS, USAGE, Endpoint
from tallybook.wire.params import RECONCILIATION as RECONCILED

Json = dict[str, object]

_INTEGER: Final[Json] = {"type": "integer"}
_STRING: Final[Json] = {"type": "string"}
_COUNT: Final[Json] = {"type": "integer", "minimum": 0, "maximum": COUNT_MAX}
_INSTANT: Final[Json] = {"type": "integer", "minimum": 0, "maximum": INSTANT_MAX_S}
_TEXT: Final[Json] = {"type": "string", "minLength": 1, "maxLength": TEXT_MAX}


def openapi() -> Json:
    """Return the description as a JSON-ready object."""
    paths: Json = {f"/v1/organization/usage/{kind.name}": {"get": _usage(kind)} for kind in KINDS.values()}
    paths |= _costs() | _EVENTS | _otlp() | _RECONCILIATION | _QUARANTINE | _KEYS | _MAINTAIN | _OPERATE
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tallybook",
            "version": __version__,
            "description": "Records what an AI platform used and what it cost, in the wire format of OpenAI's "
            "organization Usage and Costs APIs.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"admin_key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"admin_key": {"type": "http", "scheme": "bearer", "description": "sk-admin-..."}},
            "schemas": _SCHEMAS | {f"{kind.name}_event": _event(kind) for kind in KINDS.values()},
        },
    }


def _otlp() -> Json:
    """OTLP's endpoints, in the one of its two types that can be described here."""
    return {
        f"/v1/{signal}": {"post": _otlp_operation(signal, body, rejected)}
        for signal, body, rejected in (
            ("traces", "resourceSpans", "rejectedSpans"),
            ("metrics", "resourceMetrics", "rejectedDataPoints"),
        )
    }


def _otlp_operation(signal: str, body: str, rejected: str) -> Json:
    counted = {"type": "object", "properties": {rejected: _STRING, "errorMessage": _STRING}}
    done: Json = {"type": "object", "properties": {"partialSuccess": counted}}
    status: Json = {
        "type": "object",
        "required": ["code", "message"],
        "properties": {"code": _INTEGER, "message": _STRING},
    }
    wrong = {"description": "What is wrong, as google.rpc.Status; in OpenAI's envelope for a Content-Type of neither."}
    operation = _operation(
        f"record_{signal}",
        f"Record usage from OpenTelemetry's {signal}: OTLP/HTTP, in JSON, or in protobuf as application/x-protobuf",
        "events",
        done,
        body={"type": "object", "properties": {body: {"type": ["array", "null"], "items": {"type": "object"}}}},
    )
    responses = {
        "200": {"description": "Stored; what is not counted is told as partial success."} | _json(done),
        "default": wrong | _json({"oneOf": [status, _ref("error")]}),
    }
    return operation | {"responses": responses}


def _usage(kind: UsageKind) -> Json:
    page = _page(_result(kind))
    return _operation(f"usage_{kind.name}", f"Usage: {kind.name}", "usage", page, parameters=_asked(USAGE[kind.name]))


def _asked(endpoint: Endpoint) -> list[Json]:
    """The parameters of an endpoint that answers in pages of buckets."""
    return [
        _parameter("start_time", _INSTANT, "Start of the window, Unix seconds, inclusive.", required=True),
        _parameter("end_time", _INSTANT, "End of the window, Unix seconds, exclusive. Absent: now."),
        _parameter(
            "bucket_width", {"type": "string", "enum": list(endpoint.widths), "default": "1d"}, "Width of a bucket."
        ),
        _parameter(
            "group_by",
            {"type": "array", "items": {"type": "string", "enum": list(endpoint.group_by)}},
            "Dimensions that each get a row of their own.",
        ),
        _parameter("limit", {"type": "integer", "minimum": 1, "maximum": 1440}, _limits(endpoint)),
        _parameter("page", _STRING, "next_page of the answer before."),
        *(_filter(name, dimension) for name, dimension in endpoint.filters.items()),
    ]


def _page(result: Json) -> Json:
    bucket = {
        "type": "object",
        "required": ["object", "start_time", "end_time", "results", "result"],
        "properties": {
            "object": {"const": "bucket"},
            "start_time": _INTEGER,
            "end_time": _INTEGER,
            "results": {"type": "array", "items": result},
            "result": {"type": "array", "items": result},
        },
    }
    return {
        "type": "object",
        "required": ["object", "data", "has_more", "next_page"],
        "properties": {
            "object": {"const": "page"},
            "data": {"type": "array", "items": bucket},
            "has_more": {"type": "boolean"},
            "next_page": {"type": ["string", "null"]},
        },
    }


def _limits(endpoint: Endpoint) -> str:
    limits = (f"{width.name}: {width.limit_default}, at most {width.limit_max}" for width in endpoint.widths.values())
    return f"Buckets a page. Default by width: {'; '.join(limits)}."


def _filter(name: str, dimension: Dimension) -> Json:
    if name == "provider":
        return _parameter(name, _TEXT, f"{dimension.meaning.capitalize()}.", required=True)
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


def _costs() -> Json:
    number: Json = {"type": "number"}
    result: Json = {
        "type": "object",
        "required": ["object", "amount", "quantity", "quantity_unit", *COSTS.group_by, "organization_id"],
        "properties": {
            "object": {"const": "organization.costs.result"},
            "amount": {
                "type": "object",
                "required": ["value", "currency"],
                "properties": {
                    "value": number | {"description": "Exact: read it as a decimal, not as a binary fraction."},
                    "currency": {"const": "usd"},
                },
            },
            "quantity": {"type": ["number", "null"], "description": "Null unless grouped by line_item."},
            "quantity_unit": {"type": ["string", "null"]},
            **{name: _nullable(name) for name in COSTS.group_by if name != "line_item"},
            "line_item": {"type": ["string", "null"], "description": "What was charged; null unless grouped by it."},
            "organization_id": _STRING,
        },
    }
    return {
        _COSTS_PATH: {"get": _operation("costs", "What usage cost", "costs", _page(result), parameters=_asked(COSTS))},
        f"{_COSTS_PATH}/unpriced": {
            "get": _operation(
                "unpriced",
                "Usage that has no price",
                "costs",
                _plain_list("unpriced"),
                parameters=[
                    *_WINDOW,
                    _parameter(
                        "count_events",
                        {"enum": ["true", "false"], "default": "true"},
                        "Without counts, `events` is null and the answer comes at once.",
                    ),
                ],
            )
        },
        f"{_COSTS_PATH}/prices": {
            "get": _operation(
                "prices",
                "The price book",
                "costs",
                _plain_list("price"),
                parameters=[
                    _parameter("model", _TEXT, "Only what this model costs, in every tier, batch and size."),
                    _parameter("at", _INSTANT, "When, Unix seconds. Absent: now."),
                ],
            )
        },
        f"{_COSTS_PATH}/prices/reload": {
            "post": _operation("reload_prices", "Read the price files again", "costs", {"type": "object"})
        },
        f"{_COSTS_PATH}/rerate": {
            "post": _operation(
                "rerate",
                "Charge whole days anew, or tell what that would change",
                "costs",
                _ref("rerating"),
                body={
                    "type": "object",
                    "required": ["start_time", "end_time"],
                    "additionalProperties": False,
                    "properties": {
                        "start_time": _INSTANT,
                        "end_time": _INSTANT,
                        "dry_run": {"type": "boolean", "default": False},
                        "prices": {
                            "type": ["string", "null"],
                            "description": "Text of a price file that stands in for the operator's.",
                        },
                    },
                },
            )
        },
        f"{_COSTS_PATH}/reratings": {
            "get": _operation(
                "list_reratings",
                "Days that were charged anew",
                "costs",
                _list("rerated_day"),
                parameters=_LIST_PARAMETERS,
            )
        },
        f"{_COSTS_PATH}/export": {
            "get": _download(
                "export_costs",
                "Charges as FOCUS, or as OpenAI's dashboard has them",
                "costs",
                [
                    *_WINDOW,
                    _parameter("format", {"enum": ["csv", "parquet"], "default": "csv"}, "Of the file."),
                    _parameter(
                        "schema",
                        {"enum": ["focus-1.4", "focus-1.2", "openai"], "default": "focus-1.4"},
                        "Columns of the file.",
                    ),
                    _parameter("bucket_width", {"enum": ["1d", "1h"], "default": "1d"}, "Charge period."),
                ],
            )
        },
        "/v1/organization/usage/export": {
            "get": _download(
                "export_usage",
                "Stored events, such that importing them makes the same store",
                "usage",
                [
                    *_WINDOW,
                    _parameter("format", {"enum": ["csv", "parquet"], "default": "csv"}, "Of the file."),
                    _parameter("kinds", _STRING, "Usage kinds, separated by commas. Absent: all."),
                ],
            )
        },
    }


def _download(name: str, summary: str, tag: str, parameters: list[Json]) -> Json:
    operation = _operation(name, summary, tag, {}, parameters=parameters)
    files: Json = {"text/csv": {"schema": _STRING}, "application/vnd.apache.parquet": {"schema": _STRING}}
    default: Json = {"description": "What is wrong, in OpenAI's envelope."} | _json(_ref("error"))
    return operation | {"responses": {"200": {"description": "The file.", "content": files}, "default": default}}


def _plain_list(item: str) -> Json:
    return {
        "type": "object",
        "required": ["object", "data", "has_more"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": _ref(item)},
            "has_more": {"const": False},
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
        "description": "The producer's own figure, which holds instead of the price book.",
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


_COSTS_PATH: Final = "/v1/organization/costs"
_WINDOW: Final = [
    _parameter("start_time", _INSTANT, "Start of the window, Unix seconds, inclusive. Absent: the first usage."),
    _parameter("end_time", _INSTANT, "End of the window, Unix seconds, exclusive. Absent: now."),
]

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

_RECORD: Final[Json] = {"type": "object"}
_EVENTS: Final[Json] = {
    "/v1/organization/usage/events": {
        "post": _operation(
            "record_events",
            "Record one event, an array of events, or one a line (NDJSON)",
            "events",
            _ref("receipt"),
            body={"oneOf": [_EVENT, {"type": "array", "items": _EVENT, "minItems": 1}]},
        )
    },
    **{
        f"/v1/organization/usage/events/{name}": {
            "post": _operation(
                f"record_{name.replace('-', '_')}",
                f"Record {records}: one, an array, or one a line (NDJSON)",
                "events",
                _ref("receipt"),
                body={"oneOf": [_RECORD, {"type": "array", "items": _RECORD}]},
            )
        }
        for name, records in (
            ("litellm", "what LiteLLM's generic callback sends"),
            ("openai", "answers of OpenAI's API, or of servers that answer like it"),
            ("anthropic", "answers of Anthropic's API"),
            ("otlp", "OpenTelemetry's traces in JSON, as a collector writes them to files"),
            ("otlp-metrics", "OpenTelemetry's metrics in JSON, likewise"),
            ("cloudevents", "CloudEvents in JSON, with events of ours as data"),
            ("sync", "events that stand for what a provider tells of an hour"),
        )
    },
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
    "/v1/organization/usage/backup": {
        "post": _operation(
            "hold_for_backup",
            "Keep the store's main file as it is while 'tallybook backup' copies it",
            "maintenance",
            {
                "type": "object",
                "required": ["object", "held"],
                "properties": {"object": {"const": "organization.usage.backup"}, "held": {"const": True}},
            },
        )
    },
    "/v1/organization/usage/sources": {
        "get": _operation(
            "sources",
            "Which sources sent events lately, and which calls came more than once",
            "maintenance",
            {
                "type": "object",
                "required": ["object", "start_time", "end_time", "sources", "repeated"],
                "properties": {
                    "object": {"const": "organization.usage.sources"},
                    "start_time": _INTEGER,
                    "end_time": _INTEGER,
                    "sources": {"type": "array", "items": {"type": "object"}},
                    "repeated": {"type": "array", "items": {"type": "object"}},
                },
            },
            parameters=_WINDOW,
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
                    "kept": {
                        "type": "object",
                        "description": "Since when single events, sums by minute and by hour are kept; 0: of all time.",
                        "properties": {"events_s": _INTEGER, "minutes_s": _INTEGER, "hours_s": _INTEGER},
                    },
                    "differences": {"type": "array", "items": {"type": "object"}},
                },
            },
        )
    },
}

_PROVIDER: Final = [_parameter("provider", _TEXT, "Whose book.", required=True, where="path")]
_BOOKS_PATH: Final = "/v1/organization/reconciliation/books"
_OPTIONAL_AMOUNT: Final[Json] = {
    "type": ["object", "null"],
    "properties": {"value": {"type": "number"}, "currency": {"const": "usd"}},
}
_BOOK_SIDE: Final[Json] = {
    "type": "object",
    "required": ["quantity", "amount"],
    "properties": {"quantity": {"type": ["number", "null"]}, "amount": _OPTIONAL_AMOUNT},
}
_READING: Final[Json] = {
    "type": "object",
    "required": ["start_time", "end_time", "read_at", "usage", "costs"],
    "additionalProperties": False,
    "properties": {
        "start_time": _INSTANT | {"description": "Start of the first day (UTC)."},
        "end_time": _INSTANT | {"description": "End of the last."},
        "read_at": _INSTANT | {"description": "When reading began; what came later is not in it."},
        "usage": {"type": "array", "items": _EVENT, "description": "Sums of a day, as events at its start."},
        "costs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["start_time", "amount"],
                "additionalProperties": False,
                "properties": {
                    "start_time": _INSTANT,
                    "line_item": {"type": ["string", "null"], "minLength": 1, "maxLength": LINE_ITEM_MAX},
                    "project_id": {"type": ["string", "null"], "minLength": 1, "maxLength": TEXT_MAX},
                    "quantity": {"type": ["number", "string", "null"]},
                    "amount": {
                        "type": "object",
                        "required": ["value", "currency"],
                        "additionalProperties": False,
                        "properties": {"value": {"type": ["number", "string"]}, "currency": {"const": "usd"}},
                    },
                },
            },
        },
    },
}
_RECONCILIATION: Final[Json] = {
    "/v1/organization/reconciliation": {
        "get": _operation(
            "reconcile",
            "What was recorded beside what a provider says, by UTC day",
            "reconciliation",
            _page(
                {
                    "type": "object",
                    "required": ["object", "provider", *RECONCILED.group_by, "recorded", "billed", "difference"],
                    "properties": {
                        "object": {"const": "organization.reconciliation.result"},
                        "provider": _STRING,
                        **{name: {"type": ["string", "null"]} for name in RECONCILED.group_by},
                        "quantity_unit": {"type": ["string", "null"]},
                        "recorded": _BOOK_SIDE,
                        "billed": _BOOK_SIDE,
                        "difference": _BOOK_SIDE,
                    },
                }
            ),
            parameters=_asked(RECONCILED),
        )
    },
    _BOOKS_PATH: {
        "get": _operation(
            "list_books",
            "Providers that were read, and how far they are from what was recorded",
            "reconciliation",
            _plain_list("book"),
        )
    },
    f"{_BOOKS_PATH}/{{provider}}": {
        "get": _operation(
            "get_book",
            "Days that were read of a provider",
            "reconciliation",
            _plain_list("day_read"),
            parameters=_PROVIDER,
        ),
        "put": _operation(
            "put_reading",
            "Replace what a provider says of some days",
            "reconciliation",
            {"type": "object"},
            parameters=_PROVIDER,
            body=_READING,
        ),
        "delete": _operation(
            "drop_book",
            "Forget what was read of a provider",
            "reconciliation",
            {"type": "object"},
            parameters=_PROVIDER,
        ),
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
        "required": ["object", "accepted", "duplicates", "conflicts", "rejected", "ignored", "faults"],
        "properties": {
            "object": {"const": "organization.usage.events.receipt"},
            "accepted": _INTEGER,
            "duplicates": _INTEGER,
            "conflicts": _INTEGER,
            "rejected": _INTEGER,
            "ignored": _INTEGER,
            "faults": {"type": "array", "items": _ref("fault"), "maxItems": 100},
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
            "line_item": _STRING | {"description": "What it would be charged as."},
            "counted": _STRING | {"description": "What a line of a price file counts, to give it a price."},
            "since": _INTEGER | {"description": "First event of it."},
            "until": _INTEGER | {"description": "Last event of it."},
            "quantity": {"type": "number"},
            "quantity_unit": {"type": ["string", "null"]},
            "events": {"type": ["integer", "null"], "description": "Null where not all are kept any more, or counted."},
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
            "counted": _STRING,
            "service_tier": {"type": ["string", "null"]},
            "batch": {"type": ["boolean", "null"]},
            "above_input_tokens": {"type": ["integer", "null"]},
            "size": {"type": ["string", "null"]},
            "quality": {"type": ["string", "null"]},
            "context_level": {"type": ["string", "null"]},
            "unit": _STRING,
            "price": {"type": "number"},
            "free": {"type": ["number", "null"], "description": "GiB every organization has for nothing."},
            "from": {"type": ["integer", "null"]},
            "until": {"type": ["integer", "null"]},
            "source": _STRING,
            "checked": {"type": ["string", "null"]},
        },
    },
    "book": {
        "type": "object",
        "required": ["object", "provider", "days", "read_at", "recorded", "billed", "difference", "ratio", "beyond"],
        "properties": {
            "object": {"const": "organization.reconciliation.book"},
            "provider": _STRING,
            "days": _INTEGER | {"description": "How many days were read."},
            "read_at": _INTEGER | {"description": "When it was last read."},
            "start_time": {"type": ["integer", "null"], "description": "First of the last settled days."},
            "end_time": {"type": ["integer", "null"]},
            "recorded": _OPTIONAL_AMOUNT,
            "billed": _OPTIONAL_AMOUNT,
            "difference": _OPTIONAL_AMOUNT,
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
            "start_time": _INTEGER,
            "end_time": _INTEGER,
            "read_at": _INTEGER,
        },
    },
    "rerating": {
        "type": "object",
        "required": ["object", "dry_run", "book_id", "days"],
        "properties": {
            "object": {"const": "organization.costs.rerating"},
            "dry_run": {"type": "boolean"},
            "book_id": _STRING,
            "days": {"type": "array", "items": {"type": "object"}, "description": "Days that change, oldest first."},
        },
    },
    "rerated_day": {
        "type": "object",
        "required": ["object", "id", "created_at", "start_time", "book_id", "events", "before", "after"],
        "properties": {
            "object": {"const": "organization.costs.rerating"},
            "id": _STRING,
            "created_at": _INTEGER,
            "start_time": _INTEGER,
            "book_id": _STRING,
            "events": _INTEGER,
            "before": {"type": "number"},
            "after": {"type": "number"},
        },
    },
    "quarantined_event": {
        "type": "object",
        "required": ["object", "id", "created_at", "source", "event", "faults"],
        "properties": {
            "object": {"const": "organization.usage.quarantined_event"},
            "id": _STRING,
            "created_at": _INTEGER,
            "source": _STRING | {"description": "What it is a record of: events, or the dialect it was sent in."},
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
