"""Which Tallybook a command speaks to: always over the public HTTP API.

With ``--url`` a server anywhere, with the admin key of the environment. Otherwise a data directory: the server that
runs on it, or, when none does, one that this command starts for itself and stops again. Who can write the directory is
its operator, so the command makes itself a key there, short-lived and revoked at the end.
"""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any, Final

import cyclopts
import httpx
from cyclopts import Parameter

from tallybook import logs
from tallybook.cli.settings_file import settings_file
from tallybook.clock import now_s
from tallybook.config import ADMIN_KEY_VARIABLE, DEFAULT_DATA, DEFAULT_ORGANIZATION, Settings
from tallybook.errors import CommandFailed
from tallybook.keys import ALL_SCOPES, KeyStore
from tallybook.lock import running

_KEY_LIFE_S: Final = 86_400
_TIMEOUT_S: Final = 300
_BUSY: Final = (429, 503)
_BUSY_TRIES: Final = 10
_BUSY_WAIT_S_MAX: Final = 10
_LIST_MAX: Final = 100
"""The longest page of a list."""


@dataclass(frozen=True, slots=True)
class Target:
    """Which Tallybook to speak to."""

    data: Annotated[Path, Parameter(env_var="TALLYBOOK_DATA")] = DEFAULT_DATA
    """Data directory; the server that runs on it is asked, or one is started for this command."""
    url: Annotated[str | None, Parameter(env_var="TALLYBOOK_URL")] = None
    """Address of a server elsewhere; its admin key is taken from TALLYBOOK_ADMIN_KEY."""
    organization: Annotated[str, Parameter(env_var="TALLYBOOK_ORGANIZATION")] = DEFAULT_ORGANIZATION
    """Organization to act for; with --url the key decides."""


