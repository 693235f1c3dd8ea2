"""What a drive may have left of an entry's metadata: pure rules."""

from __future__ import annotations

import stat

from mirrorback.model import Kind, Metadata

GRAINS = (1, 100, 1_000, 1_000_000, 10_000_000, 1_000_000_000, 2_000_000_000)  # ns
# Attributes that only root can give, or a drive may not have.
PRIVILEGED = (b"security.", b"trusted.", b"system.")


def may_hold(held: Metadata, wanted: Metadata, *, root: bool) -> bool:
    """Whether an inode on a drive with the metadata `held` may be what became of `wanted`,
    written there by root or by another user.

    Inode flags and the time of birth are never given to the drive, and times may be rounded
    down.  Another user than root cannot give files away, nor then leave them setuid bits, nor
    give some attributes, and keeps folders open for itself."""
    if (held.kind, held.size, held.rdev, held.target) != (
        wanted.kind,
        wanted.size,
        wanted.rdev,
        wanted.target,
    ):
        return False
    if not any(held.mtime == wanted.mtime - wanted.mtime % grain for grain in GRAINS):
        return False
    same_owner = (held.owner.uid, held.owner.gid) == (wanted.owner.uid, wanted.owner.gid)
    if root:
        return same_owner and held.mode == wanted.mode and held.xattrs == wanted.xattrs
    mode = wanted.mode
    if not same_owner:
        mode &= ~(stat.S_ISUID | stat.S_ISGID)
        held_mode = held.mode & ~(stat.S_ISUID | stat.S_ISGID)
    else:
        held_mode = held.mode
    if wanted.kind is Kind.DIRECTORY:
        mode |= 0o700
        held_mode |= 0o700
    lost = set(wanted.xattrs) - set(held.xattrs)
    return (
        held_mode == mode
        and set(held.xattrs) <= set(wanted.xattrs)
        and all(name.startswith(PRIVILEGED) for name, _value in lost)
    )
