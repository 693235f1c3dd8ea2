"""Meeting in the source, for the first time, what a rebuilt catalog knows from the drive only.

Its content is compared by reading both, once; then its digest is known.  What the drive could
not hold of its metadata is taken from the source, where nothing else differs.
"""

from __future__ import annotations

import contextlib
import os
import stat

from mirrorback.model import Digest, Kind, Metadata
from mirrorback.plan.holding import may_hold
from mirrorback.store import content, learnt, live, reading, system, tree
from mirrorback.store.catalog import ABOVE_ROOT, Catalog
from mirrorback.store.repository import CURRENT, Repository
from mirrorback.store.spool import Spool


class Unseen:
    """Learns of objects of the mirror that no backup has seen in the source.  For one thread."""

    def __init__(self, repo: Repository, catalog: Catalog, spool: Spool) -> None:
        self._repo = repo
        self._catalog = catalog
        self._spool = spool
        self._top: int | None = None
        self._cursor: tree.Cursor | None = None

    def close(self) -> None:
        """Close what is open."""
        if self._cursor is not None and self._top is not None:
            self._cursor.close()
            os.close(self._top)
            self._cursor = self._top = None

    def met(self, number: int, seen: reading.Seen) -> tuple[Metadata, Digest | None]:
        """What is known of an object, now that something which may be it was read in the
        source.  What is learnt is spooled.  Raises OSError where the drive fails."""
        known, digest = learnt.object_row(self._catalog, self._spool, number)
        if known.size == seen.metadata.size:
            digest = digest or self.digest(number, seen.digest)
        if seen.digest != digest or not self._is_unseen(number):
            return known, digest
        linked = len(live.places_of(self._catalog, number)) > 1
        if known.same_as(seen.metadata) and not linked:
            return known, digest
        if not _may_hold(known, seen.metadata):
            return known, digest
        if linked and self._is_other(number, seen.metadata):
            return known, digest
        learnt.spool_learnt(self._spool, number, seen.metadata, digest, met=True)
        return seen.metadata, digest

    def may_be(self, number: int, metadata: Metadata) -> bool:
        """Whether the drive may have made such an object of something in the source with this
        metadata."""
        return _may_hold(learnt.object_row(self._catalog, self._spool, number)[0], metadata)

    def digest(self, number: int, like: Digest | None = None) -> Digest | None:
        """The digest of a file of the mirror, by reading it if it is not known, in the form of
        another; None where it is no file, or not there.  Raises OSError."""
        known, digest = learnt.object_row(self._catalog, self._spool, number)
        if known.kind is not Kind.FILE or digest is not None:
            return digest
        places = live.places_of(self._catalog, number)
        if not places:
            return None
        directory, name = live.place(self._catalog, places[0])
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            fd = os.open(name, system.READ_SAFELY, dir_fd=self._folder(directory))
            try:
                st = os.fstat(fd)
                if not stat.S_ISREG(st.st_mode) or st.st_size != known.size:
                    return None
                sparse = content.wants_sparse(st) if like is None else like.sparse
                digest = content.digest_of(fd, st, sparse)
            finally:
                os.close(fd)
            learnt.spool_learnt(self._spool, number, known, digest)
        return digest

    def _folder(self, directory: int) -> int:
        if self._cursor is None:
            self._top = os.open(CURRENT, tree.DIRECTORY_FLAGS, dir_fd=self._repo.fd)
            self._cursor = tree.Cursor(self._top)
        path = b""
        if directory != ABOVE_ROOT:
            with self._catalog.lock:
                path = self._catalog.directory_path(directory)
        return self._cursor.open(path)

    def _is_unseen(self, number: int) -> bool:
        with self._catalog.lock:
            row = self._catalog.db.execute(
                "SELECT ctime FROM main.object WHERE id = ?", (number,)
            ).fetchone()
        return bool(row[0] == learnt.UNSEEN_CTIME)

    def _is_other(self, number: int, metadata: Metadata) -> bool:
        """Whether another name of the object has been met with other metadata."""
        before = learnt.spooled(self._spool, number)
        return before is not None and before != learnt.columns(self._spool, metadata)


def _may_hold(held: Metadata, wanted: Metadata) -> bool:
    return may_hold(held, wanted, root=os.geteuid() == 0)
