"""What one thread of a build works with."""

from __future__ import annotations

import errno

from mirrorback.store import tree
from mirrorback.store.copier import Copier, Filling, Roots


class Bench:
    """What one thread works with: a cursor in each of the trees, and someone who fills folders."""

    def __init__(self, roots: Roots, helper: Filling | None) -> None:
        """Without a helper the thread fills folders by itself."""
        own = Copier(roots)
        self._own = own
        self.filler: Filling = own if helper is None else helper
        self.salvaging = bool(roots.salvage)  # there is what an interrupted run has copied
        self.source = own.source
        self.incoming = own.incoming
        self._elsewhere = tree.Cursor(roots.mirror) if roots.mirror is not None else None
        self._other_incoming = tree.Cursor(roots.incoming)

    def mirror(self, path: bytes, *, elsewhere: bool = False) -> int:
        """A directory of the mirror; `elsewhere` leaves the one of the last call
        open, for a look at another.  Raises OSError."""
        cursor = self._elsewhere if elsewhere else self._own.mirror
        if cursor is None:
            raise FileNotFoundError(errno.ENOENT, "there is no mirror")
        return cursor.open(path)

    def built(self, path: bytes) -> int:
        """A directory of the new snapshot other than the one being filled."""
        return self._other_incoming.open(path)

    def let_go_of_salvage(self, folder: bytes, name: bytes, inode: int) -> None:
        """Take a link away that an interrupted run has made to an inode of the mirror."""
        self._own.unlink_salvaged(folder, name, inode)

    def close(self) -> None:
        """Close what is open."""
        for cursor in (self._elsewhere, self._other_incoming, self._own):
            if cursor is not None:
                cursor.close()
