"""The API described as OpenAPI 3.1, derived from the table of kinds."""

from typing import Final

from tallybook import __version__
from tallybook.event import COUNT_MAX, TEXT_MAX
from tallybook.kinds import DIMENSIONS, KINDS, Dimension, UsageKind
from tallybook.parts import LINE_ITEM_MAX
from tallybook.wire.params import COSTS, UNPRICED, USAGE, Endpoint
from tallybook.wire.params import RECONCILIATION as RECONCILED
from tallybook.wire.schemas import COUNT, INSTANT, INTEGER, OPTIONAL_AMOUNT, SCHEMAS, STRING, TEXT, Json, ref


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
            "schemas": SCHEMAS | {f"{kind.name}_event": _event(kind) for kind in KINDS.values()},
        },
    }


def _otlp() -> Json:
    """OTLP's endpoints, in the one of its two types that can be described here."""
    return {
        f"/v1/{signal}": {"post": _otlp_operation(signal, body, rejected)}
        for signal, body, rejected in (
            ("traces", "resourceSpans", "rejectedSpans"),
            ("metrics", "resourceMetrics", "rejectedDataPoints"),
            ("logs", "resourceLogs", "rejectedLogRecords"),
        )
    }


def _otlp_operation(signal: str, body: str, rejected: str) -> Json:
    counted = {"type": "object", "properties": {rejected: STRING, "errorMessage": STRING}}
    done: Json = {"type": "object", "properties": {"partialSuccess": counted}}
    status: Json = {
        "type": "object",
        "required": ["code", "message"],
        "properties": {"code": INTEGER, "message": STRING},
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
        "default": wrong | _json({"oneOf": [status, ref("error")]}),
    }
    return operation | {"responses": responses}


def _usage(kind: UsageKind) -> Json:
    page = _page(_result(kind))
    return _operation(f"usage_{kind.name}", f"Usage: {kind.name}", "usage", page, parameters=_asked(USAGE[kind.name]))


def _asked(endpoint: Endpoint) -> list[Json]:
    """The parameters of an endpoint that answers in pages of buckets."""
    return [
        _parameter("start_time", INSTANT, "Start of the window, Unix seconds, inclusive.", required=True),
        _parameter("end_time", INSTANT, "End of the window, Unix seconds, exclusive. Absent: now."),
        _parameter(
            "bucket_width", {"type": "string", "enum": list(endpoint.widths), "default": "1d"}, "Width of a bucket."
        ),
        _parameter(
            "group_by",
            {"type": "array", "items": {"type": "string", "enum": list(endpoint.group_by)}},
            "Dimensions that each get a row of their own.",
        ),
        _parameter("limit", {"type": "integer", "minimum": 1, "maximum": 1440}, _limits(endpoint)),
        _parameter("page", STRING, "next_page of the answer before."),
        *(_filter(name, dimension) for name, dimension in endpoint.filters.items()),
    ]


