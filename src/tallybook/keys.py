"""Admin keys: who may read, write or administer which organization.

They live in a SQLite file beside the store, not in it: the store's file belongs to one process alone, and a key must
be made or revoked from the command line while the server runs. A revoked key is refused from the next request on.

A key is 256 random bits, so a plain SHA-256 is kept of it: there is nothing to guess that a slow hash would protect.
Keys are looked up by that hash, and never compared themselves. What the time of a look-up might tell is how far the
hash of a guess agrees with a stored one; nobody can choose guesses by their hash so as to come nearer to the key.

Who signed in with a key has a session of it, known by a token of its own that is kept likewise. A session ends in its
time, or with its key.
"""

import hashlib
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from tallybook.errors import StoreUnusable, Unavailable

FILE_NAME: Final = "keys.sqlite3"
PREFIX: Final = "sk-admin-"
LIFE_S_MAX: Final = 3_162_240_000
"""A hundred years: a key that is to live longer need not expire."""
_USED_EVERY_S: Final = 60
"""`last_used_at` is exact to a minute: one write a key and minute, not one a request."""
_KEPT_MAX: Final = 10_000
"""Keys held in memory, some 1 KB each."""
_SESSIONS_MAX: Final = 100
"""Sessions of a key; one more ends the oldest."""


class Scope(StrEnum):
    """What a key may do. None implies another."""

    READ = "api.usage.read"
    WRITE = "api.usage.write"
    MANAGE = "api.management"


