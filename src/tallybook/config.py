"""Settings: one list for flags, environment, file and documentation.

A setting is a flag (``--queue-bytes-max``), an environment variable (``TALLYBOOK_QUEUE_BYTES_MAX``) and a line of
``tallybook.toml`` (``queue-bytes-max``); the first that is given counts. Defaults and meanings stand here only.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import platformdirs
from cyclopts import Parameter, validators

ADMIN_KEY_VARIABLE: Final = "TALLYBOOK_ADMIN_KEY"
"""Environment only: a secret does not belong on a command line, where every process can read it."""
CONFIG_VARIABLE: Final = "TALLYBOOK_CONFIG"
DEFAULT_ORGANIZATION: Final = "org-default"
DEFAULT_DATA: Final = platformdirs.user_data_path("tallybook")

_MIB: Final = 1024 * 1024
_GIB: Final = 1024 * _MIB


def _between(least: int, most: int) -> Parameter:
    """A number out of these bounds is refused when the server starts."""
    return Parameter(validator=validators.Number(gte=least, lte=most))


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the server."""

    data: Path = DEFAULT_DATA
    """Directory of the store and the keys. Made if it does not exist."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all. Put a TLS proxy in front of anything but loopback."""
    port: Annotated[int, _between(0, 65_535)] = 8080
    """Port to listen on; 0 picks a free one."""
    otlp_grpc_port: Annotated[int | None, _between(0, 65_535)] = None
    """Port to take OTLP over gRPC on, at the same host; 0 picks a free one. Needs the extra tallybook[grpc]."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe messages that are logged."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """How messages are written to standard error; auto is console on a terminal and json elsewhere."""
    body_bytes_max: Annotated[int, _between(1024, _GIB)] = 32 * _MIB
    """The largest request body, unpacked."""
    events_max: Annotated[int, _between(1, 10_000_000)] = 100_000
    """The most events in a request."""
    queue_bytes_max: Annotated[int, _between(1, 1024 * _GIB)] = 256 * _MIB
    """The most bytes of unpacked bodies that wait to be written, and of bodies that are being received; beyond either,
    requests get 429 with Retry-After."""
    queue_s_max: Annotated[int, _between(1, 3_600)] = 10
    """The most seconds a body waits to be read, and what waits to be written may take, as far as can be told; beyond
    either, requests get 429 with Retry-After. Clients that give up earlier send again what is being written."""
    rows_max: Annotated[int, _between(1, 10_000_000)] = 200_000
    """The most results in a page; beyond it a question gets 400 that says how to narrow it."""
    quarantine_max: Annotated[int, _between(0, 10_000_000)] = 100_000
    """The most events an organization has in quarantine; beyond it its requests with bad events get 429."""
    memory_bytes_max: Annotated[int, _between(64 * _MIB, 1024 * _GIB)] = _GIB
    """The most memory the store's engine uses."""
    queries_max: Annotated[int, _between(1, 1_000)] = 4
    """The most questions answered at once; further ones wait."""
    connections_max: Annotated[int, _between(1, 100_000)] = 1_000
    """The most connections served at once; requests on further ones get 503 with Retry-After."""
    client_s_max: Annotated[int, _between(1, 3_600)] = 30
    """Seconds a client has to send a request, or to take an answer, and one more for every 16 KiB of it."""
    wrong_keys_max: Annotated[int, _between(1, 1_000_000)] = 20
    """Wrong keys a minute from a client's address; further ones get 429 with Retry-After. A right key always works."""
    session_s_max: Annotated[int, _between(1, 31_536_000)] = 43_200
    """Seconds after which who signed in to the dashboard has to do so again."""
    compact_every_s: Annotated[int, _between(0, 86_400)] = 60
    """Seconds between looks for rollups worth compacting; 0 never looks."""
    keep_events_days: Annotated[int, _between(0, 36_500)] = 0
    """Days single events are kept, besides the present one; earlier ones are deleted and refused. 0: for ever."""
    keep_minutes_days: Annotated[int, _between(0, 36_500)] = 0
    """Days sums by minute are kept, besides the present one. 0: for ever."""
    keep_hours_days: Annotated[int, _between(0, 36_500)] = 0
    """Days sums by hour are kept, besides the present one. Sums by day are kept for ever. 0: for ever."""
    price_file: Path | None = None
    """Price file with the operator's own prices, discounts and mark-ups. Noticed when it changes."""
    list_prices: bool = True
    """Price what the price file does not name at its provider's public list price."""
    reported_costs: bool = False
    """Take what gateways and traces say a call cost, instead of pricing it."""
    otlp_project_attributes: str = "tallybook.project_id,service.name"
    """Attributes of spans, or of who sends them, that name the project: the first that is there counts."""
    otlp_user_attributes: str = (
        "tallybook.user_id,user.id,enduser.id,gen_ai.user,llm.user,traceloop.association.properties.user_id"
    )
    """Attributes that name the user: the first that is there counts."""
    otlp_key_attributes: str = "tallybook.api_key_id"
    """Attributes that name the API key: the first that is there counts. An id, never a key itself."""
    line_item_names: Literal["words", "fields"] = "words"
    """How line items of costs are named: "gpt-4o, input" (words), or "gpt-4o, input_tokens" (fields)."""
    reconcile_percent_max: Annotated[float, _between(0, 1_000_000)] = 1.0
    """Percent by which what was recorded may differ from what a provider charged before doctor and metrics warn."""
    reconcile_usd_max: Annotated[float, _between(0, 10**12)] = 1.0
    """US dollars by which it may differ; only what is beyond both, over the last seven settled days, is warned of."""
    stop_s_max: Annotated[int, _between(0, 3_600)] = 30
    """Seconds that open requests have to end when the server stops."""
