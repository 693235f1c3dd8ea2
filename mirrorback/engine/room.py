"""Room on the drive: known before a byte is copied, and before the commit."""

from __future__ import annotations

from mirrorback.engine.resolve import Cost
from mirrorback.engine.survey import Counts
from mirrorback.engine.tally import Tally
from mirrorback.errors import NoSpace
from mirrorback.plan import guards
from mirrorback.store import probe, publish
from mirrorback.store.repository import Repository


def require(repo: Repository, counts: Counts, cost: Cost) -> None:
    """Raises NoSpace where the drive cannot take what a plan will write."""
    needed, inodes = guards.room_needed(cost.files, cost.bytes, counts.dirs, cost.rows)
    free, free_inodes = probe.free_space(repo.fd)
    credit = publish.salvage_size(repo) if needed > free else 0
    if needed > free + credit and cost.shared and probe.probe(repo.inner_path(b"")).reflinks:
        needed -= cost.shared
    if needed > free + credit:
        raise NoSpace(
            f"the drive has room for {free + credit:,} bytes, and this backup needs"
            f" {needed:,}: delete snapshots (`mirrorback delete`) or free space"
        )
    if free_inodes is not None and inodes > free_inodes and not repo.salvage():
        raise NoSpace(
            f"the drive has room for {free_inodes:,} more files and folders, and this backup"
            f" needs {inodes:,}: delete snapshots (`mirrorback delete`)"
        )


def is_full(repo: Repository) -> bool:
    """Whether the drive cannot take any backup."""
    needed, inodes = guards.room_needed(0, 0, 0, 0)
    free, free_inodes = probe.free_space(repo.fd)
    return free < needed or (free_inodes is not None and free_inodes < inodes)


def fits(repo: Repository, counts: Counts, cost: Cost) -> bool:
    """Whether the drive can take what a plan will write."""
    try:
        require(repo, counts, cost)
    except NoSpace:
        return False
    return True


def require_for_changes(repo: Repository, tally: Tally) -> None:
    """Raises NoSpace where large files are to grow beyond that when all is built: what is
    written after the commit must not be what finds the drive full."""
    free, _inodes = probe.free_space(repo.fd)
    if tally.needed and tally.needed + guards.MARGIN > free:
        raise NoSpace(
            f"the drive has room for {free:,} bytes, and large files grow by {tally.needed:,}:"
            " delete snapshots (`mirrorback delete`) or free space"
        )
