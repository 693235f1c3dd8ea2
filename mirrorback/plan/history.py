"""Differences between two snapshots, and versions of a path: pure rules over rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from mirrorback.model import Change, ChangeKind, Digest, Kind, Metadata
from mirrorback.plan import compare


@dataclass(frozen=True, slots=True)
class State:
    """What one snapshot shows at one path."""

    path: bytes
    lineage: int
    object: int
    metadata: Metadata
    digest: Digest | None
    others: frozenset[int] = frozenset()  # lineages that share its inode

    def linked_to(self) -> frozenset[int]:
        """The lineages it is hard-linked to."""
        return self.others - {self.lineage}

    def same_content(self, other: State) -> bool:
        """Whether the bytes, the target or the device are the same."""
        mine, theirs = self.metadata, other.metadata
        if self.object == other.object:
            return True
        if None in (self.digest, other.digest) and mine.kind is theirs.kind is Kind.FILE:
            # Nobody has read one of them since the catalog was made anew.
            return (mine.size, mine.mtime) == (theirs.size, theirs.mtime)
        return (
            self.digest == other.digest
            and mine.target == theirs.target
            and mine.rdev == theirs.rdev
            and (mine.kind is not Kind.FILE or mine.size == theirs.size)
        )

    def same_metadata(self, other: State) -> bool:
        """Whether all else is; of a folder without its time stamp."""
        theirs = other.metadata
        if self.metadata.kind is Kind.DIRECTORY:
            theirs = replace(theirs, mtime=self.metadata.mtime)
        return self.metadata.same_as(theirs)


def changes(olds: Iterable[State], news: Iterable[State]) -> list[Change]:
    """The changes from one snapshot to another, by path.

    `olds` are what the first shows and `news` what the second does, the older
    or the newer; states that both show alike may be left out.
    """
    before = {state.path: state for state in olds}
    by_lineage = {state.lineage: state for state in before.values()}
    found = []
    moved_away: set[bytes] = set()
    stayed: dict[bytes, State] = {}
    for state in news:
        stayed[state.path] = state
        origin = by_lineage.get(state.lineage)
        moved = origin is not None and origin.path != state.path
        same_place = before.get(state.path)
        if moved and origin is not None:
            moved_away.add(origin.path)
        kind = compare.verdict(
            existed=same_place is not None,
            same_kind=same_place is None or same_place.metadata.kind is state.metadata.kind,
            moved=moved,
            same_content=same_place is None or same_place.same_content(state),
            same_metadata=same_place is None or same_place.same_metadata(state),
            same_links=same_place is None or same_place.linked_to() == state.linked_to(),
        )
        if kind is not None:
            found.append(Change(state.path, kind, origin.path if moved and origin else None))
    for path in before.keys() - stayed.keys() - moved_away:
        found.append(Change(path, ChangeKind.REMOVED))
    return sorted(found, key=lambda change: change.path)


@dataclass(frozen=True, slots=True)
class Run:
    """A path's state over the snapshots from `first` to `last`, both shown."""

    state: State
    first: int
    last: int
    moved_from: bytes | None = None


def unbroken(
    rows: Iterable[tuple[State, int, int | None, bytes | None]],
    snapshots: Collection[int],
    mirror: int,
) -> list[Run]:
    """The versions of a path: rows (state, first, last or None, moved from), oldest
    first, joined where nothing but a folder's time stamp tells them apart, and cut
    to the snapshots that exist."""
    order = sorted(snapshots)
    number = {snapshot: index for index, snapshot in enumerate(order)}
    runs: list[Run] = []
    for state, first, last, moved_from in rows:
        end = mirror if last is None else last
        shown = [s for s in order if first <= s <= end]
        if not shown:
            continue
        run = Run(state, shown[0], shown[-1], moved_from)
        if runs and moved_from is None:
            before = runs[-1]
            adjacent = number[before.last] + 1 == number[run.first]
            if (
                adjacent
                and before.state.metadata.kind is state.metadata.kind
                and (before.state.same_content(state) and before.state.same_metadata(state))
            ):
                runs[-1] = Run(state, before.first, run.last, before.moved_from)
                continue
        runs.append(run)
    return runs