ALL_SCOPES: Final = tuple(Scope)


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it can be shown: without its value.

    Attributes:
        id: names the key in the API.
        organization_id: the only organization it can see.
        name: what its maker called it.
        redacted_value: beginning and end of the value.
        scopes: what it may do.
        created_at_s: Unix seconds.
        expires_at_s: Unix seconds from which on it is refused; None: never.
        last_used_at_s: Unix seconds, exact to a minute; None: never used.
    """

    id: str
    organization_id: str
    name: str
    redacted_value: str
    scopes: tuple[Scope, ...]
    created_at_s: int
    expires_at_s: int | None
    last_used_at_s: int | None


_COLUMNS: Final = "id, organization_id, name, redacted_value, scopes, created_at, expires_at, last_used_at"
_BY_VALUE: Final = f"SELECT {_COLUMNS} FROM keys WHERE hash = ?"
_BY_SESSION: Final = """SELECT id, organization_id, name, redacted_value, scopes, created_at,
                               min(session.expires_at, ifnull(keys.expires_at, session.expires_at)), last_used_at
                        FROM sessions session JOIN keys ON keys.id = session.key_id WHERE session.hash = ?"""


class KeyStore:
    """The keys of one data directory. Safe to use from several threads and processes.

    Args:
        directory: the data directory; it must exist.
        later: calls a function, after what is under way and before any request that is yet to come. Given it, the store
            asks for changes of the file once for all requests that are here, and not for each, which would take a
            tenth of its time.

    Raises:
        StoreUnusable: the file is damaged.
    """

    def __init__(self, directory: Path, later: Callable[[Callable[[], None]], object] | None = None) -> None:
        path = directory / FILE_NAME
        with suppress(OSError):  # what is wrong with it is told when it is opened
            path.touch(mode=0o600)
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, bytes], Key] = {}  # by how it is looked up, too: a session's token is no key
        self._kept_version: object = None
        self._later = later
        self._is_looked_at = False
        try:
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=2)
            ((found,), *_) = self._connection.execute("PRAGMA quick_check").fetchall()
            if found != "ok":
                raise sqlite3.DatabaseError(found)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute(
                """CREATE TABLE IF NOT EXISTS keys (
                     number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, hash BLOB NOT NULL UNIQUE,
                     organization_id TEXT NOT NULL, name TEXT NOT NULL, redacted_value TEXT NOT NULL,
                     scopes TEXT NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER, last_used_at INTEGER)"""
            )
            # An organization outlives its keys: its usage is still there, to be looked after.
            self._connection.execute("CREATE TABLE IF NOT EXISTS organizations (id TEXT PRIMARY KEY)")
            self._connection.execute(
                """CREATE TABLE IF NOT EXISTS sessions (
                     hash BLOB PRIMARY KEY, key_id TEXT NOT NULL, expires_at INTEGER NOT NULL)"""
            )
        except sqlite3.DatabaseError as error:
            raise StoreUnusable(
                f"cannot open the keys {path}: {error}. Mend what that is; damaged keys come back with a backup, by "
                "'tallybook restore', or delete the file and make new ones"
            ) from error

    def create(
        self,
        organization_id: str,
        name: str,
        scopes: Iterable[Scope],
        now_s: int,
        *,
        expires_at_s: int | None = None,
        value: str | None = None,
    ) -> tuple[Key, str]:
        """Make a key and return it with its value, which is not kept and cannot be told again.

        Args:
            organization_id: the organization it belongs to.
            name: what it is called.
            scopes: what it may do.
            now_s: the present, Unix seconds.
            expires_at_s: Unix seconds from which on it is refused.
            value: a value made elsewhere; it must be new and start with ``sk-admin-``.
        """
        value = value or PREFIX + secrets.token_urlsafe(32)
        key = Key(
            "key_" + secrets.token_hex(12),
            organization_id,
            name,
            redact(value),
            tuple(scopes),
            now_s,
            expires_at_s,
            None,
        )
        values = [
            _hash(value),
            key.id,
            organization_id,
            name,
            key.redacted_value,
            " ".join(key.scopes),
            now_s,
            expires_at_s,
        ]
        with self._using(), self._connection:
            self._connection.execute("BEGIN")
            self._connection.execute("INSERT OR IGNORE INTO organizations VALUES (?)", [organization_id])
            self._connection.execute(
                f"INSERT INTO keys (hash, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)", values
            )
        return key, value

    def find(self, value: str, now_s: int) -> Key | None:
        """Return the key with this value and note its use; None if it is unknown or expired.

        Keys that were found are kept in memory for as long as nobody changes the file, this process or another.
        """
        return self._find(_BY_VALUE, value, now_s)

    def sign_in(self, key_id: str, now_s: int, life_s: int) -> str:
        """Begin a session of a key and return its token, which is not kept and cannot be told again."""
        token = secrets.token_urlsafe(32)
        with self._using(), self._connection:
            self._connection.execute("BEGIN")
            self._connection.execute("DELETE FROM sessions WHERE expires_at <= ?", [now_s])
            self._connection.execute("INSERT INTO sessions VALUES (?, ?, ?)", [_hash(token), key_id, now_s + life_s])
            self._connection.execute(
                """DELETE FROM sessions WHERE key_id = :key_id AND rowid NOT IN (
                     SELECT rowid FROM sessions WHERE key_id = :key_id ORDER BY rowid DESC LIMIT :most)""",
                {"key_id": key_id, "most": _SESSIONS_MAX},
            )
            self._kept.clear()
        return token

    def session(self, token: str, now_s: int) -> Key | None:
        """Return the key of a session and note its use; it expires with the session. None if the session has ended."""
        return self._find(_BY_SESSION, token, now_s)

    def sign_out(self, token: str) -> None:
        """End a session, if there is one."""
        with self._using():
            self._connection.execute("DELETE FROM sessions WHERE hash = ?", [_hash(token)])
            self._kept.clear()

    def _find(self, query: str, secret: str, now_s: int) -> Key | None:
        kept = query, _hash(secret)
        with self._using():
            if not self._is_looked_at:
                self._look()
            key = self._kept.get(kept)
            if key is None:
                row = self._connection.execute(query, [kept[1]]).fetchone()
                if row is None:
                    return None
                key = self._kept[kept] = _key(row)
            if key.expires_at_s is not None and key.expires_at_s <= now_s:
                return None
            # Its last use lies ahead when the clock has been put back.
            if key.last_used_at_s is None or abs(now_s - key.last_used_at_s) >= _USED_EVERY_S:
                self._kept[kept] = replace(key, last_used_at_s=now_s)
                # A key stays good when its use cannot be noted, on a full disk for instance.
                with suppress(sqlite3.OperationalError):
                    self._connection.execute("UPDATE keys SET last_used_at = ? WHERE id = ?", [now_s, key.id])
        return key

    @contextmanager
    def _using(self) -> Iterator[None]:
        """Have the file for this thread.

        Raises:
            Unavailable: it cannot be read or written.
        """
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise Unavailable(
                    f"The keys cannot be read or written: {error}; send the request again later",
                    code="keys_unavailable",
                    retry_after_s=5,
                ) from error

    def _look(self) -> None:
        """Forget the keys in memory if another process has changed the file."""
        version = self._connection.execute("PRAGMA data_version").fetchone()
        if version != self._kept_version or len(self._kept) >= _KEPT_MAX:
            self._kept.clear()
            self._kept_version = version
        if self._later:
            self._is_looked_at = True
            self._later(self._look_again)

    def _look_again(self) -> None:
        self._is_looked_at = False

    def knows(self, value: str) -> bool:
        """Return whether there is a key with this value, expired or not; this is no use of it."""
        with self._using():
            row = self._connection.execute("SELECT 1 FROM keys WHERE hash = ?", [_hash(value)]).fetchone()
        return row is not None

    def get(self, organization_id: str, key_id: str) -> Key | None:
        """Return an organization's key by its id."""
        with self._using():
            row = self._connection.execute(
                f"SELECT {_COLUMNS} FROM keys WHERE organization_id = ? AND id = ?", [organization_id, key_id]
            ).fetchone()
        return row and _key(row)

    def of(
        self,
        organization_id: str,
        *,
        after: str | None = None,
        limit: int = 1_000_000,
        descending: bool = False,
    ) -> list[Key]:
        """Return an organization's keys in the order they were made, those that follow the id `after`."""
        order, comparison = ("DESC", "<") if descending else ("ASC", ">")
        with self._using():
            rows = self._connection.execute(
                f"""SELECT {_COLUMNS} FROM keys WHERE organization_id = :organization_id
                    AND (:after IS NULL OR number {comparison} (
                      SELECT number FROM keys WHERE organization_id = :organization_id AND id = :after))
                    ORDER BY number {order} LIMIT :limit""",
                {"organization_id": organization_id, "after": after, "limit": limit},
            ).fetchall()
        return [_key(row) for row in rows]

    def organizations(self) -> list[str]:
        """Return every organization that has or had a key, sorted."""
        with self._using():
            rows = self._connection.execute("SELECT id FROM organizations ORDER BY 1").fetchall()
        return [row[0] for row in rows]

    @property
    def is_empty(self) -> bool:
        """Whether there is no key at all."""
        with self._using():
            return self._connection.execute("SELECT 1 FROM keys").fetchone() is None

    def revoke(self, organization_id: str, key_id: str) -> bool:
        """Remove a key; return whether there was one."""
        with self._using():
            cursor = self._connection.execute(
                "DELETE FROM keys WHERE organization_id = ? AND id = ?", [organization_id, key_id]
            )
            self._kept.clear()
        return cursor.rowcount > 0

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            self._connection.close()


