"""Removal: snapshots go, one after another, also from a drive that has no room left.

The one way for `delete`, `prune` and a backup that thins.  The oldest go first: nothing depends
on them.  Where a drive is full, the reserve is given up; a snapshot that still cannot go, since
what other snapshots need of it would have to be written anew, is tried again when others have
made room.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from mirrorback.engine import doors, removable
from mirrorback.engine.events import Events, Phase
from mirrorback.engine.history import History
from mirrorback.engine.space import Freed, Space
from mirrorback.errors import Damaged, MirrorbackError, NoSpace, Refused
from mirrorback.model import Snapshot
from mirrorback.store import past, presence, probe, publish, supersede, system
from mirrorback.store.audit import blamed
from mirrorback.store.catalog import DELETING, Catalog, Unopened, translated
from mirrorback.store.in_use import InUse
from mirrorback.store.lock import Lock
from mirrorback.store.record import Replaced
from mirrorback.store.repository import (
    CATALOG,
    TRASH,
    Repository,
    drive_errors,
    give_up_reserve,
    make_reserve,
)

if TYPE_CHECKING:
    from mirrorback.store.clearing_helper import Helpers

T = TypeVar("T")
HELPED = 20_000  # files to be removed, from which it pays to start processes for it


class Irremovable(Damaged):
    """What other snapshots need of one cannot be read: it stays."""


@dataclass(frozen=True)
class Fate:
    """What becomes of a snapshot, why, and how many bytes that frees, at least none."""

    name: str
    keep: bool
    reasons: tuple[str, ...]
    frees: int = 0
    estimated: bool = False  # that number

    @classmethod
    def of_going(cls, name: str, reasons: tuple[str, ...], freed: Freed | None) -> Fate:
        """That of one that goes."""
        freed = freed or Freed(0)
        return cls(name, False, reasons, max(0, freed.bytes), freed.estimated)


@contextlib.contextmanager
def opened(path: str) -> Iterator[Repository]:
    """A repository; errors of the drive become ours.  Raises NoRepository, Damaged."""
    with drive_errors():
        repo = Repository.open(os.path.abspath(os.fsencode(path)))
        try:
            with presence.felt(repo):
                yield repo
        finally:
            repo.close()


@contextlib.contextmanager
def reading(repo: Repository) -> Iterator[Catalog]:
    """The catalog, to say what would be."""
    catalog = Catalog.open(repo.inner_path(CATALOG))
    with contextlib.closing(catalog), translated(), blamed(catalog):
        yield catalog


@contextlib.contextmanager
def removing(
    repo: Repository,
    now: datetime,
    events: Events,
    patience: float = 0.0,
    *,
    even_damaged: bool = False,
) -> Iterator[Removal]:
    """What removes snapshots, as the only writer of the repository.  Raises Locked."""
    lock = Lock.take(repo.inner)
    try:
        doors.warn(repo, events)
        catalog = Catalog.open(repo.inner_path(CATALOG), write=True)
        removal = Removal(repo, catalog, now, events, patience, even_damaged=even_damaged)
        with contextlib.closing(catalog), translated(), blamed(catalog), removal as it:
            yield it
            it.finish()
    finally:
        lock.release()


def freed_by(history: History, snapshots: Sequence[Snapshot]) -> list[Freed]:
    """What each of some snapshots frees when they go one after the other: less than nothing
    where what depends on it becomes larger than it was."""
    if not snapshots:
        return []
    return Space(history).one_by_one([[snapshot.id] for snapshot in snapshots])


class Removal:
    """Removes snapshots of a repository that this process has locked.  A context manager: at
    its end the reserve is set aside again."""

    def __init__(
        self,
        repo: Repository,
        catalog: Catalog,
        now: datetime,
        events: Events,
        patience: float = 0.0,
        *,
        even_damaged: bool = False,
    ) -> None:
        """With so many seconds of patience for who reads a snapshot; `even_damaged` ones go on
        which versions depend that cannot be read."""
        self.repo = repo
        self.catalog = catalog
        self.events = events
        self.left: dict[str, str] = {}  # what stays, by its name, though it was to go: why
        self.freed: dict[int, Freed] = {}  # by each that has gone, by its id
        self.damage: Irremovable | None = None  # the first for which one had to stay
        self._tell = removable.teller(events)
        self._patience = patience
        self._even_damaged = even_damaged
        self._history = History(repo, catalog, now, b"/")
        self._spare = self._sparable()
        self._recovered = True
        self._helpers: Helpers | None = None

    def __enter__(self) -> Removal:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._history.let_go()
        if self._helpers is not None:
            self._helpers.close()
        make_reserve(self.repo.inner)

    def _sparable(self) -> list[Callable[[], None]]:
        """What a full drive can be spared, the least loss first."""
        return [
            lambda: give_up_reserve(self.repo.inner),
            lambda: publish.empty_trash(self.repo, salvage=True),
            lambda: supersede.drop_signatures(self.repo),
        ]

    def settle(self) -> None:
        """Set the reserve aside again, before free space is measured."""
        make_reserve(self.repo.inner)
        self._spare = self._sparable()

    def recover(self) -> None:
        """Complete what an earlier run has begun; where nothing but room is missing for that,
        it waits for `finish`."""
        self.events.phase(Phase.RECOVER)
        self.insist(self._recover)

    def _recover(self) -> None:
        self._recovered = True
        try:
            publish.recover(self.repo, self.catalog, self._tell)
        except OSError as error:
            if not _is_full(error) or not publish.waits_for_room(self.repo, self.catalog):
                raise
            self._recovered = False

    def remove(self, snapshots: Sequence[Snapshot]) -> None:
        """Remove snapshots; what each has `freed` is free when it returns.  Killed at any
        point, the next command that takes the lock goes on with it.
        One that is being read, or is not the snapshot's folder any more, is `left`, and so is
        one on which others depend, where that cannot be read: then there is `damage`.

        Raises NoSpace where some cannot go for want of room, all others being gone.
        """
        waiting = sorted(snapshots, key=lambda one: one.id)
        self._have_helpers(waiting)
        frees = self.predicted(waiting)
        self.events.phase(Phase.DELETE, sum(snapshot.files for snapshot in waiting))
        while waiting:
            later: list[Snapshot] = []
            for snapshot in waiting:
                try:
                    failure = self._tried(snapshot)
                except (InUse, Refused) as error:
                    self._leave(snapshot, error)
                    continue
                except Irremovable as error:
                    self.left[snapshot.name] = str(error)
                    self.damage = self.damage or error
                    continue
                if failure is None:
                    self.freed[snapshot.id] = frees[snapshot.id]
                elif self._is_going(snapshot):
                    raise failure
                else:
                    later.append(snapshot)
            if later and len(later) == len(waiting):
                raise NoSpace(
                    f"{later[0].name} cannot be removed: what other snapshots need of it has to be"
                    " written anew before, and the drive has no room for that"
                ) from failure
            waiting = later

    def _have_helpers(self, snapshots: Sequence[Snapshot]) -> None:
        """Let processes start where there is much to remove, and more than one can do it."""
        if self._helpers is not None or sum(one.files for one in snapshots) < HELPED:
            return
        if (os.cpu_count() or 1) > 1 and not system.is_rotational(self.repo.path):
            from mirrorback.store.clearing_helper import Helpers

            trash = self.repo.open_inner(TRASH)
            try:
                self._helpers = Helpers(trash)
            finally:
                os.close(trash)

    def predicted(self, snapshots: Sequence[Snapshot]) -> dict[int, Freed]:
        """What each will free, by its id, when they go in this order; nothing where the drive
        cannot be asked, which must not keep it."""
        try:
            self._history.refreshed()
            sizes = freed_by(self._history, snapshots)
        except MirrorbackError:
            sizes = [Freed(0, estimated=True)] * len(snapshots)
        finally:
            self._history.let_go()
        return {one.id: size for one, size in zip(snapshots, sizes, strict=True)}

    def leave_read(self, snapshots: Sequence[Snapshot]) -> bool:
        """Leave those of some snapshots that are being read; whether there are any."""
        before = len(self.left)
        for snapshot in snapshots:
            try:
                removable.require_unread(self.repo, snapshot, self._patience)
            except InUse as error:
                self._leave(snapshot, error)
        return len(self.left) > before

    def _leave(self, snapshot: Snapshot, why: InUse | Refused) -> None:
        self.left[snapshot.name] = str(why)
        self.events.warning(str(why))

    def remaining(self) -> list[Snapshot]:
        """All snapshots there are, those that were left as if pinned."""
        return [
            replace(one, pinned=self.left[one.name]) if one.name in self.left else one
            for one in self.catalog.snapshots()
        ]

    def told(self, fates: Sequence[Fate]) -> list[Fate]:
        """Fates, as they have become where something was left."""
        return [
            Fate(fate.name, True, (self.left[fate.name],)) if fate.name in self.left else fate
            for fate in fates
        ]

    def finish(self) -> None:
        """Complete what had to wait for room."""
        if not self._recovered:
            publish.recover(self.repo, self.catalog, self._tell)
            self._recovered = True

    def _tried(self, snapshot: Snapshot) -> NoSpace | None:
        """Remove one; the error where there is no room for that."""
        try:
            self.insist(lambda: self._remove(snapshot))
        except NoSpace as error:
            return error
        return None

    def _remove(self, snapshot: Snapshot) -> None:
        if not self._is_there(snapshot):
            return  # an attempt before this one has come so far
        if self._is_going(snapshot):
            # It was cut short by a full drive, after its commit.
            publish.finish_removal(
                self.repo,
                self.catalog,
                snapshot.id,
                snapshot.name,
                self._tell,
                self.events.advance,
                self._helpers,
                again=True,
            )
            return
        about = removable.require_folder(self.repo, self.catalog, snapshot)
        removable.require_unread(self.repo, snapshot, self._patience)
        publish.remove_snapshot(
            self.repo,
            self.catalog,
            snapshot.id,
            snapshot.name,
            self._rebased(snapshot),
            self._tell,
            self.events.advance,
            self._helpers,
        )
        if about is not None:
            self.events.warning(f"{snapshot.name} was deleted; {about}")

    def _is_there(self, snapshot: Snapshot) -> bool:
        found = self.catalog.db.execute("SELECT 1 FROM snapshot WHERE id = ?", (snapshot.id,))
        return found.fetchone() is not None

    def _is_going(self, snapshot: Snapshot) -> bool:
        return any(number == snapshot.id for number, *_rest in self.catalog.in_state(DELETING))

    def _rebased(self, snapshot: Snapshot) -> list[Replaced]:
        """The deltas that cannot do without a snapshot, written anew (`rebase`); what damaged
        ones would lose with it is set apart."""
        if not past.any_deltas(self.catalog):
            return []
        from mirrorback.engine.bereft import keep
        from mirrorback.engine.rebase import rebase

        self._history.refreshed()
        try:
            replaced, lost = rebase(self._history, snapshot.id)
        except Damaged as error:
            raise Irremovable(
                f"{snapshot.name} stays, since older versions of large files depend on it: {error}"
            ) from error
        if any(one.needed and not one.itself for one in lost) and not self._even_damaged:
            supersede.clear_redo(self.repo, self.catalog)
            raise Irremovable(
                f"{snapshot.name} stays, since an older version of a large file that is damaged"
                " depends on it: `mirrorback repair` mends what it can after `mirrorback verify`;"
                " `mirrorback delete --even-damaged` does without that version"
            )
        for one in lost:
            keep(self._history, snapshot, one, self.events)
        return replaced

    def insist(self, act: Callable[[], T]) -> T:
        """Do something that may need room; again, where there is none, without what can be
        spared.  Raises NoSpace."""
        while True:
            try:
                return act()
            except (NoSpace, Unopened, OSError) as error:
                if not _is_full(error) and not self._has_no_inode(error):
                    raise
                if not self._spare:
                    raise NoSpace("the drive is full, and nothing is left to be spared") from error
            self._spare.pop(0)()

    def _has_no_inode(self, error: Exception) -> bool:
        """Whether a drive without an inode left is why SQLite could not open its journal."""
        return isinstance(error, Unopened) and probe.free_space(self.repo.fd)[1] == 0


def _is_full(error: Exception) -> bool:
    return isinstance(error, NoSpace) or (
        isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    )
