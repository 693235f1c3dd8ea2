"""The backup, step by step: lock, survey, plan, build, settle, publish."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mirrorback.engine import (
    doors,
    freezing,
    lost_mirror,
    planned,
    removable,
    resolve,
    room,
    totals,
)
from mirrorback.engine.backup_options import BackupOptions, opened, remember, selected
from mirrorback.engine.build import Build, Crew
from mirrorback.engine.events import Events, Phase
from mirrorback.engine.pins import unpinning
from mirrorback.engine.revisable import LargeFiles
from mirrorback.engine.source import Source, require_source
from mirrorback.engine.survey import Counts, Survey
from mirrorback.engine.suspects import Suspects
from mirrorback.engine.thinning import NightlyThinning
from mirrorback.engine.unseen import Unseen
from mirrorback.errors import Refused
from mirrorback.model import Change, Snapshot, Summary
from mirrorback.plan import guards, naming
from mirrorback.plan.selection import Selection
from mirrorback.plan.spans import instant
from mirrorback.store import live, node, presence, probe, publish, record, system
from mirrorback.store.audit import blamed
from mirrorback.store.catalog import ABOVE_ROOT, Catalog, translated
from mirrorback.store.difference import Action
from mirrorback.store.lock import Lock
from mirrorback.store.nameable import Nameable
from mirrorback.store.record import NewSnapshot
from mirrorback.store.repository import SPOOL, TRASH, Repository, drive_errors, make_reserve
from mirrorback.store.spool import Spool

MOST_HELPERS = 4
# From here on starting helper processes costs less than it gains.
COPIES_FOR_HELPERS = 3000
NAMES_FOR_HELPERS = 30_000


@dataclass
class BackupResult:
    """What came of it; `changes` is filled by a dry run only."""

    summary: Summary
    changes: list[Change] = field(default_factory=list)


def backup(
    source: str, repository: str, options: BackupOptions, now: datetime, events: Events
) -> BackupResult:
    """Make the mirror of `repository` equal to `source`, and keep what it was.

    `now` is aware, in local time.  Source entries that cannot be read are told
    to `events` and counted in the summary's `errors`.  Raises MirrorbackError.
    """
    began = time.monotonic()
    system.raise_descriptor_limit()
    selection = selected(options)
    require_source(source)
    with drive_errors(), opened(source, repository, options, now) as repo, presence.felt(repo):
        run = _Run(source, repo, selection, options, now, events)
        result = run.dry() if options.dry_run else run.locked()
    result.summary.duration_s = round(time.monotonic() - began, 3)
    return result


class _Run:
    """One backup of one repository."""

    def __init__(
        self,
        source: str,
        repo: Repository,
        selection: Selection,
        options: BackupOptions,
        now: datetime,
        events: Events,
    ) -> None:
        self._source_path = os.path.abspath(os.fsencode(source))
        self._repo = repo
        self._selection = selection
        self._options = options
        self._now = now
        self._events = events
        self._summary = Summary()
        self._mass_change = False  # this run has pinned a snapshot for one
        self._thinning = NightlyThinning(repo, options.policy, now, events)
        least = options.delta_min_size
        self._large_files = LargeFiles(
            options.large_files or repo.settings.large_files,
            repo.settings.delta_min_size if least is None else least,
            lambda: probe.probe(repo.inner_path(b"")).reflinks,
        )

    def dry(self) -> BackupResult:
        """Survey and plan; write nothing to the repository."""
        catalog = Catalog.open(self._repo.inner_path(b"catalog.db"))
        with (
            contextlib.closing(catalog),
            translated(),
            blamed(catalog),
            _spool_elsewhere() as path,
        ):
            spool = Spool(catalog, path)
            try:
                with self._opened_source() as source:
                    counts, cost = self._look(source, catalog, spool)
                    changes = sorted(
                        planned.changes(catalog, spool), key=lambda change: change.path
                    )
                    totals.of_plan(self._summary, catalog, spool, counts, cost)
                    self._would_thin(catalog, cost)
                    self._note_removed()
                    return BackupResult(self._summary, changes)
            finally:
                spool.close()

    def locked(self) -> BackupResult:
        """The whole backup, as the only writer of the repository."""
        lock = Lock.take(self._repo.inner)
        try:
            if self._options.mode is not None:
                with contextlib.suppress(OSError):  # as at its making: a drive may hold none
                    os.fchmod(self._repo.fd, self._options.mode)
            doors.warn(self._repo, self._events, self._options.mode)
            catalog = Catalog.open(self._repo.inner_path(b"catalog.db"), write=True)
            with contextlib.closing(catalog), translated(), blamed(catalog):
                self._events.phase(Phase.RECOVER)
                publish.recover(self._repo, catalog, removable.teller(self._events))
                freezing.remove_left(self._repo, self._source_path, self._events)
                if self._options.large_files == "reflink":
                    self._large_files.require()
                with self._spool_at() as path:
                    spool = Spool(catalog, path)
                    try:
                        with self._opened_source() as source:
                            self._backup(source, catalog, spool)
                    finally:
                        spool.close()
                if not self._mass_change:  # of which has been told that it holds all thinning
                    self._thinning.after(catalog)
        finally:
            lock.release()
        self._note_removed()
        return BackupResult(self._summary)

    def _spool_at(self) -> contextlib.AbstractContextManager[bytes]:
        """Where the spool may be written: not on a drive so full that room has to be made."""
        if room.is_full(self._repo):
            return _spool_elsewhere()
        return contextlib.nullcontext(self._repo.inner_path(SPOOL))

    @contextlib.contextmanager
    def _opened_source(self) -> Iterator[Source]:
        repo, path, selection = self._repo, self._source_path, self._selection
        wanted, dry_run = self._options.source_snapshot is not None, self._options.dry_run
        one = self._options.one_file_system
        with freezing.frozen_if(wanted, repo, path, self._events, dry_run=dry_run) as freeze:
            source = Source.open(path, repo, selection, one_file_system=one, freeze=freeze)
            with contextlib.closing(source):
                yield source

    # --- the steps ---------------------------------------------------------------------

    def _backup(self, source: Source, catalog: Catalog, spool: Spool) -> None:
        snapshots = catalog.snapshots()
        mirror = snapshots[-1] if snapshots else None
        lost = lost_mirror.bring_back(self._repo, catalog, self._events)
        with catalog.held():
            made = self._make(source, catalog, spool, mirror, lost=lost)
        if made is None:
            assert mirror is not None
            self._nothing_new(catalog, spool, mirror)
        else:
            root, cost = made
            self._publish(catalog, spool, root, mirror, cost)

    def _make(
        self,
        source: Source,
        catalog: Catalog,
        spool: Spool,
        mirror: Snapshot | None,
        *,
        lost: bool,
    ) -> tuple[int, resolve.Cost] | None:
        """Survey, plan and build; the inode number of the new snapshot's root and what it
        cost, None where there is nothing new.  `lost`: the mirror has no folder."""
        counts, cost = self._look(source, catalog, spool)
        if mirror is not None and lost:
            cost = lost_mirror.with_mirror(cost, mirror)
        remember(self._repo, options=self._options, source=self._source_path, events=self._events)
        self._summary.dirs = counts.dirs
        self._summary.errors = counts.errors
        self._summary.files_stale = counts.stale
        wanted = mirror is None or lost or self._options.always
        if not wanted and planned.nothing_new(spool):
            _spool_refreshes(spool)
            self._summary.files_unmodified = counts.files - counts.stale
            return None
        if mirror is not None:
            self._thinning.make_room(
                catalog,
                lambda: room.fits(self._repo, counts, cost),
                lambda: room.missing(self._repo, counts, cost),
                held=_is_mass_change(mirror, cost),
            )
        room.require(self._repo, counts, cost)
        if self._events.wants_changes:
            for change in planned.changes(catalog, spool):
                self._events.change(change)
        not_kept = node.NotKept()
        self._events.phase(Phase.BUILD, counts.files, cost.bytes + cost.revised)
        large = self._large_files
        build = Build(self._repo, catalog, spool, source, self._events, not_kept, large)
        root = build.run(self._crew(counts, cost))
        room.require_for_changes(self._repo, build.tally)
        totals.of_build(self._summary, counts, build.tally, spool)
        self._summary.not_kept = not_kept.counts()
        if not wanted and planned.nothing_came(spool):
            # All that differs could not be read: it is no state of its own.
            publish.forget(self._repo)
            return None
        return root, cost

    def _nothing_new(self, catalog: Catalog, spool: Spool, mirror: Snapshot) -> None:
        """Note that the mirror is what the source is, as far as it can be read."""
        record.checked(catalog, spool, instant(self._now))
        self._summary.snapshot = mirror.name
        self._summary.unchanged = True
        publish.empty_trash(self._repo, salvage=True)

    def _crew(self, counts: Counts, cost: resolve.Cost) -> Crew:
        """Who builds.  Where the drive has a head to move, one copies at a time."""
        rotational = system.is_rotational(self._repo.path)
        if cost.files < COPIES_FOR_HELPERS and counts.files < NAMES_FOR_HELPERS:
            return Crew(1 if rotational else 2)
        copying = cost.files >= COPIES_FOR_HELPERS  # one more than can run: some wait for disks
        helpers = 1 if rotational else min(copying + (os.cpu_count() or 1), MOST_HELPERS)
        # Links are made so fast that the next orders have to be ready when one is done.
        return Crew(helpers + 1 if copying else 2 * helpers + 1, helpers)

    def _look(self, source: Source, catalog: Catalog, spool: Spool) -> tuple[Counts, resolve.Cost]:
        """Survey and plan, with the guards that look at what was found."""
        with contextlib.closing(Unseen(self._repo, catalog, spool)) as unseen:
            if self._options.dry_run:
                return self._look_with(unseen, source, catalog, spool, None)
            folder = self._repo.open_inner(TRASH)
            try:
                return self._look_with(unseen, source, catalog, spool, Nameable(folder))
            finally:
                os.close(folder)

    def _look_with(
        self,
        unseen: Unseen,
        source: Source,
        catalog: Catalog,
        spool: Spool,
        names: Nameable | None,
    ) -> tuple[Counts, resolve.Cost]:
        self._events.phase(Phase.SURVEY)
        suspects = Suspects.of(self._repo, catalog)
        checksum = self._options.checksum
        survey = Survey(
            source,
            catalog,
            spool,
            self._events,
            unseen,
            checksum=checksum,
            suspects=suspects,
            names=names,
        )
        counts = survey.run()
        freezing.require_whole(source, self._repo.path, meant=self._options.one_file_system)
        had = live.count_below(catalog, 1)[0:2] if counts.files + counts.dirs <= 1 else (0, 0)
        if sum(had) and not self._options.allow_empty_source:
            raise Refused(
                "the source is empty, and the mirror is not: is the source mounted?"
                " If it is meant, use --allow-empty-source"
            )
        self._events.phase(Phase.PLAN)
        large_files = None if self._options.dry_run else self._large_files
        cost = resolve.Resolver(source, catalog, spool, large_files, unseen, suspects).run()
        counts.files += cost.kept
        counts.stale += cost.kept
        return counts, cost

    def _publish(
        self,
        catalog: Catalog,
        spool: Spool,
        root: int,
        mirror: Snapshot | None,
        cost: resolve.Cost,
    ) -> None:
        with contextlib.closing(os.scandir(self._repo.fd)) as entries:
            taken = {entry.name for entry in entries} | {s.name for s in catalog.snapshots()}
        pin = None
        if mirror is not None and _is_mass_change(mirror, cost):
            self._mass_change = True
            pin = guards.pin_by_mass_change(
                mirror.pinned,
                f"on {self._now:%Y-%m-%d}: {cost.removed:,} of {mirror.files:,} files removed,"
                f" {cost.changed:,} changed",
            )
            self._events.warning(
                f"{cost.removed:,} of {mirror.files:,} files were removed and {cost.changed:,}"
                f" changed; snapshot {mirror.name} is pinned, and no snapshot is thinned, until you"
                f" `{unpinning(self._repo.path, mirror.name)}`"
            )
        offset = self._now.utcoffset() or timedelta()
        new = NewSnapshot(
            name=naming.folder_name(self._now, taken),
            time=instant(self._now),
            offset=int(offset.total_seconds()),
            root=root,
            incomplete=self._summary.errors > 0,
            pin_previous=pin,
        )
        self._events.phase(Phase.PUBLISH)
        publish.publish(self._repo, catalog, spool, new)
        self._summary.snapshot = new.name
        publish.empty_trash(self._repo, salvage=True)
        make_reserve(self._repo.inner)

    def _would_thin(self, catalog: Catalog, cost: resolve.Cost) -> None:
        snapshots = catalog.snapshots()
        if snapshots and not _is_mass_change(snapshots[-1], cost):
            self._thinning.would(
                catalog,
                new=self._options.always or not self._summary.unchanged,
                incomplete=self._summary.errors > 0,
                needed=cost.bytes,
            )

    def _note_removed(self) -> None:
        removed = self._thinning.removed
        self._summary.snapshots_removed = [fate.name for fate in removed]
        self._summary.bytes_freed = sum(fate.frees for fate in removed)


@contextlib.contextmanager
def _spool_elsewhere() -> Iterator[bytes]:
    """A place for the spool that is not on the drive."""
    with tempfile.TemporaryDirectory(prefix="mirrorback-") as folder:
        yield os.path.join(os.fsencode(folder), SPOOL)


def _is_mass_change(mirror: Snapshot, cost: resolve.Cost) -> bool:
    return guards.mass_change(mirror.files, cost.removed, cost.changed)


def _spool_refreshes(spool: Spool) -> None:
    """Where nothing differs but what the source says of its inodes, note that."""
    spool.update(
        "INSERT OR REPLACE INTO spool.refresh SELECT object, ino,"
        " CASE WHEN settled THEN ctime ELSE -1 END, nlink FROM spool.change"
        " WHERE same_metadata = 1 AND object IS NOT NULL"
    )
    spool.update(
        "INSERT OR REPLACE INTO spool.stale SELECT entry, action = ? FROM spool.change"
        " WHERE entry IS NOT NULL AND dir != ?",
        (Action.KEEP, ABOVE_ROOT),
    )
