"""Where a request has its key: every form senders give one in, and none of them in an address.

An address ends up in logs of proxies and in histories of browsers, so that a key in one is not read.
"""

import base64
import binascii
from collections.abc import Iterable
from typing import Final

from tallybook.errors import Unauthorized
from tallybook.keys import PREFIX

FORMS: Final = (
    f"Send an admin key in the header 'Authorization: Bearer {PREFIX}...'. Without 'Bearer', in 'x-api-key' or "
    "'api-key', or as the password of Basic, it works as well."
)
_HEADERS: Final = frozenset((b"authorization", b"x-api-key", b"api-key"))
_USUAL: Final = f"Bearer {PREFIX}"
_SCHEMES: Final = frozenset(("bearer", "basic", "token", "apikey", "api-key"))
_BASIC: Final = b"basic "
_SCHEMES_MAX: Final = 2
"""Tools that put `Bearer` before a value that has it already."""


def given_key(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the key that a request has in its headers.

    Args:
        headers: names in lower case, and values; also the metadata of gRPC.

    Returns:
        None where no header is one for keys; "" where one is, and holds none. A value that does not begin like a key of
        ours is returned only if no other does: a proxy in front has keys of its own in the same headers.

    Raises:
        Unauthorized: there are several different keys of ours.
    """
    keys = [_key(value.decode("latin-1")) for name, value in headers if name in _HEADERS]
    if len(keys) < 2:
        return keys[0] if keys else None
    ours = {key for key in keys if key.startswith(PREFIX)}
    if len(ours) > 1:
        raise _several(len(ours))
    return ours.pop() if ours else next(filter(None, keys), "")


def is_ambient(headers: Iterable[tuple[bytes, bytes]], key: str) -> bool:
    """Return whether a key is only in a header of Basic, which a browser adds by itself, whichever page asks."""
    held = [value for name, value in headers if name in _HEADERS and _key(value.decode("latin-1")) == key]
    return bool(held) and all(value[: len(_BASIC)].lower() == _BASIC for value in held)


def _key(value: str) -> str:
    """Return the key in the value of a header; "" if there is none."""
    if value.startswith(_USUAL):
        return value[len("Bearer ") :].strip()
    # Some OpenTelemetry SDKs send the `%20` of OTEL_EXPORTER_OTLP_HEADERS as it is, and quotes of a .env file.
    text = value.replace("%20", " ").strip(" \t\"'")
    for _ in range(_SCHEMES_MAX):
        scheme, space, rest = text.partition(" ")
        name = scheme.lower()
        if not space:
            return "" if name in _SCHEMES else text
        if name not in _SCHEMES:
            return ""
        text = rest.strip(" \t\"'")
        if name == "basic":
            return _of_basic(text)
    return text


def _of_basic(encoded: str) -> str:
    """Return the key that is password or user: clients that want a pair have something of their own as the other."""
    try:
        pair = base64.b64decode(encoded.replace("-", "+").replace("_", "/") + "==").decode()
    except (binascii.Error, ValueError):
        return ""
    user, _, password = (part.strip() for part in pair.partition(":"))
    keys = {part for part in (password, user) if part.startswith(PREFIX)}
    if len(keys) > 1:
        raise _several(len(keys))
    return keys.pop() if keys else password or user


def _several(count: int) -> Unauthorized:
    return Unauthorized(
        f"The request has {count} different API keys in its headers; send one, in one header.", code="several_api_keys"
    )
