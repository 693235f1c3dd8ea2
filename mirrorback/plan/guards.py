"""The guards: what a plan must not do without being asked to."""

from __future__ import annotations

MASS_CHANGE = "mass change"  # how the reason of a pin begins that a mass change has set
MASS_LEAST = 1000  # files in the mirror from which on a mass change is one
BLOCK = 4096  # what a small file or a folder takes on a drive, at least
MARGIN = 8 << 20  # for the catalog's journal and the drive's own tables


def mass_change(files: int, removed: int, changed: int) -> bool:
    """Whether a run takes away or rewrites more than half of the mirror's files."""
    return files >= MASS_LEAST and 2 * (removed + changed) > files


def holds_thinning(pinned: str | None) -> bool:
    """Whether a snapshot's pin is that of a mass change which nobody has acknowledged yet."""
    return pinned is not None and pinned.startswith(MASS_CHANGE)


def room_needed(new_files: int, new_bytes: int, folders: int, rows: int) -> tuple[int, int]:
    """Bytes and inodes that a new snapshot will take at most.

    `new_files` inodes with `new_bytes` of content, `folders` in the whole
    snapshot, since folders cannot be hard-linked, and `rows` of catalog.
    """
    size = new_bytes + new_files * BLOCK + folders * BLOCK + rows * 512 + MARGIN
    return size, new_files + folders + 16
