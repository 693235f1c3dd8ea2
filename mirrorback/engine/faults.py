"""What can be wrong with what stands on the drive, in words."""

from __future__ import annotations

import enum
from typing import NamedTuple

ROTTEN = "content is not what was backed up, though size and time are: it has rotted"
EDITED = "was edited on the drive: content and time are not what was backed up"
WRONG_SIZE = "was edited or cut short on the drive: size is not what was backed up"
DAMAGED = "content is not what was backed up"
MISSING = "missing"
DEPENDS = "cannot be rebuilt: a newer version, on which its delta depends, is damaged"
OTHERS_DELTA = "is the reverse delta of another version"
WRONG_KIND = "is something else than was backed up"
WRONG_TARGET = "symlink target is not what was backed up"
WRONG_DEVICE = "is another device than was backed up"
APART = "is a file of its own, not the same one (a hard link) as in the other places"
ATTRIBUTES = "extended attributes were changed"
FUSED = "is the same file as {}, though these are two"


class Harm(enum.Enum):
    """What a fault does harm to."""

    MISSING = "there is nothing"
    CONTENT = "its own bytes, or what it is"
    BASE = "its own bytes are right, but not those of a newer version that they need"
    DRESS = "metadata only"
    LINKS = "only who is the same file as whom"


class Fault(NamedTuple):
    """Something that is wrong."""

    words: str
    harm: Harm


GONE = Fault(MISSING, Harm.MISSING)


def unreadable(error: OSError) -> Fault:
    """What the drive does not give."""
    return Fault(f"cannot be read: {(error.strerror or str(error)).lower()}", Harm.CONTENT)
