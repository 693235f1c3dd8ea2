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
    free, needed = _bytes(repo, counts, cost)
    if needed > free:
        raise NoSpace(
            f"the drive has room for {free:,} bytes, and this backup needs"
            f" {needed:,}: delete snapshots (`mirrorback delete`) or free space"
        )
    _needed, inodes = _wanted(counts, cost)
    _free, free_inodes = probe.free_space(repo.fd)
    if free_inodes is not None and inodes > free_inodes and not repo.salvage():
        raise NoSpace(
            f"the drive has room for {free_inodes:,} more files and folders, and this backup"
            f" needs {inodes:,}: delete snapshots (`mirrorback delete`)"
        )


def missing(repo: Repository, counts: Counts, cost: Cost) -> int:
    """Bytes that the drive has too few for what a plan will write."""
    free, needed = _bytes(repo, counts, cost)
    return max(0, needed - free)


def _wanted(counts: Counts, cost: Cost) -> tuple[int, int]:
    return guards.room_needed(cost.files, cost.bytes, counts.dirs, cost.rows)


def _bytes(repo: Repository, counts: Counts, cost: Cost) -> tuple[int, int]:
    """Bytes that there are, with what an interrupted run has copied, and that are needed."""
    needed, _inodes = _wanted(counts, cost)
    free, _free_inodes = probe.free_space(repo.fd)
    if needed > free:
        free += publish.salvage_size(repo)
    if needed > free and cost.shared and probe.probe(repo.inner_path(b"")).reflinks:
        needed -= cost.shared
    return free, needed


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
