"""A server of our own in the shapes of OpenAI, Anthropic, Gemini and Bedrock, streamed and not.

What a call uses stands in the table of calls; what was answered, in `Provider.answered`, in order.
"""

import json
import re
import struct
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

from tests.scripted import Asked, Reply, events, scripted
from tests.senders.calls import (
    CALLS,
    Call,
    chat_usage,
    converse_usage,
    gemini_usage,
    message_usage,
    response_usage,
)

CREATED = int(time.time())
_numbers = count(1)
_by_model = {call.model: call for call in CALLS}
Json = dict[str, Any]


class Provider:
    """The server while it runs: its address, and the calls it answered."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answered: list[Call] = []

    def reported(self) -> dict[str, dict[str, int]]:
        """What all answers said was used, by model, under the names of the usage API."""
        times = Counter(self.answered)
        return {
            call.model: {"num_model_requests": number, **{name: number * of for name, of in call.used.counts.items()}}
            for call, number in times.items()
        }


@contextmanager
def providing() -> Iterator[Provider]:
    """Run such a server on loopback."""
    with scripted() as server:
        provider = Provider(server.url)

        def answering(answer: Any) -> Any:
            def answered(asked: Asked) -> Reply:
                body = asked.body
                call = _by_model.get(body.get("model") or _model_in(asked.path) or "")
                if call is None:
                    return Reply({"error": {"type": "not_found_error", "message": f"no such model: {body}"}}, 404)
                provider.answered.append(call)
                made: Reply = answer(call, body)
                return made

            return answered

        for end, answer in ANSWERS.items():
            server.on(end, answering(answer))
        yield provider


def _model_in(path: str) -> str | None:
    """The model in a path of Gemini's or Bedrock's."""
    found = re.search(r"/models?/(.+?)(?::\w+Content|/converse(?:-stream)?)$", unquote(path.split("?", maxsplit=1)[0]))
    return found and found[1]


def _chat(call: Call, asked: Json) -> Reply:
    common: Json = {"id": f"chatcmpl-{uuid4().hex}", "created": CREATED, "model": call.model, "service_tier": "default"}
    usage = chat_usage(call.used)
    if not asked.get("stream"):
        message: Json = {"role": "assistant", "content": "hi", "refusal": None}
        if call.used.output_audio:
            message["audio"] = {"id": "audio_1", "data": "", "expires_at": CREATED, "transcript": "hi"}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return Reply(common | {"object": "chat.completion", "choices": [choice], "usage": usage})
    chunk = common | {"object": "chat.completion.chunk"}
    is_asked = (asked.get("stream_options") or {}).get("include_usage")
    nothing = {"usage": None} if is_asked else {}
    delta = {"index": 0, "delta": {"role": "assistant", "content": "hi"}, "finish_reason": None}
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    chunks = [chunk | {"choices": [each]} | nothing for each in (delta, last)]
    return events(*chunks, *([chunk | {"choices": [], "usage": usage}] if is_asked else []))


def _response(call: Call, asked: Json) -> Reply:
    text = {"type": "output_text", "text": "hi", "annotations": [], "logprobs": []}
    item: Json = {"type": "message", "id": f"msg_{uuid4().hex}", "role": "assistant", "status": "completed"}
    response: Json = {
        "id": f"resp_{uuid4().hex}",
        "object": "response",
        "created_at": CREATED,
        "status": "completed",
        "model": call.model,
        "output": [item | {"content": [text]}],
        "usage": response_usage(call.used),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "metadata": {},
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "service_tier": "default",
    }
    if not asked.get("stream"):
        return Reply(response)
    begun = response | {"status": "in_progress", "output": [], "usage": None}
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    stream: list[Json] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": item | {"content": []}},
        {"type": "response.content_part.added", **place, "part": text | {"text": ""}},
        {"type": "response.output_text.delta", **place, "delta": "hi", "logprobs": []},
        {"type": "response.output_text.done", **place, "text": "hi", "logprobs": []},
        {"type": "response.content_part.done", **place, "part": text},
        {"type": "response.output_item.done", "output_index": 0, "item": response["output"][0]},
        {"type": "response.completed", "response": response},
    ]
    return events(*({**each, "sequence_number": at} for at, each in enumerate(stream)), names=True, done=False)


def _embedding(call: Call, asked: Json) -> Reply:
    usage = {"prompt_tokens": call.used.input, "total_tokens": call.used.input}
    data = {
        "object": "embedding",
        "index": 0,
        "embedding": "AACAPwAAAEA=" if asked.get("encoding_format") == "base64" else [1.0, 2.0],
    }
    return Reply({"object": "list", "model": call.model, "data": [data], "usage": usage})


def _message(call: Call, asked: Json) -> Reply:
    usage = message_usage(call.used)
    message: Json = {
        "id": f"msg_{uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": call.model,
        "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }
    if not asked.get("stream"):
        return Reply(message)
    # As the API does: input at the start, the output so far, and at the end the whole again.
    begun = message | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    end = {name: usage[name] for name in usage if name.endswith("_tokens")}
    return events(
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": end},
        {"type": "message_stop"},
        names=True,
        done=False,
    )


def _token_count(call: Call, asked: Json) -> Reply:
    return Reply({"input_tokens": call.used.input})


def _generated(call: Call, asked: Json) -> Reply:
    return Reply(_gemini(call, f"gem-{uuid4().hex}", "hi", "STOP"))


def _generated_stream(call: Call, asked: Json) -> Reply:
    name = f"gem-{uuid4().hex}"
    first = _gemini(call, name, "h", None)
    # What has been written so far; the last piece has the whole.
    first["usageMetadata"]["candidatesTokenCount"] = 1
    return events(first, _gemini(call, name, "i", "STOP"), done=False)


def _gemini(call: Call, name: str, text: str, finish: str | None) -> Json:
    candidate = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    return {
        "candidates": [candidate | ({"finishReason": finish} if finish else {})],
        "usageMetadata": gemini_usage(call.used),
        "modelVersion": call.model,
        "responseId": name,
    }


def _converse(call: Call, asked: Json) -> Reply:
    body = {
        "output": {"message": {"role": "assistant", "content": [{"text": "hi"}]}},
        "stopReason": "end_turn",
        "usage": converse_usage(call.used),
        "metrics": {"latencyMs": 10},
    }
    return Reply(body, headers={"x-amzn-RequestId": f"00000000-0000-4000-8000-{_number():012}"})


def _converse_stream(call: Call, asked: Json) -> Reply:
    stream: dict[str, Json] = {
        "messageStart": {"role": "assistant"},
        "contentBlockDelta": {"delta": {"text": "hi"}, "contentBlockIndex": 0},
        "contentBlockStop": {"contentBlockIndex": 0},
        "messageStop": {"stopReason": "end_turn"},
        "metadata": {"usage": converse_usage(call.used), "metrics": {"latencyMs": 10}},
    }
    return Reply(
        tuple(_frame(name, body) for name, body in stream.items()),
        headers={
            "content-type": "application/vnd.amazon.eventstream",
            "x-amzn-RequestId": f"00000000-0000-4000-8000-{_number():012}",
        },
    )


def _frame(event: str, body: Json) -> bytes:
    """An event as AWS's event stream frames it: lengths, their checksum, headers, the payload, the checksum of all."""
    names = {":event-type": event, ":content-type": "application/json", ":message-type": "event"}
    headers = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
        for name, value in names.items()
    )
    payload = json.dumps(body).encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    whole = prelude + struct.pack("!I", zlib.crc32(prelude)) + headers + payload
    return whole + struct.pack("!I", zlib.crc32(whole))


def _number() -> int:
    return next(_numbers)


ANSWERS = {
    "/chat/completions": _chat,
    "/responses": _response,
    "/embeddings": _embedding,
    "/messages": _message,
    "/messages/count_tokens": _token_count,
    ":generateContent": _generated,
    ":streamGenerateContent": _generated_stream,
    "/converse": _converse,
    "/converse-stream": _converse_stream,
}
"""By the end of the path."""
