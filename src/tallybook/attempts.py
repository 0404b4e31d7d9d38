"""Wrong keys: how often each client address gave one lately, in bounded memory.

A key is 256 random bits: what this is against is not guessing, which is hopeless at any pace, but clients that go on
and on with a key that is no good, and not knowing of it. A right key is never refused for the wrong ones of others
behind the same address, such as a gateway's.
"""

import ipaddress
import math
from typing import Final

import structlog

_MINUTE_S: Final = 60
_ADDRESSES_MAX: Final = 10_000
"""Addresses remembered; beyond it the one whose last wrong key is the longest ago is forgotten."""
_IPV6_PREFIX: Final = 64
"""What one customer has of IPv6: each of its 2^64 addresses is the same client."""

_log = structlog.get_logger()


class Attempts:
    """The wrong keys of the last minute, by address.

    Args:
        wrong_keys_max: how many an address may give in a minute.
    """

    def __init__(self, wrong_keys_max: int) -> None:
        self._most = wrong_keys_max
        self._levels: dict[str, tuple[float, float]] = {}

    def note(self, address: str, now_s: float) -> int | None:
        """Note a wrong key.

        Args:
            address: IP address of who gave it.
            now_s: seconds of a clock that is never set.

        Returns:
            None, or after how many seconds the address may try again if it has given too many.
        """
        client = network(address)
        level, since_s = self._levels.pop(client, (0.0, now_s))
        # A bucket that leaks: it takes a minute's worth at once, and is empty a minute later.
        level = max(0.0, level - (now_s - since_s) * self._most / _MINUTE_S)
        is_full = level > self._most - 1
        if not is_full:
            level += 1
            if level > self._most - 1:
                _log.warning("too many wrong keys", client=client)
        self._levels[client] = (level, now_s)
        if len(self._levels) > _ADDRESSES_MAX:
            del self._levels[next(iter(self._levels))]
        return math.ceil((level - self._most + 1) * _MINUTE_S / self._most) if is_full else None


def network(address: str) -> str:
    """Return what stands for a client: its address, or its network in IPv6; "unknown" for what is not an address."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, _IPV6_PREFIX), strict=False))
