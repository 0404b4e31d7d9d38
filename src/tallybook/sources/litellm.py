"""LiteLLM: one record a call of its gateway.

A record is what its generic callback sends (``StandardLoggingPayload``), or a row of its table of spend logs.

A call that LiteLLM says cost something is counted, whatever it was: by its tokens, or by its cost alone where the
operator takes reported costs, and is refused where neither can be.

Source: package litellm 1.106 to 1.109, ``litellm/types/utils.py`` and its database's schema.
"""

import json
from datetime import UTC, datetime
from typing import Any, Final

from tallybook.sources import openai
from tallybook.sources.record import NO_OPTIONS, Event, FaultyRecord, Fields, Options, charged, cost, is_blank, made
from tallybook.sources.usage_objects import LITELLM_CALL, dialect_of, image_events, report_unread, token_events, watched

_KINDS: Final = {
    "embedding": "embeddings",
    "image_generation": "images",
    "image_edit": "images",
    "image_variation": "images",
    "transcription": "audio_transcriptions",
    "speech": "audio_speeches",
    "moderation": "moderations",
    "decisions": "decisions",
}
"""What a call is counted as, by its type without the ``a`` of asynchronous ones; anything else with tokens is a
completion, whatever it will be called."""
_SOURCES: Final = {"image_edit": "image.edit", "image_variation": "image.variation"}
_BATCH: Final = "retrieve_batch"
_REPEATS: Final = ("create_batch", "cancel_batch", "list_batches")
"""Calls whose answer is a batch as it is: what it used is counted when it has ended and is looked at."""
_BATCH_ENDS: Final = ("completed_at", "expired_at", "cancelled_at", "failed_at")
_REDACTED: Final = "redacted-by-litellm"
"""What stands for a message where LiteLLM is told not to log them."""
_NOT_TOKENS: Final = {"ocr": ("usage_info",), "rerank": ("meta", "billed_units")}
"""Where the answers of calls that are billed by something else say what they used."""


_MAKERS: Final = ("openai", "anthropic", "gemini", "mistral", "deepseek", "xai", "cohere", "cohere_chat", "moonshot")
"""Providers whose models have names of their own, as LiteLLM calls them."""


def events(record: Any, options: Options = NO_OPTIONS) -> list[Event]:
    """Return the events of one call.

    Args:
        record: the payload, or the row.
        options: whether LiteLLM's cost is taken, and where fields that nobody reads are counted.

    Returns:
        None of them for calls that were answered from LiteLLM's own cache, or used nothing, such as most that failed,
        or a list of files.

    Raises:
        FaultyRecord: it is not such a payload, a field has the wrong type, or it cost something and says nothing that
            can be counted.
    """
    if not isinstance(record, dict):
        raise FaultyRecord(None, record, "a record is a JSON object as LiteLLM's generic callback sends it")
    call = Fields(_from_spend_log(record) if "spend" in record and "request_id" in record else record)
    if "call_type" not in call or "status" not in call:
        lacking = "call_type" if "call_type" not in call else "status"
        raise call.wrong(lacking, "is missing; send what LiteLLM's generic_api callback sends")
    if call.values.get("cache_hit") is True:
        return []
    name = (call.text("call_type") or "").lstrip("_")
    if name not in _KINDS and name[:1] == "a" and name != "anthropic_messages":
        name = name[1:]
    if name in _REPEATS or (name == _BATCH and not any(end in call.fields("response") for end in _BATCH_ENDS)):
        return []  # goes on
    usage = watched(_usage(call))
    common = _common(call, name)
    # Of a call that failed only tokens can be told: what was asked for is not what it got.
    has_failed = call.values["status"] != "success"
    kind = None if has_failed else _KINDS.get(name)
    found = _counted(kind, name, call, usage, common) if kind else _tokens(call, usage, common)
    report_unread(usage, LITELLM_CALL, options)
    told = cost(call.values.get("response_cost"))
    if not found:
        return _of_cost_alone(call, name, common, told, options)
    return charged(found, told) if options.takes_costs else found


def _of_cost_alone(call: Fields, name: str, common: Event, told: Event | None, options: Options) -> list[Event]:
    """Return the event of a call without tokens that cost something all the same; none if it did not."""
    if told and told["value"]:
        if options.takes_costs:
            return [made("completions", common, input_tokens=0, cost=told)]
        raise call.wrong(
            "response_cost",
            f"is of a call of {name}, which has no tokens to count it by; start the server with --reported-costs to "
            "charge what LiteLLM says it cost",
        )
    place = call.fields("response") if isinstance(call.values.get("response"), dict) else Fields({})
    path = _NOT_TOKENS.get(name, ())
    for field in path:
        place = place.fields(field)
    if path:
        report_unread(watched(place), LITELLM_CALL, options, ".".join(("response", *path)))
    return []


def _said(call: Fields) -> str:
    """Return the text that was spoken, which is logged as it is or as a message."""
    said = call.any("messages")
    if isinstance(said, list) and len(said) == 1 and isinstance(said[0], dict):
        said = said[0].get("content")
    if not isinstance(said, str) or said == _REDACTED:
        raise call.wrong("messages", "must hold the text that was spoken; its characters are what is counted")
    return said


