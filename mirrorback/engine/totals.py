"""The numbers of a backup's summary: of one that was made, and of one that would be."""

from __future__ import annotations

from mirrorback.engine import planned
from mirrorback.engine.resolve import Cost
from mirrorback.engine.survey import Counts
from mirrorback.engine.tally import Tally
from mirrorback.model import ChangeKind, Kind, Summary
from mirrorback.store.catalog import Catalog
from mirrorback.store.difference import Action
from mirrorback.store.spool import Spool


def of_build(summary: Summary, counts: Counts, tally: Tally, spool: Spool) -> None:
    """What building has come to, added to a summary that has what the survey found."""
    found = tally.verdicts
    summary.files_new = found[ChangeKind.ADDED]
    summary.files_changed = found[ChangeKind.MODIFIED] + found[ChangeKind.RETYPED]
    summary.files_metadata = found[ChangeKind.METADATA]
    summary.files_moved = found[ChangeKind.MOVED]
    summary.files_removed = _removed(spool)
    # What the survey could not read already counts among `counts.stale`.
    kept = spool.fetch(f"SELECT count(*) FROM spool.change WHERE action = {Action.KEEP}")
    late = tally.stale - (kept[0][0] if kept else 0)
    summary.files_stale += late
    summary.errors += tally.errors
    summary.bytes_copied = tally.bytes_copied
    summary.bytes_written = tally.bytes_written
    differing = sum(n for kind, n in found.items() if kind is not None)
    summary.files_unmodified = max(0, counts.files - differing - tally.stale - tally.failed_new)


def of_plan(summary: Summary, catalog: Catalog, spool: Spool, counts: Counts, cost: Cost) -> None:
    """What a backup would come to, without one."""
    snapshots = catalog.snapshots()
    summary.snapshot = snapshots[-1].name if snapshots else None
    summary.unchanged = bool(snapshots) and planned.nothing_new(spool)
    summary.dirs, summary.errors = counts.dirs, counts.errors
    summary.files_stale = counts.stale
    summary.bytes_copied = summary.bytes_written = cost.bytes
    kinds = {ChangeKind.ADDED: 0, ChangeKind.MODIFIED: 0, ChangeKind.RETYPED: 0}
    kinds |= {ChangeKind.METADATA: 0, ChangeKind.MOVED: 0}
    for difference in spool.changes(f"kind != {int(Kind.DIRECTORY)}"):
        kind = planned.verdict(difference)
        if kind is not None:
            kinds[kind] += 1
    summary.files_new = kinds[ChangeKind.ADDED]
    summary.files_changed = kinds[ChangeKind.MODIFIED] + kinds[ChangeKind.RETYPED]
    summary.files_metadata = kinds[ChangeKind.METADATA]
    summary.files_moved = kinds[ChangeKind.MOVED]
    summary.files_removed = _removed(spool)
    summary.files_unmodified = max(0, counts.files - sum(kinds.values()) - counts.stale)


def _removed(spool: Spool) -> int:
    rows = spool.fetch(
        "SELECT count(*) FROM spool.gone WHERE kind != 2 AND NOT replaced AND moved_to IS NULL"
    )
    return rows[0][0] if rows else 0
