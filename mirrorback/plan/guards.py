"""The guards: what a plan must not do without being asked to."""

from __future__ import annotations

MASS_CHANGE = "mass change"  # how the reason of a pin begins that a mass change has set
BY_HAND = "by hand"  # the reason of a pin for which nobody has given one
BEFORE = "; pinned before: "  # in the reason of a mass change's pin, before that it has replaced
MASS_LEAST = 1000  # files in the mirror from which on a mass change is one
BLOCK = 4096  # what a small file or a folder takes on a drive, at least
MARGIN = 8 << 20  # for the catalog's journal and the drive's own tables


def mass_change(files: int, removed: int, changed: int) -> bool:
    """Whether a run takes away or rewrites more than half of the mirror's files."""
    return files >= MASS_LEAST and 2 * (removed + changed) > files


def holds_thinning(pinned: str | None) -> bool:
    """Whether a snapshot's pin is that of a mass change which nobody has acknowledged yet."""
    return pinned is not None and pinned.startswith(MASS_CHANGE)


def pin_by_hand(pinned: str | None, reason: str | None) -> str:
    """The pin of a snapshot that someone pins, now `pinned`, giving a reason or none.  It is
    never taken for that of a mass change, and does not replace one."""
    if pinned is not None and (holds_thinning(pinned) or reason is None):
        return pinned
    reason = " ".join((reason or BY_HAND).split())
    return f"{BY_HAND}: {reason}" if reason.startswith(MASS_CHANGE) else reason or BY_HAND


def pin_by_mass_change(pinned: str | None, told: str) -> str:
    """The pin of a snapshot after which a mass change has come, as `told`; someone's own pin is
    kept in it, to be there again when the mass change has been acknowledged."""
    if holds_thinning(pinned):
        assert pinned is not None
        return pinned
    return f"{MASS_CHANGE} {told}" + ("" if pinned is None else BEFORE + (pinned or BY_HAND))


def acknowledged(pinned: str | None) -> str | None:
    """What is left of a pin when it is taken away: of a mass change's the one before it."""
    if pinned is None or not holds_thinning(pinned):
        return None
    _told, _, before = pinned.partition(BEFORE)
    return before or None


def room_needed(new_files: int, new_bytes: int, folders: int, rows: int) -> tuple[int, int]:
    """Bytes and inodes that a new snapshot will take at most.

    `new_files` inodes with `new_bytes` of content, `folders` in the whole
    snapshot, since folders cannot be hard-linked, and `rows` of catalog.
    """
    size = new_bytes + new_files * BLOCK + folders * BLOCK + rows * 512 + MARGIN
    return size, new_files + folders + 16
