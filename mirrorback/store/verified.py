"""What was read back when, and what was wrong with it: remembered for the next time."""

from __future__ import annotations

from mirrorback.errors import MirrorbackError
from mirrorback.store import learnt, lock
from mirrorback.store.catalog import Catalog
from mirrorback.store.repository import CATALOG, Repository

PATIENCE_MS = 2000  # for another process that reads the catalog
MOST_WAITING = 200_000  # results in memory that could not be written so far

_HELD = "drive != 2"  # the drive has it at all


def after(catalog: Catalog, last: int, count: int) -> list[int]:
    """The next objects by number, folders among them."""
    return _numbers(
        catalog,
        f"SELECT id FROM object WHERE id > ? AND {_HELD} ORDER BY id LIMIT ?",
        (last, count),
    )


def count(catalog: Catalog) -> int:
    """How many there are."""
    with catalog.lock:
        row = catalog.db.execute(f"SELECT count(*) FROM object WHERE {_HELD}").fetchone()
    return int(row[0])


def never(catalog: Catalog, last: int, count: int) -> list[int]:
    """The next objects by number that were never read back."""
    return _numbers(
        catalog,
        f"SELECT id FROM object WHERE id > ? AND {_HELD} AND NOT EXISTS"
        " (SELECT 1 FROM verified WHERE verified.object = object.id) ORDER BY id LIMIT ?",
        (last, count),
    )


def next_time(catalog: Catalog, last: int | None) -> int | None:
    """The earliest time after `last` at which something was read back; None where there is
    none."""
    with catalog.lock:
        row = catalog.db.execute(
            "SELECT min(time) FROM verified WHERE ?1 IS NULL OR time > ?1", (last,)
        ).fetchone()
    found: int | None = row[0]
    return found


def at(catalog: Catalog, time: int, last: int, count: int) -> list[int]:
    """The next objects by number of those that were last read back at a time."""
    return _numbers(
        catalog,
        "SELECT v.object FROM verified v JOIN object o ON o.id = v.object"
        f" WHERE v.time = ? AND v.object > ? AND o.{_HELD} ORDER BY v.object LIMIT ?",
        (time, last, count),
    )


def problem(catalog: Catalog, number: int) -> str | None:
    """What was wrong with an object when it was last read back."""
    with catalog.lock:
        row = catalog.db.execute(
            "SELECT problem FROM verified WHERE object = ?", (number,)
        ).fetchone()
    found: str | None = row[0] if row else None
    return found


def _numbers(catalog: Catalog, query: str, values: tuple[int, ...]) -> list[int]:
    with catalog.lock:
        return [row[0] for row in catalog.db.execute(query, values).fetchall()]


class Memory:
    """Writes the results of one run, some at a time, by a connection of its own.

    It takes no lock of the repository, and while another run has that it does not write: a
    backup must neither fail nor wait for it.  What could not be written is tried again with
    the next.
    """

    def __init__(self, repo: Repository, time: int) -> None:
        """`time`, in ns since 1970, is when all of it was read."""
        self._repo = repo
        self.time = time
        self._waiting: dict[int, str | None] = {}
        self._digests: dict[int, bytes] = {}
        self._catalog: Catalog | None = None
        self.lost = False  # some of it could not be written
        self.disabled = False  # for a catalog that must not be written to

    def note(self, results: dict[int, str | None], digests: dict[int, bytes]) -> None:
        """What came of some objects: what is wrong with each, or None; and the digests of those
        of which nobody knew any."""
        self._waiting.update(results)
        self._digests.update(digests)

    def __len__(self) -> int:
        return len(self._waiting)

    def flush(self) -> bool:
        """Write what is waiting; False where that is not possible now."""
        if not self._waiting:
            return True
        if self.disabled:
            return self._put_off()
        try:
            if lock.held(self._repo.inner):
                return self._put_off()
            self._write()
        except (MirrorbackError, OSError):
            return self._put_off()
        self._waiting.clear()
        self._digests.clear()
        return True

    def close(self) -> None:
        """Write the last of it, if that is possible."""
        self.lost |= not self.flush()
        if self._catalog is not None:
            self._catalog.close()
            self._catalog = None

    def _put_off(self) -> bool:
        if len(self._waiting) > MOST_WAITING:
            self.lost = True
            self._waiting.clear()
            self._digests.clear()
        return False

    def _write(self) -> None:
        if self._catalog is None:
            self._catalog = Catalog.open(self._repo.inner_path(CATALOG), write=True)
            self._catalog.db.execute(f"PRAGMA busy_timeout = {PATIENCE_MS}")
        with self._catalog.transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO verified (object, time, problem) SELECT ?1, ?2, ?3"
                " WHERE EXISTS (SELECT 1 FROM object WHERE id = ?1)",
                ((number, self.time, what) for number, what in self._waiting.items()),
            )
            learnt.take_digests(db, self._digests)
