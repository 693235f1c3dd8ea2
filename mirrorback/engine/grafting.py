"""A folder that moved and can no longer be read keeps what the mirror has of it.

It is found by its inode; what was below it is not to be seen, and must not be taken for
removed.  Its entries are planned under the new path, to be linked from the old one.
"""

from __future__ import annotations

from mirrorback.model import Kind
from mirrorback.store import encoding, live
from mirrorback.store.catalog import Catalog
from mirrorback.store.difference import Action, Difference, Gone
from mirrorback.store.spool import Spool


class Grafter:
    """Plans what stays below unreadable folders that moved."""

    def __init__(self, catalog: Catalog, spool: Spool, device: int) -> None:
        self._catalog = catalog
        self._spool = spool
        self._device = device
        self._folders: list[tuple[int, int]] = []  # old and new number

    def moved(self, difference: Difference, gone: Gone) -> None:
        """Take note of a folder that moved."""
        new = self._number(difference.dir, difference.name)
        if self._spool.fetch("SELECT 1 FROM spool.unread WHERE dir = ?", (new,)):
            self._folders.append((live.children(self._catalog, gone.dir)[gone.name][0], new))

    def run(self) -> int:
        """Plan it all, but for what has been found elsewhere; how many files there are."""
        files = 0
        while self._folders:
            old, new = self._folders.pop()
            rows = self._spool.fetch(
                "SELECT * FROM spool.gone WHERE dir = ? AND moved_to IS NULL", (old,)
            )
            for gone in map(Gone._make, rows):
                difference = self._planned(gone, new)
                self._spool.change(difference)
                self._spool.update(
                    "UPDATE spool.gone SET moved_to = ? WHERE entry = ?",
                    (difference.id, gone.entry),
                )
                if gone.kind == Kind.DIRECTORY:
                    self._descend(gone, new)
                else:
                    files += 1
        return files

    def _descend(self, gone: Gone, parent: int) -> None:
        known = live.children(self._catalog, parent).get(gone.name)
        number = self._spool.new_id("directory") if known is None else known[0]
        if known is None:
            self._spool.add("directory", number, parent, gone.name)
        self._folders.append((live.children(self._catalog, gone.dir)[gone.name][0], number))

    def _planned(self, gone: Gone, directory: int) -> Difference:
        metadata, _digest = live.object_row(self._catalog, gone.object)
        is_folder = gone.kind == Kind.DIRECTORY
        return Difference(
            id=self._spool.next_change(),
            dir=directory,
            name=gone.name,
            kind=gone.kind,
            ino=gone.ino,
            dev=self._device,
            mode=metadata.mode,
            size=gone.size,
            mtime=encoding.unpack_time(gone.mtime),
            ctime=-1,  # nobody knows what it is now
            uid=metadata.owner.uid,
            gid=metadata.owner.gid,
            nlink=1,
            rdev=metadata.rdev,
            old_lineage=gone.lineage,
            action=Action.DIRECTORY if is_folder else Action.KEEP,
            moved=gone.entry,
        ).seen(metadata)

    def _number(self, parent: int, name: bytes) -> int:
        known = live.children(self._catalog, parent).get(name)
        return self._spool.directory_id(parent, name) if known is None else known[0]
