"""What a restore does about one entry, by what stands in its place."""

from __future__ import annotations

import os

from mirrorback.engine.history import History
from mirrorback.engine.target import Target
from mirrorback.model import Kind, Snapshot
from mirrorback.plan import restoring
from mirrorback.plan.restoring import Overwrite, Step
from mirrorback.store import past, tree
from mirrorback.store.past import PastRow


class Decider:
    """Looks at what is there, and decides.  For several threads.

    `shared` are the objects that the snapshot shows under more than one name.
    """

    def __init__(self, history: History, snapshot: Snapshot, overwrite: Overwrite) -> None:
        self._history = history
        self._snapshot = snapshot
        self._overwrite = overwrite
        self.shared = past.shared_in(history.catalog, snapshot.id)

    def step(self, target: Target, row: PastRow, st: os.stat_result | None) -> Step:
        """What to do for an entry that is no directory; `st` is what stands there."""
        kept = st is None or (not _is_open(row, st) and self._has_own_links(target, row, st))
        return self._decide(row, st, same_links=kept)

    def step_to_link(self, row: PastRow, st: os.stat_result | None) -> Step:
        """The same for a name that is to become a link, and is not the right one yet."""
        return self._decide(row, st, same_links=False)

    def _has_own_links(self, target: Target, row: PastRow, st: os.stat_result) -> bool:
        """Whether all names of what stands there are names that the snapshot links
        together: any other, perhaps outside the target, would be changed with them."""
        if st.st_nlink == 1:
            return True
        if row.object not in self.shared:
            return False
        with self._history.catalog.lock:
            names = past.sharing(self._history.catalog, row.object, self._snapshot.id)
            paths = [tree.join(self._history.folder_path(d), name) for _e, _l, d, name in names]
        return target.names_among(paths, st) == st.st_nlink

    def _decide(self, row: PastRow, st: os.stat_result | None, *, same_links: bool) -> Step:
        wanted = row.metadata
        if st is None:
            exists = same_kind = same_size = newer = False
        else:
            exists = True
            same_kind = Kind.of_mode(st.st_mode) is wanted.kind
            same_size = wanted.kind is not Kind.FILE or st.st_size == wanted.size
            same_size &= wanted.kind not in (Kind.CHAR, Kind.BLOCK) or st.st_rdev == wanted.rdev
            newer = wanted.mtime > st.st_mtime_ns
        return restoring.decide(
            self._overwrite,
            exists=exists,
            same_kind=same_kind,
            same_size=same_size,
            same_links=same_links,
            newer=newer,
        )


def _is_open(row: PastRow, st: os.stat_result) -> bool:
    """Whether, for root, someone else may have what stands there open for writing, and write to
    it when it is root's, or runs as root: it must be another inode."""
    if os.geteuid() != 0:
        return False
    foreign = st.st_uid not in (0, row.metadata.owner.uid)
    return foreign or bool(st.st_mode & ~row.metadata.mode & 0o022)
