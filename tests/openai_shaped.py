"""A server of our own that answers as providers of models do, the same to everyone: what it says was used is known."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

CREATED = 1_763_800_000
CHAT_USAGE = {
    "prompt_tokens": 120,
    "completion_tokens": 30,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 10},
}
RESPONSE_USAGE = {
    "input_tokens": 50,
    "input_tokens_details": {"cached_tokens": 10},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 55,
}
MESSAGE_USAGE = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 200,
    "cache_read_input_tokens": 300,
    "cache_creation": {"ephemeral_5m_input_tokens": 150, "ephemeral_1h_input_tokens": 50},
    "output_tokens": 7,
    "server_tool_use": {"web_search_requests": 2},
    "service_tier": "standard",
}
_numbers = count(1)
_responses: dict[str, Any] = {}
"""What was answered, for those who ask again."""


def _chat(asked: dict[str, Any]) -> Any:
    common = {"id": f"chatcmpl-{next(_numbers)}", "created": CREATED, "model": asked["model"]}
    if not asked.get("stream"):
        message = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
        return common | {"object": "chat.completion", "choices": [message], "usage": CHAT_USAGE}
    chunk = common | {"object": "chat.completion.chunk"}
    chunks = [
        chunk | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "hi"}, "finish_reason": None}]},
        chunk | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    ]
    if (asked.get("stream_options") or {}).get("include_usage"):
        chunks.append(chunk | {"choices": [], "usage": CHAT_USAGE})
    return "".join(f"data: {json.dumps(each)}\n\n" for each in chunks) + "data: [DONE]\n\n"


def _response(asked: dict[str, Any]) -> Any:
    text = {"type": "output_text", "text": "x", "annotations": []}
    search = {
        "type": "web_search_call",
        "id": "ws_1",
        "status": "completed",
        "action": {"type": "search", "query": "x"},
    }
    name = f"resp_{next(_numbers)}"
    _responses[name] = {
        "id": name,
        "object": "response",
        "created_at": CREATED,
        "status": "completed",
        "model": asked["model"],
        "output": [
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]},
            search,
        ],
        "usage": RESPONSE_USAGE,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "metadata": {},
    }
    return _responses[name]


def _embedding(asked: dict[str, Any]) -> Any:
    return {
        "object": "list",
        "model": asked["model"],
        "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}],
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
    }


def _images(asked: dict[str, Any]) -> Any:
    return {"created": CREATED, "data": [{"url": "http://127.0.0.1/1"}, {"url": "http://127.0.0.1/2"}]}


def _transcription(asked: dict[str, Any]) -> Any:
    return {"text": "hello", "usage": {"type": "duration", "seconds": 12.4}}


def _speech(asked: dict[str, Any]) -> Any:
    return b"ID3\x00"


def _moderation(asked: dict[str, Any]) -> Any:
    result = {"flagged": False, "categories": {}, "category_scores": {}, "category_applied_input_types": {}}
    return {"id": f"modr-{next(_numbers)}", "model": "omni-moderation-latest", "results": [result]}


def _message(asked: dict[str, Any]) -> Any:
    return {
        "id": f"msg_{next(_numbers)}",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn",
        "usage": MESSAGE_USAGE,
    }


_ANSWERS = {
    "/chat/completions": _chat,
    "/responses": _response,
    "/embeddings": _embedding,
    "/images/generations": _images,
    "/audio/transcriptions": _transcription,
    "/audio/speech": _speech,
    "/moderations": _moderation,
    "/messages": _message,
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        found = _responses.get(self.path.split("?")[0].rpartition("/")[2])
        self._send(200 if found else 404, json.dumps(found or {}).encode(), "application/json")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            asked = json.loads(body)
        except ValueError:
            asked = {}  # a form with a file
        answer = next((make for path, make in _ANSWERS.items() if self.path.split("?")[0].endswith(path)), None)
        if answer is None:
            self._send(404, b"{}", "application/json")
        elif "fail" in json.dumps(asked.get("messages", "")):
            error = {"error": {"message": "it is over", "type": "server_error", "param": None, "code": None}}
            self._send(500, json.dumps(error).encode(), "application/json")
        else:
            made = answer(asked)
            if isinstance(made, bytes):
                self._send(200, made, "audio/mpeg")
            elif isinstance(made, str):
                self._send(200, made.encode(), "text/event-stream")
            else:
                self._send(200, json.dumps(made).encode(), "application/json")

    def _send(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def model_server() -> Iterator[str]:
    """Yield the address of such a server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
