"""Sessions of the coding agents Codex CLI and Gemini CLI, as they keep them on disk.

Codex CLI, ``~/.codex/sessions/**/rollout-*.jsonl``: a line ``token_count`` has the tokens of the last call, and of all
calls so far; the model is in a line before it. So a file is read from its beginning to its end by one `CodexSession`.

Gemini CLI, ``~/.gemini/tmp/*/chats/session-*.json`` or ``.jsonl``: a message has the tokens of its call. It is written
again when it changes, with the same id.

Source: session files of Codex CLI 0.40 to 0.60; the chat recording of Gemini CLI, ``chatRecordingService.ts``.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tallybook.sources import gemini
from tallybook.sources.envelope import note_fields
from tallybook.sources.record import NO_OPTIONS, Event, FaultyRecord, Fields, Options, made

_CODEX_TYPES: Final = ("session_meta", "turn_context", "event_msg", "response_item", "compacted")
_CODEX_READ: Final = (
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_output_tokens",  # part of the output
    "total_tokens",
)
_GEMINI_COUNTS: Final = {
    "input": "promptTokenCount",
    "output": "candidatesTokenCount",
    "cached": "cachedContentTokenCount",
    "thoughts": "thoughtsTokenCount",
    "tool": "toolUsePromptTokenCount",
    "total": "totalTokenCount",
}


def is_codex(row: Mapping[str, Any]) -> bool:
    """Return whether a row is a line of a session of Codex CLI."""
    return row.get("type") in _CODEX_TYPES and isinstance(row.get("payload"), Mapping)


def is_gemini_cli(row: Mapping[str, Any]) -> bool:
    """Return whether a row is a line, or the whole, of a session of Gemini CLI."""
    return "$set" in row or "$rewindTo" in row or ("sessionId" in row and "projectHash" in row)


class CodexSession:
    """One file of Codex CLI, line by line in their order."""

    def __init__(self) -> None:
        self._session: str | None = None
        self._model: str | None = None
        self._totals: tuple[int, ...] | None = None

    def events(self, row: Any, options: Options = NO_OPTIONS) -> list[Event]:
        """Return the event of a line; none of one that says nothing new.

        Raises:
            FaultyRecord: it is no line of a session, or a field has the wrong type.
        """
        if not isinstance(row, Mapping) or not isinstance(row.get("payload"), Mapping):
            raise FaultyRecord(None, row, "a line of a session of Codex CLI has a type and a payload")
        line = Fields(row)
        payload = line.fields("payload")
        if line.values.get("type") == "session_meta":
            # A fork begins with the lines of the session it comes from: they are that session's calls.
            self._session = payload.text("forked_from_id", "id") or self._session
        elif line.values.get("type") == "turn_context":
            self._model = payload.text("model") or self._model
        elif line.values.get("type") == "event_msg" and payload.values.get("type") == "token_count":
            return self._counted(line, payload.fields("info"), options)
        return []

    def _counted(self, line: Fields, info: Fields, options: Options) -> list[Event]:
        last, total = info.fields("last_token_usage"), info.fields("total_token_usage")
        totals = tuple(total.count(name) or 0 for name in _CODEX_READ) if total.values else None
        before, self._totals = self._totals, totals or self._totals
        if not last.values and not totals:
            return []  # of limits only
        if totals is not None and totals == before:
            return []  # the same call once more
        if last.values:
            note_fields(last, _CODEX_READ, options)
            read, cached, written = (last.count(name) or 0 for name in _CODEX_READ[:3])
        else:
            steps = zip(totals or (), before or (0,) * len(_CODEX_READ), strict=True)
            read, cached, written, *_ = (now - then for now, then in steps)
        if not read and not written:
            return []
        mark = "-".join(map(str, totals)) if totals else str(line.values.get("timestamp"))
        common = {
            "id": f"codex-{self._session}-{mark}" if self._session else None,
            "timestamp": line.any("timestamp"),
            "model": info.text("model") or self._model,
        }
        return [
            made(
                "completions",
                common,
                input_tokens=max(0, read),
                input_cached_tokens=max(0, cached),
                output_tokens=max(0, written),
            )
        ]


def gemini_cli_events(row: Any, options: Options = NO_OPTIONS) -> list[Event]:
    """Return the events of a row of Gemini CLI: of all messages in it that say what they used.

    Raises:
        FaultyRecord: it is no such row, or a field has the wrong type.
    """
    if not isinstance(row, Mapping):
        raise FaultyRecord(None, row, "a row of a session of Gemini CLI is a JSON object")
    return [event for message in _messages(Fields(row)) for event in _message_events(message, options)]


def _messages(row: Fields) -> Iterator[Fields]:
    yield row
    yield from row.each("messages")
    yield from row.fields("$set").each("messages")


def _message_events(message: Fields, options: Options) -> list[Event]:
    tokens = message.fields("tokens")
    if message.values.get("type") != "gemini" or not tokens.values:
        return []
    note_fields(tokens, tuple(_GEMINI_COUNTS), options)
    usage = {name: tokens.values[ours] for ours, name in _GEMINI_COUNTS.items() if ours in tokens}
    if not any(usage.values()):
        return []
    common = {"id": message.text("id"), "timestamp": message.any("timestamp"), "model": message.text("model")}
    return [made("completions", common, **gemini.token_fields(Fields(usage, "tokens"), options))]
