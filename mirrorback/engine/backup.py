"""The backup, step by step: lock, survey, plan, build, settle, publish."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from mirrorback.engine import create, planned, resolve, room
from mirrorback.engine.build import Build, Crew
from mirrorback.engine.events import Events, Phase
from mirrorback.engine.revisable import LargeFiles
from mirrorback.engine.source import Source, require_source
from mirrorback.engine.survey import Counts, Survey
from mirrorback.engine.tally import Tally
from mirrorback.engine.unseen import Unseen
from mirrorback.errors import Refused, UsageError
from mirrorback.model import Change, ChangeKind, Kind, Snapshot, Summary
from mirrorback.plan import guards, naming
from mirrorback.plan.selection import Selection, read_patterns
from mirrorback.store import live, node, probe, publish, record, settings, system
from mirrorback.store.catalog import ABOVE_ROOT, Catalog, translated
from mirrorback.store.difference import Action
from mirrorback.store.lock import Lock
from mirrorback.store.record import NewSnapshot
from mirrorback.store.repository import SPOOL, Repository, drive_errors, make_reserve
from mirrorback.store.spool import Spool

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOST_HELPERS = 4
# From here on starting helper processes costs less than it gains.
COPIES_FOR_HELPERS = 3000
NAMES_FOR_HELPERS = 30_000


@dataclass(frozen=True)
class BackupOptions:
    """How a backup is to be made; sizes in bytes, patterns as in .gitignore."""

    init: bool = False
    dry_run: bool = False
    checksum: bool = False
    always: bool = False
    allow_empty_source: bool = False
    one_file_system: bool = False
    exclude: tuple[str, ...] = ()
    exclude_from: tuple[str, ...] = ()
    exclude_caches: bool = False
    exclude_if_present: tuple[str, ...] = ()
    exclude_larger_than: int | None = None
    delta_min_size: int | None = None
    large_files: str | None = None
    force: bool = False
    mode: int | None = None


@dataclass
class BackupResult:
    """What came of it; `changes` is filled by a dry run only."""

    summary: Summary
    changes: list[Change] = field(default_factory=list)


def instant(moment: datetime) -> int:
    """A moment as nanoseconds since 1970 UTC."""
    return (moment - EPOCH) // timedelta(microseconds=1) * 1000


def backup(
    source: str, repository: str, options: BackupOptions, now: datetime, events: Events
) -> BackupResult:
    """Make the mirror of `repository` equal to `source`, and keep what it was.

    `now` is aware, in local time.  Source entries that cannot be read are told
    to `events` and counted in the summary's `errors`.  Raises MirrorbackError.
    """
    began = time.monotonic()
    system.raise_descriptor_limit()
    selection = _selection(options)
    require_source(source)
    with drive_errors(), _opened(source, repository, options, now) as repo:
        run = _Run(source, repo, selection, options, now, events)
        result = run.dry() if options.dry_run else run.locked()
    result.summary.duration_s = round(time.monotonic() - began, 3)
    return result


def _selection(options: BackupOptions) -> Selection:
    patterns = list(options.exclude)
    for name in options.exclude_from:
        try:
            with open(name, encoding="utf-8", errors="surrogateescape") as file:
                patterns += read_patterns(file.read())
        except OSError as error:
            raise UsageError(f"--exclude-from {name} cannot be read: {error.strerror}") from error
    return Selection(
        patterns,
        options.exclude_larger_than,
        tuple(os.fsencode(name) for name in options.exclude_if_present),
        options.exclude_caches,
    )


@contextlib.contextmanager
def _opened(
    source: str, repository: str, options: BackupOptions, now: datetime
) -> Iterator[Repository]:
    path = os.path.abspath(os.fsencode(repository))
    inside = os.path.realpath(os.fsencode(source)) + b"/"
    if inside.startswith(os.path.realpath(path).rstrip(b"/") + b"/"):
        raise Refused("the source lies inside the repository; a backup of it would never end")
    if options.init and not create.exists(path):
        if options.dry_run:
            raise UsageError("--dry-run makes no repository: leave out --init, or --dry-run")
        create.create(
            repository,
            source,
            now=now,
            force=options.force,
            mode=0o700 if options.mode is None else options.mode,
            delta_min_size=options.delta_min_size,
            large_files=options.large_files,
        )
    repo = Repository.open(path)
    try:
        yield repo
    finally:
        repo.close()


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
            tempfile.TemporaryDirectory(prefix="mirrorback-") as folder,
        ):
            spool = Spool(catalog, os.path.join(os.fsencode(folder), SPOOL))
            try:
                with self._opened_source() as source:
                    counts, cost = self._look(source, catalog, spool)
                    changes = sorted(
                        planned.changes(catalog, spool), key=lambda change: change.path
                    )
                    return self._would(catalog, spool, counts, cost, changes)
            finally:
                spool.close()

    def locked(self) -> BackupResult:
        """The whole backup, as the only writer of the repository."""
        lock = Lock.take(self._repo.inner)
        try:
            catalog = Catalog.open(self._repo.inner_path(b"catalog.db"), write=True)
            with contextlib.closing(catalog), translated():
                self._events.phase(Phase.RECOVER)
                publish.recover(self._repo, catalog)
                if self._options.large_files == "reflink":
                    self._large_files.require()
                spool = Spool(catalog, self._repo.inner_path(SPOOL))
                try:
                    with self._opened_source() as source:
                        self._backup(source, catalog, spool)
                finally:
                    spool.close()
        finally:
            lock.release()
        return BackupResult(self._summary)

    @contextlib.contextmanager
    def _opened_source(self) -> Iterator[Source]:
        source = Source.open(
            self._source_path,
            self._repo,
            self._selection,
            one_file_system=self._options.one_file_system,
        )
        try:
            yield source
        finally:
            source.close()

    # --- the steps ---------------------------------------------------------------------

    def _backup(self, source: Source, catalog: Catalog, spool: Spool) -> None:
        snapshots = catalog.snapshots()
        mirror = snapshots[-1] if snapshots else None
        with catalog.held():
            made = self._make(source, catalog, spool, mirror)
        if made is None:
            assert mirror is not None
            self._nothing_new(catalog, spool, mirror)
        else:
            root, cost = made
            self._publish(catalog, spool, root, mirror, cost)

    def _make(
        self, source: Source, catalog: Catalog, spool: Spool, mirror: Snapshot | None
    ) -> tuple[int, resolve.Cost] | None:
        """Survey, plan and build; the inode number of the new snapshot's root and what it
        cost, None where there is nothing new."""
        counts, cost = self._look(source, catalog, spool)
        self._remember_settings()
        self._summary.dirs = counts.dirs
        self._summary.errors = counts.errors
        self._summary.files_stale = counts.stale
        wanted = mirror is None or self._options.always
        if not wanted and planned.nothing_new(spool):
            _spool_refreshes(spool)
            self._summary.files_unmodified = counts.files - counts.stale
            return None
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
        self._add_up(counts, build.tally, spool)
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
            return self._look_with(unseen, source, catalog, spool)

    def _look_with(
        self, unseen: Unseen, source: Source, catalog: Catalog, spool: Spool
    ) -> tuple[Counts, resolve.Cost]:
        self._events.phase(Phase.SURVEY)
        survey = Survey(
            source, catalog, spool, self._events, unseen, checksum=self._options.checksum
        )
        counts = survey.run()
        had = live.count_below(catalog, 1)[0:2] if counts.files + counts.dirs <= 1 else (0, 0)
        if sum(had) and not self._options.allow_empty_source:
            raise Refused(
                "the source is empty, and the mirror is not: is the source mounted?"
                " If it is meant, use --allow-empty-source"
            )
        self._events.phase(Phase.PLAN)
        large_files = None if self._options.dry_run else self._large_files
        cost = resolve.Resolver(source, catalog, spool, large_files, unseen).run()
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
        if mirror is not None and guards.mass_change(mirror.files, cost.removed, cost.changed):
            pin = (
                f"{guards.MASS_CHANGE} on {self._now:%Y-%m-%d}: {cost.removed:,} of"
                f" {mirror.files:,} files removed, {cost.changed:,} changed"
            )
            self._events.warning(
                f"{cost.removed:,} of {mirror.files:,} files were removed and {cost.changed:,}"
                f" changed; snapshot {mirror.name} is pinned until you `mirrorback unpin` it"
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

    # --- words and numbers -----------------------------------------------------------------

    def _add_up(self, counts: Counts, tally: Tally, spool: Spool) -> None:
        found = tally.verdicts
        summary = self._summary
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

    def _would(
        self,
        catalog: Catalog,
        spool: Spool,
        counts: Counts,
        cost: resolve.Cost,
        changes: list[Change],
    ) -> BackupResult:
        """What a backup would come to, without one."""
        summary = self._summary
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
        return BackupResult(summary, changes)

    def _remember_settings(self) -> None:
        """Options that are kept in the repository, and where the source is now."""
        self._repo.renew_readme()
        old = self._repo.settings
        options = self._options
        new = dataclasses.replace(
            old,
            source=os.path.realpath(self._source_path),
            delta_min_size=(
                old.delta_min_size if options.delta_min_size is None else options.delta_min_size
            ),
            large_files=options.large_files or old.large_files,
        )
        if new == old:
            return
        if new.source != old.source:
            self._events.warning(
                f"the source was {settings.escape(old.source)} before; this run goes on from there"
            )
        settings.write(self._repo.inner, new)
        self._repo.settings = new


def _removed(spool: Spool) -> int:
    rows = spool.fetch(
        "SELECT count(*) FROM spool.gone WHERE kind != 2 AND NOT replaced AND moved_to IS NULL"
    )
    return rows[0][0] if rows else 0


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