def copy_keys(directory: Path, target: Path) -> None:
    """Write the keys of a data directory, as they are at one instant, to a new file; they may be in use.

    Sessions stay behind: who signed out since is not signed in again by a restore.

    Raises:
        StoreUnusable: the file is damaged.
    """
    with closing(sqlite3.connect(directory / FILE_NAME)) as keys, closing(sqlite3.connect(target)) as copy:
        keys.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, with no log beside it
        found = copy.execute("PRAGMA integrity_check").fetchall()
        if found == [("ok",)]:
            copy.execute("DROP TABLE IF EXISTS sessions")
    if found != [("ok",)]:
        raise StoreUnusable(f"the keys {directory / FILE_NAME} are damaged: {found[0][0]}")


def redact(value: str) -> str:
    """Return a key's value as it may be shown: beginning and end."""
    return f"{value[:11]}...{value[-4:]}" if len(value) >= 24 else f"{value[:4]}..."


def _hash(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()


def _key(row: tuple[str, str, str, str, str, int, int | None, int | None]) -> Key:
    key_id, organization_id, name, redacted, scopes, created_at_s, expires_at_s, last_used_at_s = row
    return Key(
        key_id,
        organization_id,
        name,
        redacted,
        tuple(Scope(scope) for scope in scopes.split()),
        created_at_s,
        expires_at_s,
        last_used_at_s,
    )
