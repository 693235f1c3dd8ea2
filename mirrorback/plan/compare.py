"""What a difference amounts to: pure rules over what was seen and what is known."""

from __future__ import annotations

import enum

from mirrorback.model import ChangeKind

TICK = 20_000_000  # ns: the coarsest grain of a kernel clock that counts nanoseconds
WHOLE_SECONDS = 2_000_000_000  # ns: the grain of file systems that count seconds (FAT: two)


class Look(enum.Enum):
    """How closely an entry has to be looked at."""

    SAME = "same"  # nothing can have changed
    READ = "read"  # its content must be digested to know
    DIFFERENT = "different"  # it has changed


def look_at_file(
    *,
    size: tuple[int, int],
    mtime: tuple[int, int],
    ctime: tuple[int, int],
    ino: tuple[int, int],
    nlink: tuple[int, int],
    checksum: bool,
) -> Look:
    """Compare a regular file with the catalog; each pair is (now, then).

    A different size is a change.  Otherwise any difference, in mtime, ctime,
    inode or links, leaves it to the digest: contents change under a restored
    mtime, and files are replaced by others of equal size and time.
    """
    if size[0] != size[1]:
        return Look.DIFFERENT
    if checksum or mtime[0] != mtime[1] or ctime[0] != ctime[1]:
        return Look.READ
    if ino[0] != ino[1] or nlink[0] != nlink[1]:
        return Look.READ
    return Look.SAME


def settled(mtime: int, ctime: int, now: int, since: int | None = None) -> bool:
    """Whether a file that had these times when it was read at `now` cannot change
    any more without its times showing it.  `since`: it was read then, or later.

    A write within the same tick of the clock leaves the times as they were, so
    that a file younger than a tick is read again the next time.
    """
    grain = WHOLE_SECONDS if ctime % 1_000_000_000 == 0 else TICK
    # Times in the future were set by someone, or by another clock: no write
    # from now on gives them again.
    early, late = (now if since is None else since) - grain, now + grain
    return not (early <= mtime <= late or early <= ctime <= late)


def verdict(
    *,
    existed: bool,
    same_kind: bool,
    moved: bool,
    same_content: bool,
    same_metadata: bool,
    same_links: bool,
) -> ChangeKind | None:
    """How an entry that is there now differs from the snapshot before.

    `existed` says that its path did; `same_links` that it is hard-linked to
    the same others.  None is no difference at all.
    """
    if moved:
        return ChangeKind.MOVED
    if not existed:
        return ChangeKind.ADDED
    if not same_kind:
        return ChangeKind.RETYPED
    if not same_content:
        return ChangeKind.MODIFIED
    if not same_metadata or not same_links:
        return ChangeKind.METADATA
    return None