def _page(result: Json) -> Json:
    bucket = {
        "type": "object",
        "required": ["object", "start_time", "end_time", "results", "result"],
        "properties": {
            "object": {"const": "bucket"},
            "start_time": INTEGER,
            "end_time": INTEGER,
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
        return _parameter(name, TEXT, f"{dimension.meaning.capitalize()}.", required=True)
    if name == "batch":
        return _parameter(name, {"type": "boolean"}, "Only batch jobs, or only others. Absent: both.")
    items = {"type": "string", "enum": list(dimension.values)} if dimension.values else TEXT
    return _parameter(name, {"type": "array", "items": items, "maxItems": 1000}, f"Only these: {dimension.meaning}.")


def _result(kind: UsageKind) -> Json:
    dimensions = {name: _nullable(name) for name in kind.group_by}
    return {
        "type": "object",
        "required": ["object", *kind.measures, *kind.group_by],
        "properties": {
            "object": {"const": kind.object},
            **dict.fromkeys(kind.measures, INTEGER),
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
            "organization_id": STRING,
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
                        "bucket_width",
                        {"type": "string", "enum": list(UNPRICED.widths)},
                        "Entries by bucket, those of costs, with start_time and end_time. Absent: the window as it is.",
                    ),
                    *(one for one in _asked(UNPRICED) if one["name"] in ("group_by", *UNPRICED.filters)),
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
                    _parameter("model", TEXT, "Only what this model costs, in every tier, batch and size."),
                    _parameter("at", INSTANT, "When, Unix seconds. Absent: now."),
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
                ref("rerating"),
                body={
                    "type": "object",
                    "required": ["start_time", "end_time"],
                    "additionalProperties": False,
                    "properties": {
                        "start_time": INSTANT,
                        "end_time": INSTANT,
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
                    _parameter("kinds", STRING, "Usage kinds, separated by commas. Absent: all."),
                ],
            )
        },
    }


def _download(name: str, summary: str, tag: str, parameters: list[Json]) -> Json:
    operation = _operation(name, summary, tag, {}, parameters=parameters)
    files: Json = {"text/csv": {"schema": STRING}, "application/vnd.apache.parquet": {"schema": STRING}}
    default: Json = {"description": "What is wrong, in OpenAI's envelope."} | _json(ref("error"))
    return operation | {"responses": {"200": {"description": "The file.", "content": files}, "default": default}}


def _plain_list(item: str) -> Json:
    return {
        "type": "object",
        "required": ["object", "data", "has_more"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": ref(item)},
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
        "id": TEXT | {"description": "The producer's id. With kind and timestamp it is the event's identity."},
        "timestamp": {
            "type": ["number", "string"],
            "description": "Unix seconds or RFC 3339, from 2015 to an hour ahead. Absent: time of receipt.",
        },
    }
    properties |= {name: _event_dimension(DIMENSIONS[name]) for name in kind.dimensions}
    properties |= {
        name: {"type": "number", "minimum": 0, "maximum": COUNT_MAX} if name == "seconds" else COUNT
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
    return TEXT | {"description": dimension.meaning}


def _parameter(name: str, schema: Json, meaning: str, *, required: bool = False, where: str = "query") -> Json:
    return {"name": name, "in": where, "required": required, "schema": schema, "description": meaning}


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
            "default": {"description": "What is wrong, in OpenAI's envelope."} | _json(ref("error")),
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
            "data": {"type": "array", "items": ref(item)},
            "first_id": {"type": ["string", "null"]},
            "last_id": {"type": ["string", "null"]},
            "has_more": {"type": "boolean"},
        },
    }


def _deleted(name: str) -> Json:
    return {
        "type": "object",
        "required": ["object", "id", "deleted"],
        "properties": {"object": {"const": f"{name}.deleted"}, "id": STRING, "deleted": {"const": True}},
    }


_COSTS_PATH: Final = "/v1/organization/costs"
_WINDOW: Final = [
    _parameter("start_time", INSTANT, "Start of the window, Unix seconds, inclusive. Absent: the first usage."),
    _parameter("end_time", INSTANT, "End of the window, Unix seconds, exclusive. Absent: now."),
]

_LIST_PARAMETERS: Final = [
    _parameter("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}, "Entries a page."),
    _parameter("after", STRING, "last_id of the page before."),
    _parameter("order", {"type": "string", "enum": ["asc", "desc"], "default": "asc"}, "Oldest or newest first."),
]

_EVENT: Final[Json] = {
    "oneOf": [ref(f"{name}_event") for name in KINDS],
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
            ref("receipt"),
            body={"oneOf": [_EVENT, {"type": "array", "items": _EVENT, "minItems": 1}]},
        )
    },
    **{
        f"/v1/organization/usage/events/{name}": {
            "post": _operation(
                f"record_{name.replace('-', '_')}",
                f"Record {records}: one, an array, or one a line (NDJSON)",
                "events",
                ref("receipt"),
                body={"oneOf": [_RECORD, {"type": "array", "items": _RECORD}]},
            )
        }
        for name, records in (
            ("litellm", "what LiteLLM's generic callback sends"),
            ("openai", "answers of OpenAI's API, or of servers that answer like it"),
            ("anthropic", "answers of Anthropic's API, or lines of Claude Code's transcripts"),
            ("gemini", "answers of the Gemini API or of Vertex AI"),
            ("bedrock", "answers of Amazon Bedrock"),
            ("ollama", "answers of Ollama's own API"),
            ("cohere", "answers of Cohere's API"),
            ("response", "answers of any of these providers, told apart by their shape"),
            ("otlp", "OpenTelemetry's traces in JSON, as a collector writes them to files"),
            ("otlp-metrics", "OpenTelemetry's metrics in JSON, as a collector writes them to files"),
            ("otlp-logs", "OpenTelemetry's logs in JSON, as a collector writes them to files"),
            ("cloudevents", "CloudEvents in JSON, with events of ours as data"),
            ("sync", "events that stand for what a provider tells of an hour"),
            ("calls", "events whose id is that of a provider's response"),
        )
    },
}

