"""Lists of objects as OpenAI's API has them: ``limit``, ``after``, ``order``; first and last id in the answer."""

from collections.abc import Iterable
from dataclasses import dataclass

from starlette.responses import Response

from tallybook.errors import InvalidRequest
from tallybook.event import TEXT_MAX
from tallybook.routes.context import answer
from tallybook.routes.single import choice, single

_LIMIT_DEFAULT = 20
_LIMIT_MAX = 100
_PARAMETERS = ("limit", "after", "order")


@dataclass(frozen=True, slots=True)
class ListRequest:
    """Which part of a list is asked for."""

    limit: int
    after: str | None
    descending: bool


def parse_list(parameters: Iterable[tuple[str, str]]) -> ListRequest:
    """Return what the parameters of a list ask for.

    Raises:
        InvalidRequest: naming the parameter.
    """
    given = single(parameters, _PARAMETERS)
    limit = given.get("limit", str(_LIMIT_DEFAULT))
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 9 and 1 <= int(limit) <= _LIMIT_MAX):
        raise InvalidRequest(
            f"Invalid 'limit': expected an integer from 1 to {_LIMIT_MAX}, but got {limit[:64]!r} instead.",
            param="limit",
            code="invalid_value",
        )
    order = choice(given, "order", ("asc", "desc"))
    return ListRequest(int(limit), given.get("after") or None, order == "desc")


def unknown_after(after: str) -> InvalidRequest:
    """The error of a list that is to go on after something that is not, or no longer, there."""
    return InvalidRequest(
        f"Invalid 'after': there is no {after[:TEXT_MAX]!r} to go on after; start the list anew.",
        param="after",
        code="invalid_value",
    )


def list_answer(asked: ListRequest, found: list[dict[str, object]]) -> Response:
    """Return a list answer.

    Args:
        asked: what was asked for.
        found: one object more than asked for, if there are more.
    """
    shown = found[: asked.limit]
    return answer(
        {
            "object": "list",
            "data": shown,
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
            "has_more": len(found) > asked.limit,
        }
    )
