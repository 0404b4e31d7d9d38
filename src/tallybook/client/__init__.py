"""Tells a Tallybook what an application used, in the background, without ever standing in the application's way.

Knows nothing of the server: it needs the standard library and httpx only, and can be installed without the rest
(``pip install tallybook-client``).
"""

from tallybook.client.attribution import attribute
from tallybook.client.delivery import Stats
from tallybook.client.environment import record, record_response, tallybook, track
from tallybook.client.recorder import AsyncTallybook, Tallybook

__all__ = [
    "AsyncTallybook",
    "Stats",
    "Tallybook",
    "attribute",
    "record",
    "record_response",
    "tallybook",
    "track",
]