_QUARANTINE_ID: Final = [_parameter("quarantine_id", STRING, "Id of the entry.", required=True, where="path")]
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
                    "deleted": INTEGER,
                },
            },
        ),
    },
    f"{_QUARANTINE_PATH}/replay": {
        "post": _operation("replay_quarantine", "Try all of them again", "quarantine", ref("receipt"))
    },
    f"{_QUARANTINE_PATH}/{{quarantine_id}}": {
        "get": _operation(
            "get_quarantined",
            "One of them",
            "quarantine",
            ref("quarantined_event"),
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
            ref("receipt"),
            parameters=_QUARANTINE_ID,
        )
        | {"requestBody": {"required": False} | _json(_EVENT)}
    },
}

_KEY_ID: Final = [_parameter("key_id", STRING, "Id of the key.", required=True, where="path")]
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
            ref("admin_api_key"),
            body=ref("new_key"),
        ),
    },
    f"{_KEYS_PATH}/{{key_id}}": {
        "get": _operation("get_key", "One key", "keys", ref("admin_api_key"), parameters=_KEY_ID),
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
                "properties": {"object": {"const": "organization.usage.rebuild"}, "days": INTEGER},
            },
            body={
                "type": "object",
                "required": ["start_time", "end_time"],
                "additionalProperties": False,
                "properties": {"start_time": INSTANT, "end_time": INSTANT},
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
                    "start_time": INTEGER,
                    "end_time": INTEGER,
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
                        "properties": {"events_s": INTEGER, "minutes_s": INTEGER, "hours_s": INTEGER},
                    },
                    "differences": {"type": "array", "items": {"type": "object"}},
                },
            },
        )
    },
}

_PROVIDER: Final = [_parameter("provider", TEXT, "Whose book.", required=True, where="path")]
_BOOKS_PATH: Final = "/v1/organization/reconciliation/books"
_BOOK_SIDE: Final[Json] = {
    "type": "object",
    "required": ["quantity", "amount"],
    "properties": {"quantity": {"type": ["number", "null"]}, "amount": OPTIONAL_AMOUNT},
}
_READING: Final[Json] = {
    "type": "object",
    "required": ["start_time", "end_time", "read_at", "usage", "costs"],
    "additionalProperties": False,
    "properties": {
        "start_time": INSTANT | {"description": "Start of the first day (UTC)."},
        "end_time": INSTANT | {"description": "End of the last."},
        "read_at": INSTANT | {"description": "When reading began; what came later is not in it."},
        "usage": {"type": "array", "items": _EVENT, "description": "Sums of a day, as events at its start."},
        "costs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["start_time", "amount"],
                "additionalProperties": False,
                "properties": {
                    "start_time": INSTANT,
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
                        "provider": STRING,
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

_STATUS: Final[Json] = {"type": "object", "required": ["status"], "properties": {"status": STRING}}
_OPERATE: Final[Json] = {
    "/healthz": {"get": _operation("healthz", "The process answers", "operation", _STATUS) | {"security": []}},
    "/readyz": {"get": _operation("readyz", "Events and questions are taken", "operation", _STATUS) | {"security": []}},
    "/metrics": {
        "get": {
            "operationId": "metrics",
            "summary": "Measurements for Prometheus",
            "tags": ["operation"],
            "security": [],
            "responses": {"200": {"description": "Text format.", "content": {"text/plain": {"schema": STRING}}}},
        }
    },
}