class Client:
    """The public HTTP API; what it refuses becomes one line for the operator."""

    def __init__(self, http: httpx.Client, *, exact: bool = False) -> None:
        self._http = http
        self._number = Decimal if exact else float

    def get(self, path: str, **parameters: Any) -> dict[str, Any]:
        """Return the answer to a GET of a path below ``/v1/organization``."""
        return self._call("GET", path, params=parameters)

    def post(self, path: str, content: bytes | None = None) -> dict[str, Any]:
        """Return the answer to a POST of a path below ``/v1/organization``."""
        return self._call("POST", path, content=content)

    def put(self, path: str, content: bytes) -> dict[str, Any]:
        """Return the answer to a PUT of a path below ``/v1/organization``."""
        return self._call("PUT", path, content=content)

    def delete(self, path: str) -> dict[str, Any]:
        """Return the answer to a DELETE of a path below ``/v1/organization``."""
        return self._call("DELETE", path)

    def post_events(self, path: str, content: bytes | None = None) -> dict[str, Any]:
        """Return the receipt of a POST of events, also of one in which nothing is valid."""
        return self._call("POST", path, receipt=True, content=content)

    def pages(self, path: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Yield the buckets of a question, page after page."""
        page = self.get(path, **parameters)
        yield from page["data"]
        while page["has_more"]:
            page = self.get(path, **parameters, page=page["next_page"])
            yield from page["data"]

    def entries(self, path: str, limit: int, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Yield the objects of a list, page after page, at most so many."""
        while limit > 0:
            page = self.get(path, limit=min(limit, _LIST_MAX), **parameters)
            yield from page["data"]
            limit -= len(page["data"])
            if not page["has_more"]:
                return
            parameters["after"] = page["last_id"]

    def stream(self, path: str, **parameters: Any) -> Iterator[bytes]:
        """Yield the body of the answer to a GET piece by piece.

        Raises:
            CommandFailed: the server refuses, or the body ends before it is whole.
        """
        url = f"/v1/organization/{path}"
        try:
            for tries_left in reversed(range(_BUSY_TRIES + 1)):
                with self._http.stream("GET", url, params=parameters) as response:
                    if tries_left and response.status_code in _BUSY:
                        time.sleep(_wait_s(response))
                        continue
                    if not response.is_success:
                        response.read()
                        raise self._refusal(response)
                    yield from response.iter_bytes()
                    return
        except httpx.HTTPError as error:
            raise CommandFailed(f"no whole answer from {self._http.base_url}: {error}") from error

    def _call(self, method: str, path: str, *, receipt: bool = False, **options: Any) -> dict[str, Any]:
        try:
            response = self._http.request(method, f"/v1/organization/{path}", **options)
            for _ in range(_BUSY_TRIES):
                if response.status_code not in _BUSY:
                    break
                time.sleep(_wait_s(response))
                response = self._http.request(method, f"/v1/organization/{path}", **options)
        except httpx.HTTPError as error:
            raise CommandFailed(f"no answer from {self._http.base_url}: {error}") from error
        found = self._read(response)
        if response.is_success or (receipt and "rejected" in found):
            return found
        raise self._refusal(response)

    def _read(self, response: httpx.Response) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(response.content, parse_float=self._number)
        except ValueError:
            raise CommandFailed(
                f"{self._http.base_url} answers {response.status_code}, but not as Tallybook does; check the address"
            ) from None
        return found

    def _refusal(self, response: httpx.Response) -> CommandFailed:
        error = self._read(response).get("error", {})
        return CommandFailed(error.get("message", f"the server answers {response.status_code}"))


def _wait_s(response: httpx.Response) -> int:
    return min(int(response.headers.get("retry-after", "1")), _BUSY_WAIT_S_MAX)


@contextmanager
def connect(target: Target, *, may_found: bool = False, exact: bool = False) -> Iterator[Client]:
    """Yield a client of the target.

    Args:
        target: which Tallybook to speak to.
        may_found: the command may write for an organization that does not exist yet. Otherwise such a name is taken
            for a mistake.
        exact: numbers with a fraction are read as decimals, digit by digit, and not as floats: where money is.

    Raises:
        OperatorError: it cannot be reached, or its directory cannot be used.
    """
    if target.url:
        key = os.environ.get(ADMIN_KEY_VARIABLE)
        if not key:
            raise CommandFailed(f"--url needs an admin key; set {ADMIN_KEY_VARIABLE}")
        with _client(target.url, key, exact=exact, trust_env=True) as client:
            yield client
        return
    if not target.data.is_dir():
        raise CommandFailed(f"there is no data directory {target.data}; name one with --data, or a server with --url")
    if not may_found:
        _refuse_unknown_organization(target)
    if address := running(target.data):
        with _as_operator(target) as key, _client(address.url, key, exact=exact) as client:
            yield client
        return
    logs.configure("warning", "auto")
    with (
        _beside(_settings(target.data)) as url,
        _as_operator(target) as key,
        _client(url, key, exact=exact) as client,
    ):
        yield client


def _settings(data: Path) -> Settings:
    """Return the settings `tallybook serve` would have here without flags.

    What a command stores is rated by the same prices as what the server stores.
    """
    reader = cyclopts.App(config=[cyclopts.config.Env("TALLYBOOK_", command=False), settings_file(allow_unknown=True)])
    found = Settings()

    @reader.default
    def given(settings: Annotated[Settings, Parameter(name="*")] = found) -> None:
        nonlocal found
        found = settings

    reader([], result_action="return_none")
    return replace(found, data=data)


def _beside(settings: Settings) -> AbstractContextManager[str]:
    """Start a server beside the command. What a server needs is loaded only here: most commands find one running."""
    beside: Callable[[Settings], AbstractContextManager[str]] = resolve_name("tallybook.server:beside")
    return beside(settings)


@contextmanager
def _client(url: str, key: str, *, exact: bool, trust_env: bool = False) -> Iterator[Client]:
    """Yield a client; a server beside it is reached without the proxies and certificates of the environment."""
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S, trust_env=trust_env) as http:
        yield Client(http, exact=exact)


def _refuse_unknown_organization(target: Target) -> None:
    keys = KeyStore(target.data)
    known = keys.organizations()
    keys.close()
    if target.organization not in (*known, DEFAULT_ORGANIZATION):
        raise CommandFailed(f"there is no organization {target.organization}; known are {', '.join(known)}")


@contextmanager
def _as_operator(target: Target) -> Iterator[str]:
    keys = KeyStore(target.data)
    now = now_s()
    try:
        key, value = keys.create(target.organization, "command line", ALL_SCOPES, now, expires_at_s=now + _KEY_LIFE_S)
        try:
            yield value
        finally:
            keys.revoke(target.organization, key.id)
    except sqlite3.OperationalError as error:
        raise CommandFailed(f"cannot write a key for this command to {target.data}: {error}") from error
    finally:
        keys.close()
