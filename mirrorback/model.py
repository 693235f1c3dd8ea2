"""The vocabulary: entries, metadata, objects, versions, snapshots.

Paths are bytes, relative to the source, without a leading or trailing slash;
the source itself is b"".  Times are integers, nanoseconds since 1970 UTC,
negative before it.  Sizes are bytes.
"""

from __future__ import annotations

import enum
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # a night without large files does without it
    import numpy as np
    from numpy.typing import NDArray

ROOT = b""
SIZE_LIMIT = 1 << 62  # sizes of large files are below: the sum of two fits in 64 bits
COPY = 0
LITERAL = 1


class Kind(enum.IntEnum):
    """What an entry is.  The numbers are stored in the catalog."""

    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    FIFO = 4
    SOCKET = 5
    CHAR = 6
    BLOCK = 7

    @property
    def label(self) -> str:
        """The word shown to people and in JSON."""
        return "device" if self in (Kind.CHAR, Kind.BLOCK) else self.name.lower()

    @property
    def letter(self) -> str:
        """The letter `ls -l` shows."""
        return "?-dlpscb"[self]

    @property
    def format_bits(self) -> int:
        """The S_IFMT bits of this kind."""
        return _FORMAT_BITS[self]

    @staticmethod
    def of_mode(mode: int) -> Kind:
        """The kind that the S_IFMT bits of `mode` name."""
        return KIND_OF_FORMAT[stat.S_IFMT(mode)]


KIND_OF_FORMAT = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
    stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK,
}
_FORMAT_BITS = {kind: bits for bits, kind in KIND_OF_FORMAT.items()}


@dataclass(frozen=True, slots=True)
class Owner:
    """Owner and group: numbers, and the names they had on the source's host."""

    uid: int
    gid: int
    user: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Metadata:
    """All that is kept of an inode besides its bytes."""

    kind: Kind
    mode: int  # permission bits only, 0o0000 to 0o7777
    owner: Owner
    mtime: int
    size: int = 0  # of a file's content; 0 for every other kind
    rdev: int = 0
    target: bytes | None = None  # of a symlink
    xattrs: tuple[tuple[bytes, bytes], ...] = ()  # sorted by name
    flags: int = 0  # inode flags as FS_IOC_GETFLAGS gives them, of those restored
    btime: int | None = None  # birth; told, never restored

    def same_as(self, other: Metadata) -> bool:
        """Whether nothing that a restore could bring back differs (names of
        owners and the time of birth follow from what is compared)."""
        return (
            self.kind is other.kind
            and self.mode == other.mode
            and self.owner.uid == other.owner.uid
            and self.owner.gid == other.owner.gid
            and self.mtime == other.mtime
            and self.size == other.size
            and self.rdev == other.rdev
            and self.target == other.target
            and self.xattrs == other.xattrs
            and self.flags == other.flags
        )


@dataclass(frozen=True, slots=True)
class Digest:
    """BLAKE3 of a file's content.

    `sparse` marks the form used for files with very large holes: the hash of,
    for every block of 64 KiB that is not all zeros, its number (8 bytes) and
    its length without trailing zeros (4 bytes), then those bytes; at the end
    the file's size (8 bytes).  Numbers are little endian.
    """

    value: bytes  # 32 bytes
    sparse: bool = False

    def __str__(self) -> str:
        return f"{'blake3-sparse' if self.sparse else 'blake3'}:{self.value.hex()}"