def _from_spend_log(row: Event) -> Event:
    """Return the payload that a row of the spend logs was made from, as far as the row has it."""
    metadata = _object(row.get("metadata"))
    counts = {name: row.get(name) for name in ("prompt_tokens", "completion_tokens")}
    details = _object(metadata.get("usage_object")) or _object(metadata.get("additional_usage_values"))
    who = {
        "user_api_key_hash": row.get("api_key"),
        "user_api_key_user_id": row.get("user"),
        "user_api_key_team_id": row.get("team_id"),
    }
    return {
        **{name: row.get(name) for name in ("call_type", "model", "end_user")},
        **counts,
        "id": row["request_id"],
        "status": row.get("status") or metadata.get("status") or "success",
        "endTime": row.get("endTime"),
        "cache_hit": str(row.get("cache_hit")).lower() == "true",
        "response_cost": row["spend"],
        "response": _object(row.get("response")),
        "messages": row.get("messages"),
        "metadata": metadata | {"usage_object": details} | {name: value for name, value in who.items() if value},
    }


def _object(value: Any) -> Event:
    """Return an object that may be written as text, as tables have it; empty where it is none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}


def _instant(value: Any) -> Any:
    """Return an instant as events have it; the database, and who makes text of an instant, write UTC without saying."""
    if not isinstance(value, str):
        return value
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return value
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()


def _common(call: Fields, name: str) -> Event:
    metadata = call.fields("metadata")
    tier = call.fields("cost_breakdown").text("service_tier") or call.fields("response").text("service_tier")
    common: Event = {
        "id": call.identity("id", "litellm_call_id"),
        "timestamp": _instant(call.any("endTime", "startTime")),
        "project_id": metadata.text("user_api_key_project_id", "user_api_key_team_id"),
        "user_id": metadata.text("user_api_key_user_id") or call.text("end_user"),
        "api_key_id": metadata.text("user_api_key_hash"),
        "model": _model(call),
        "service_tier": tier,
    }
    # What can be looked at many times is logged each time: what stays the same is its own id, and its own time.
    given = call.values.get("response")
    if name == _BATCH:
        batch = call.fields("response")
        common |= {
            "batch": True,
            "id": batch.identity("id") or common["id"],
            "timestamp": batch.any(*_BATCH_ENDS),
        }
    elif isinstance(given, dict) and given.get("object") == "response":
        common["timestamp"] = given.get("created_at") or common["timestamp"]
    return common


def _model(call: Fields) -> str | None:
    """Return the model, without the name of its maker that the proxy writes before it.

    The name of another provider stays: what it serves has its own price.
    """
    model, provider = call.text("model"), call.text("custom_llm_provider")
    return model.removeprefix(f"{provider}/") if model and provider in _MAKERS else model


def _usage(call: Fields) -> Fields:
    """Return what is said of usage, in three places: what one lacks, or has as 0, comes from the next."""
    places = [call.fields(name).values.get("usage_object") for name in ("metadata", "hidden_params")]
    response = call.values.get("response")
    places.append(response.get("usage") if isinstance(response, dict) else None)
    named = {str(place): usage for place, usage in enumerate(places) if isinstance(usage, dict)}
    return Fields(Fields(named).fields(*named).values if named else {}, "usage")


def _tokens(call: Fields, usage: Fields, common: Event) -> list[Event]:
    lacking = {"input": call.count("prompt_tokens"), "output": call.count("completion_tokens")}
    told = {name: count for name, count in lacking.items() if count is not None}
    if call.values["status"] != "success" and not told.get("output") and is_blank(call.values.get("response_cost")):
        told = {}  # what LiteLLM reckons a prompt would have been that came to nothing
    dialect = dialect_of(usage, LITELLM_CALL)
    maker = call.text("custom_llm_provider")
    found = token_events("completions", common, usage, dialect, maker=maker, lacking=told)
    if not found[0].get("input_tokens") and not found[0].get("output_tokens"):
        found = []
    inside = usage.fields("prompt_tokens_details")
    searches = usage.fields("server_tool_use").count("web_search_requests") or inside.count("web_search_requests")
    if searches:
        options = call.fields("standard_built_in_tools_params").fields("web_search_options")
        level = options.text("search_context_size")
        found.append(made("web_search_calls", common, num_requests=searches, context_level=level))
    elif isinstance(call.values.get("response"), dict):  # of the Responses API, which lists what it did
        found += openai.tool_events(Fields(common), call.fields("response"))
    return found


def _counted(kind: str, name: str, call: Fields, usage: Fields, common: Event) -> list[Event]:
    """Return the events of a call that is counted by something else than tokens in and out."""
    asked = call.fields("model_parameters")
    given = call.values.get("response")
    response = call.fields("response") if isinstance(given, dict) else Fields({})
    if kind in ("embeddings", "moderations"):
        tokens = usage.count("prompt_tokens", "total_tokens") or call.count("prompt_tokens", "total_tokens")
        return [made(kind, common, input_tokens=tokens or 0)]
    if kind == "images":
        data = response.values.get("data")
        return image_events(
            common,
            usage,
            LITELLM_CALL,
            images=len(data) if isinstance(data, list) else asked.count("n") or 1,
            size=openai.settled(asked.text("size") or response.text("size")),
            quality=openai.settled(asked.text("quality") or response.text("quality")),
            source=_SOURCES.get(name, "image.generation"),
        )
    if kind == "audio_speeches":
        return [made(kind, common, characters=len(_said(call)))]
    if kind == "audio_transcriptions":
        seconds = usage.any("seconds")
        seconds = response.any("duration") if seconds is None else seconds
        if seconds is not None:
            return [made(kind, common, seconds=seconds)]
    return token_events("completions" if kind != "decisions" else kind, common, usage, LITELLM_CALL)
