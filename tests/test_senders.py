"""Real senders, alone and two at a time: each call counts once, as its provider reported. `make senders` runs all."""

import pytest

from tests.senders.docs import rendered, written
from tests.senders.run import run
from tests.senders.table import SENDERS, Sender
from tests.support import Server

CORE = {name: sender for name, sender in SENDERS.items() if sender.is_core}


@pytest.mark.parametrize("sender", CORE.values(), ids=CORE)
def test_every_call_is_counted_once_as_its_provider_reported(server: Server, organization: str, sender: Sender) -> None:
    outcome = run(sender, server, organization)
    assert outcome.differences == []
    assert outcome.rejected == 0


def test_the_documentation_has_the_table_of_senders_as_they_are_locked() -> None:
    assert written() == rendered(), "python -m tests.senders --docs writes it"
