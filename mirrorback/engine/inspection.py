"""What only the source can tell of an entry, once the survey is over."""

from __future__ import annotations

import os

from mirrorback.engine.source import Source
from mirrorback.errors import Trouble
from mirrorback.model import Kind
from mirrorback.store import reading, system, tree
from mirrorback.store.difference import Difference
from mirrorback.store.spool import Spool


class Inspector:
    """Reads single entries of the source, as differences name them."""

    def __init__(self, source: Source, spool: Spool) -> None:
        self._source = source
        self._spool = spool
        self._cursor = tree.Cursor(source.fd)
        self._last: tuple[tuple[int, int, int, int], reading.Seen | None] | None = None

    def close(self) -> None:
        """Close what is open."""
        self._cursor.close()

    def seen(self, difference: Difference, sparse: bool | None) -> reading.Seen | None:
        """Metadata and digest of a source entry, in the form of digest wanted; None where it
        cannot be read now."""
        key = (difference.dev, difference.ino, difference.ctime, int(bool(sparse)))
        if self._last is not None and self._last[0] == key:
            return self._last[1]  # the next name of a hard-linked file, often
        seen: reading.Seen | None
        try:
            fd = self._open(difference.dir)
            if difference.kind == Kind.FILE:
                seen = reading.digest_file(fd, difference.name, sparse, lambda count: None)
            else:
                format_bits = Kind(difference.kind).format_bits
                seen = reading.look(fd, difference.name, format_bits)
        except Trouble:
            seen = None  # the build will meet it again, and tell
        if seen is not None and (seen.torn or seen.ino != difference.ino):
            seen = None
        self._last = (key, seen)
        return seen

    def birth(self, difference: Difference) -> int | None:
        """When a source entry was made, in ns since 1970; None where nobody says."""
        try:
            return system.birth_time(self._open(difference.dir), difference.name)
        except (Trouble, OSError):
            return None

    def identity(self, directory: int, name: bytes) -> tuple[int, int] | None:
        """Device and inode number of a source entry; None where it is not there."""
        try:
            st = os.stat(name, dir_fd=self._open(directory), follow_symlinks=False)
        except (Trouble, OSError):
            return None
        return st.st_dev, system.inode_number(st.st_ino)

    def with_seen(self, difference: Difference, seen: reading.Seen) -> Difference:
        """A difference with what has been read of the entry since."""
        metadata = seen.metadata
        settled = self._source.settled(metadata.mtime, seen.ctime, seen.read_at)
        return difference._replace(
            mode=metadata.mode,
            size=metadata.size if difference.kind == Kind.FILE else difference.size,
            mtime=metadata.mtime,
            ctime=seen.ctime,
            uid=metadata.owner.uid,
            gid=metadata.owner.gid,
            nlink=seen.nlink,
            digest=seen.digest.value if seen.digest else None,
            sparse=int(seen.digest.sparse) if seen.digest else 0,
            settled=int(settled),
        ).seen(metadata)

    def _open(self, directory: int) -> int:
        if directory == 0:
            return self._source.fd
        with reading.troubles:
            return self._cursor.open(self._spool.directory_path(directory))
