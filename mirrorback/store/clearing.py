"""Takes out of a dated folder, fast, what the catalog knows to be there: files by their names,
and folders when nothing is left in them.

Nothing is listed, and nothing goes but under a name that the snapshot has: what someone else has
put there stays, with the folders that hold it.  So does all that is not as it should be, and
deltas, which have other names.  `remove` sees to what is left.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from mirrorback.errors import Damaged
from mirrorback.store import tree
from mirrorback.store.catalog import ABOVE_ROOT, Catalog

AT_ONCE = 1 << 15  # bytes of names that are ordered at once
# What may be said of a name that is not what it should be; `remove` looks closer.
_LEFT = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOENT", "ENOTDIR", "EISDIR", "ELOOP", "EPERM", "EACCES", "ENOTEMPTY", "EEXIST"),
        *("EBUSY", "EINVAL", "ENAMETOOLONG", "EXDEV"),
    )
)
_JOINED = "CAST(group_concat(CAST(name AS TEXT), '/') FILTER (WHERE kind {} 2) AS BLOB)"
_SHOWN = " first <= ?1 AND (last IS NULL OR last >= ?1)"
# In the order of `entry_place`, so that the rows stream, children before their parents.
_KNOWN = (
    f"SELECT dir, {_JOINED.format('!=')}, {_JOINED.format('=')} FROM entry"
    f" WHERE dir != {ABOVE_ROOT} AND{_SHOWN} GROUP BY dir ORDER BY dir DESC"
)
_DELTAS = f"SELECT e.dir FROM delta d JOIN entry e ON e.object = d.object WHERE{_SHOWN}"

Names = tuple[bytes, bytes]  # a folder's path, and the names of files in it, with slashes between


class Order(NamedTuple):
    """Some folders, children before their parents: the files in each, and the folders."""

    files: list[Names]
    folders: list[Names]


class Crew(Protocol):
    """Who removes files."""

    def unlink(self, orders: Iterable[Order]) -> Iterator[tuple[Order, int]]:
        """Remove the files of orders; each of these, in turn, when it is done, and how many
        files went.  Raises OSError."""


class Alone:
    """Removes files below an open folder, one after the other.  To be closed."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._device = os.fstat(top).st_dev
        self._cursor = tree.Cursor(top)

    def close(self) -> None:
        """Close what is open, but for the folder itself."""
        self._cursor.close()

    def unlink(self, orders: Iterable[Order]) -> Iterator[tuple[Order, int]]:
        """See `Crew`."""
        for order in orders:
            yield order, self.unlink_all(order.files)

    def unlink_all(self, files: Sequence[Names]) -> int:
        """Remove the files in some folders; how many went.  Raises OSError."""
        return sum(self._each(os.unlink, path, names) for path, names in files if names)

    def rmdir_all(self, folders: Sequence[Names]) -> None:
        """Remove the folders in some folders that are empty.  Raises OSError."""
        for path, names in folders:
            if names:
                self._each(os.rmdir, path, names)

    def _each(self, remove: Callable[..., None], path: bytes, joined: bytes) -> int:
        try:
            fd = self._cursor.open(path)
        except OSError as error:
            _require_left(error)
            return 0
        if os.fstat(fd).st_dev != self._device:
            return 0  # something is mounted there
        count = 0
        for name in joined.split(b"/"):
            try:
                remove(name, dir_fd=fd)
                count += 1
            except OSError as error:
                _require_left(error)
        return count


def _require_left(error: OSError) -> None:
    if error.errno not in _LEFT:
        raise error


def clear(
    dir_fd: int,
    name: bytes,
    catalog: Catalog,
    number: int,
    *,
    crew: Crew | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> None:
    """Take out of the folder `name` in an open one, that of a snapshot (its id) which goes, what
    is known of it; some of it, or all, may be gone already.  `progress` is told how many files
    went.  Raises OSError and the catalog's errors."""
    try:
        top = os.open(name, tree.DIRECTORY_FLAGS, dir_fd=dir_fd)
    except OSError as error:
        _require_left(error)
        return
    try:
        with contextlib.closing(Alone(top)) as alone:
            for order, count in (crew or alone).unlink(_orders(catalog, number)):
                progress(count)
                alone.rmdir_all(order.folders)
    finally:
        os.close(top)


def _orders(catalog: Catalog, number: int) -> Iterator[Order]:
    with catalog.lock:
        others = {row[0] for row in catalog.db.execute(_DELTAS, (number,))}
    order, size = Order([], []), 0
    for directory, files, folders in catalog.db.execute(_KNOWN, (number,)):
        if directory in others or b"\0" in (files or b"") or b"\0" in (folders or b""):
            continue
        try:
            path = catalog.directory_path(directory)
        except Damaged:
            continue
        order.files.append((path, files or b""))
        order.folders.append((path, folders or b""))
        size += len(files or b"") + len(path)
        if size >= AT_ONCE:
            yield order
            order, size = Order([], []), 0
    yield order
