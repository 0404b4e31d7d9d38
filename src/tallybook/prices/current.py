"""The price book in force, read again when its files change."""

import threading
from pathlib import Path

from tallybook.errors import CommandFailed
from tallybook.prices.book import PriceBook, load
from tallybook.prices.library import FILE_NAME

_Stamp = tuple[int, int] | None


class CurrentPrices:
    """Holds the book in force.

    Args:
        directory: the data directory.
        operator: the operator's price file, None if there is none.
        list_prices: whether list prices count as well.

    Raises:
        CommandFailed: a file cannot be read, or has faults.
    """

    def __init__(self, directory: Path, operator: Path | None, *, list_prices: bool) -> None:
        self._directory = directory
        self._operator = operator if operator != Path() else None  # as an empty variable of the environment is
        self._list_prices = list_prices
        self._reading = threading.Lock()
        self._seen = self._stamps()
        self.problem: str | None = None
        """Why the files as they are now are not in force, None if they are."""
        self.book = load(directory, self._operator, list_prices=list_prices)

    def reload(self) -> bool:
        """Read the files again; return whether that makes another book.

        Raises:
            CommandFailed: a file cannot be read, or has faults; the book in force stays.
        """
        with self._reading:
            self._seen = self._stamps()
            try:
                book = load(self._directory, self._operator, list_prices=self._list_prices)
            except CommandFailed as error:
                self.problem = str(error)
                raise
            self.problem = None
            has_changed = book.book_id != self.book.book_id
            if has_changed:
                self.book = book
            return has_changed

    @property
    def is_stale(self) -> bool:
        """Whether a file has changed since it was last read."""
        return self._stamps() != self._seen

    def instead(self, operator: str) -> PriceBook:
        """Return a book in which the text of a price file stands in for the operator's.

        Raises:
            CommandFailed: it has faults.
        """
        return load(self._directory, operator, list_prices=self._list_prices)

    def _stamps(self) -> list[_Stamp]:
        return [_stamp(path) for path in (self._operator, self._directory / FILE_NAME) if path]


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
