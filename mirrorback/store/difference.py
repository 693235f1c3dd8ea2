"""What a survey finds: source entries that differ from the mirror, and entries it has lost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from mirrorback.model import Kind, Metadata
from mirrorback.store import encoding, owners


class Action:
    """What the build does for a difference (numbers, as they stand in a column)."""

    COPY = 1  # from the source, whatever its kind
    REUSE = 2  # link the object `use`, which the entry `moved` or the path itself shows
    CLONE = 3  # a new inode with the bytes of the object `use`
    FOLLOW = 4  # link what is made for the difference `leader`
    KEEP = 5  # could not be read: link what was there, marked stale
    DIRECTORY = 6
    REVISE = 7  # a large file: a new object, of what differs from the object `use`


class Difference(NamedTuple):
    """One source entry that is not as the catalog has it (columns of spool.change)."""

    id: int
    dir: int
    name: bytes
    kind: int
    ino: int
    dev: int
    mode: int  # without S_IFMT
    size: int
    mtime: int
    ctime: int
    uid: int
    gid: int
    nlink: int
    rdev: int
    entry: int | None = None  # what the mirror has at this path
    object: int | None = None
    old_kind: int | None = None
    old_ino: int | None = None
    old_nlink: int | None = None
    old_lineage: int | None = None
    same_content: int | None = None  # None: not known
    same_metadata: int | None = None
    digest: bytes | None = None
    sparse: int = 0
    inspected: int = 0  # the columns that follow were read
    target: bytes | None = None
    xattrs: bytes | None = None
    flags: int = 0
    btime: int | None = None
    settled: int = 1  # 0: may have changed within the clock's grain
    allocated: int = 0  # bytes it takes, holes left out
    action: int = Action.COPY
    use: int | None = None
    moved: int | None = None  # the entry it was before
    leader: int | None = None
    verdict: str | None = None

    @classmethod
    def of_columns(cls, columns: Iterable[Any]) -> Difference:
        """The difference in a row of spool.change."""
        row = cls._make(columns)
        return (
            row
            if isinstance(row.mtime, int)
            else row._replace(mtime=encoding.unpack_time(row.mtime))
        )

    def columns(self) -> tuple[Any, ...]:
        """The row of spool.change for it."""
        if isinstance(encoding.pack_time(self.mtime), int):
            return self
        return self._replace(mtime=encoding.pack_time(self.mtime))  # type: ignore[arg-type]

    @property
    def metadata(self) -> Metadata:
        """What was seen of the entry; complete where `inspected`."""
        kind = Kind(self.kind)
        return Metadata(
            kind=kind,
            mode=0o777 if kind is Kind.SYMLINK else self.mode,
            owner=owners.named(self.uid, self.gid),
            mtime=self.mtime,
            size=self.size if kind is Kind.FILE else 0,
            rdev=self.rdev if kind in (Kind.CHAR, Kind.BLOCK) else 0,
            target=self.target,
            xattrs=encoding.unpack_xattrs(self.xattrs),
            flags=self.flags,
            btime=self.btime,
        )

    def seen(self, metadata: Metadata) -> Difference:
        """The same with attributes, flags and target read."""
        return self._replace(
            inspected=1,
            target=metadata.target,
            xattrs=encoding.pack_xattrs(metadata.xattrs),
            flags=metadata.flags,
            btime=metadata.btime,
        )


class Gone(NamedTuple):
    """An entry of the mirror whose path is no more, or now shows another inode."""

    entry: int
    dir: int
    name: bytes
    kind: int
    object: int
    lineage: int
    ino: int
    size: int
    mtime: int
    replaced: int
    moved_to: int | None = None