class Segments(NamedTuple):
    """How a file is put together, from its beginning to its end: a reverse delta's map.

    Three columns of one length.  A segment is so many bytes, COPY from the base or LITERAL
    from the delta's plaintext, from an offset there on.
    """

    length: NDArray[np.int64]
    kind: NDArray[np.int64]
    offset: NDArray[np.int64]

    def total(self) -> int:
        """The sum of the lengths, exact however large they are."""
        high, low = self.length >> 32, self.length & 0xFFFFFFFF
        return (int(high.sum()) << 32) + int(low.sum())

    def fault(self, base_size: int, plain_size: int) -> str | None:
        """What is wrong with the ranges, over a base and a plaintext of so many bytes, in
        words that follow "the delta has"; None where they can all be read."""
        if not len(self.length) == len(self.kind) == len(self.offset):
            return "columns that are not equally long"
        if not len(self.length):
            return None
        if self.kind.min() < COPY or self.kind.max() > LITERAL:
            return "a segment of a kind that is not known"
        if self.length.min() < 1 or self.length.max() >= SIZE_LIMIT:
            return "a segment of an impossible length"
        if self.offset.min() < 0 or self.offset.max() >= SIZE_LIMIT:
            return "a segment at an impossible place"
        end = self.offset + self.length
        if (end[self.kind == COPY] > base_size).any():
            return "a segment that lies beyond the end of its base"
        if (end[self.kind == LITERAL] > plain_size).any():
            return "a segment that lies beyond the end of its own data"
        return None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One recorded state of the source."""

    id: int
    name: str  # YYYY-MM-DD-HHMMSS, perhaps with -2
    time: int
    offset: int  # of local time from UTC then, in seconds
    current: bool  # the newest: the mirror
    incomplete: bool = False
    pinned: str | None = None  # why, where it is
    files: int = 0  # entries that are not directories
    bytes: int = 0  # size of all files in it


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in one snapshot."""

    path: bytes
    metadata: Metadata
    digest: Digest | None
    object: int  # two paths of a snapshot are hard links of each other when equal
    stale: bool = False
    stored: str = "whole"


@dataclass(frozen=True, slots=True)
class Version:
    """One state of one path over an unbroken run of snapshots."""

    path: bytes
    first: Snapshot
    last: Snapshot
    metadata: Metadata
    digest: Digest | None
    location: bytes  # absolute, on the drive
    stored: str = "whole"
    moved_from: bytes | None = None


class ChangeKind(enum.StrEnum):
    """How a path differs between two snapshots."""

    ADDED = "added"
    REMOVED = "removed"
    MODIFIED = "modified"
    METADATA = "metadata"
    MOVED = "moved"
    RETYPED = "retyped"


@dataclass(frozen=True, slots=True)
class Change:
    """One row of a difference; `from_path` is set where a path moved."""

    path: bytes
    change: ChangeKind
    from_path: bytes | None = None


@dataclass(slots=True)
class Summary:
    """What a backup did.  The counts called files are of all that is not a directory."""

    snapshot: str | None = None
    unchanged: bool = False
    files_new: int = 0
    files_changed: int = 0
    files_metadata: int = 0
    files_moved: int = 0
    files_removed: int = 0
    files_unmodified: int = 0
    files_stale: int = 0
    dirs: int = 0
    bytes_copied: int = 0
    bytes_written: int = 0
    errors: int = 0
    duration_s: float = 0.0
    not_kept: dict[str, int] = field(default_factory=dict)  # e.g. {"ownership": 12}
    snapshots_removed: list[str] = field(default_factory=list)  # names, by the policy
    bytes_freed: int = 0  # by that


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing `verify` found."""

    path: bytes
    snapshots: tuple[str, ...]
    problem: str
    location: bytes
    repairable: bool


@dataclass(frozen=True, slots=True)
class Repair:
    """What `repair` made of one thing that `verify` had found."""

    path: bytes
    snapshots: tuple[str, ...]
    problem: str
    location: bytes
    repaired: bool
    # Where what is right came from, or is, where there was no room for it; None also where
    # nothing was wrong any more.
    origin: str | None
    set_apart: bytes | None  # absolute: where what was wrong is kept


class Level(enum.StrEnum):
    """How a finding of `doctor` is to be taken."""

    GOOD = "good"
    NOTE = "note"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing `doctor` looked at: what, what it found, what follows."""

    subject: str
    level: Level
    found: str
    follows: str
