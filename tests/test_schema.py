"""Whatever the published schema lets a client send, and what it does not, the server answers; it never fails."""

from contextlib import suppress
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error

from tests.support import Server

# The same requests at every run; how long one takes is another test's business.
STEADY = settings(max_examples=12, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


def test_no_request_makes_the_server_fail(server: Server, organization: str) -> None:
    """Requests that fit the schema and requests that do not, to every operation, with a key that may do all."""
    headers = {"Authorization": f"Bearer {server.key(organization)}"}
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations() if hasattr(found, "ok")]
    assert len(operations) > 20

    def answered(operation: Any, mode: GenerationMode) -> None:
        @STEADY
        @given(case=operation.as_strategy(generation_mode=mode))
        def answers(case: Case[Any]) -> None:
            case.call_and_validate(headers=headers, checks=[not_a_server_error], timeout=10)

        answers()

    for operation in operations:
        answered(operation, GenerationMode.POSITIVE)
        with suppress(Unsatisfiable):  # what takes no parameter cannot be asked wrongly
            answered(operation, GenerationMode.NEGATIVE)
