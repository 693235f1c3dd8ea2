"""What a cut run was to give, where someone has removed it from `redo/` since (see `supersede`).

Some folders may have it already: then it is taken from one of these, proven by the digests that
the catalog has.  Where none has, a backup leaves the version whole, as it still lies there: the
mirror's changes go to a copy while history has a name of its file.  A removal cannot go on so: what
it would take away is needed.
"""

from __future__ import annotations

import os
import stat

from mirrorback.errors import Damaged
from mirrorback.store import content, live, record, schema, supersede, system
from mirrorback.store.catalog import Catalog
from mirrorback.store.delta_reader import DeltaReader
from mirrorback.store.repository import DELTA_SUFFIX, Repository, undo_name
from mirrorback.store.supersede import Replacing


def regained(repo: Repository, catalog: Catalog, what: Replacing, redo: int) -> bool:
    """Whether the open `redo/` has the new file of an object again, to be given to the folders
    that have not got it.  Raises OSError, the catalog's errors, and Damaged where a removal
    would lose something."""
    if what.removal is None and what.form == schema.WHOLE:
        return False  # another inode with the same bytes: either will do
    proof, waiting = _Proof(catalog, what), False
    for row, _snapshot, folder in supersede.shown(repo, catalog, what.object):
        delta = row.name + DELTA_SUFFIX
        new = delta if what.form == schema.DELTA else row.name
        if proof.holds(folder, new):
            os.link(
                new,
                undo_name(what.object),
                src_dir_fd=folder,
                dst_dir_fd=redo,
                follow_symlinks=False,
            )
            return True
        former = row.name if what.removal is None else delta
        waiting = waiting or _is_file(folder, former)
    if not waiting:
        return False  # someone has removed all of it
    if what.removal is None:
        record.stays_whole(catalog, what.object)
        return False
    raise Damaged(
        "someone has removed from .mirrorback/redo what an older version of a large file needs"
        " when a snapshot goes, which has begun: `mirrorback rebuild --force` makes the catalog"
        " anew from the folders, and the snapshot stays"
    )


def _is_file(folder: int, name: bytes) -> bool:
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


class _Proof:
    """Of what is an object's new file, and what is not."""

    def __init__(self, catalog: Catalog, what: Replacing) -> None:
        self._delta = what.form == schema.DELTA
        self._metadata, self._digest = live.object_row(catalog, what.object)
        row = catalog.db.execute("SELECT base FROM delta WHERE object = ?", (what.object,))
        base = row.fetchone()
        self._base = None if base is None else live.object_row(catalog, base[0])[1]

    def holds(self, folder: int, name: bytes) -> bool:
        """Whether a name in an open folder shows it.  Raises OSError."""
        if not _is_file(folder, name) or self._digest is None:
            return False
        fd = os.open(name, system.READ_SAFELY, dir_fd=folder)
        try:
            return self._is_delta(fd) if self._delta else self._is_whole(fd)
        finally:
            os.close(fd)

    def _is_delta(self, fd: int) -> bool:
        try:
            delta = DeltaReader(fd)
        except Damaged:
            return False
        return (delta.old_digest, delta.base_digest) == (self._digest, self._base)

    def _is_whole(self, fd: int) -> bool:
        st = os.fstat(fd)
        assert self._digest is not None
        if not stat.S_ISREG(st.st_mode) or st.st_size != self._metadata.size:
            return False
        return content.digest_of(fd, st, sparse=self._digest.sparse) == self._digest
