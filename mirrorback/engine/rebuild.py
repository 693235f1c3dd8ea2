"""Rebuild: a catalog made anew from the folders alone, in the place of one that is lost."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from mirrorback.engine import digesting, doors, removable
from mirrorback.engine.events import Events, Phase
from mirrorback.engine.reopening import reopened
from mirrorback.errors import Damaged, Refused
from mirrorback.plan import dating, naming
from mirrorback.store import (
    former,
    gathering,
    inherited,
    presence,
    probe,
    publish,
    remains,
    replaced,
    repository,
    settings,
    system,
    tree,
)
from mirrorback.store.anew import NewCatalog, SnapshotRow, new_catalog
from mirrorback.store.audit import blamed
from mirrorback.store.catalog import Catalog, translated
from mirrorback.store.former import Former
from mirrorback.store.lock import Lock
from mirrorback.store.remains import Layout, Said
from mirrorback.store.repository import CATALOG, SPOOL, Repository, drive_errors

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
THREADS = 2
SECOND = 1_000_000_000  # ns


@dataclass(frozen=True)
class RebuildOptions:
    """How a catalog is to be made; `source` is for settings that are lost too."""

    dry_run: bool = False
    force: bool = False
    digests: bool = False
    source: str | None = None


@dataclass(frozen=True)
class Rebuilt:
    """What came of it."""

    snapshots: tuple[str, ...]
    versions: int
    files: int  # objects that are regular files
    deltas: int  # of these, reverse deltas
    problems: int  # told as errors
    kept: bytes | None = None  # the absolute path of the old catalog, where there was one


def rebuild(name: str, options: RebuildOptions, now: datetime, events: Events) -> Rebuilt:
    """Make a new catalog of a repository from its folders.

    `now` is aware, in local time, in whose zone the folders' names are read.  What is damaged is
    told to `events`, and counted.  Raises Refused where the catalog is sound, or newer than the
    program, and that was not forced; NoRepository, Damaged, Locked, NoSpace.
    """
    system.raise_descriptor_limit()
    with (
        drive_errors(),
        translated(),
        reopened(name, options.source, now, dry_run=options.dry_run) as repo,
        presence.felt(repo),
    ):
        work = _Rebuild(repo, options, now, events)
        if options.dry_run:
            return work.dry()
        lock = Lock.take(repo.inner)
        try:
            doors.warn(repo, events)
            return work.locked()
        finally:
            lock.release()


class _Rebuild:
    """One rebuild."""

    def __init__(
        self, repo: Repository, options: RebuildOptions, now: datetime, events: Events
    ) -> None:
        self._repo = repo
        self._options = options
        self._now = now
        self._events = events
        self._problems = 0
        self._deltas = 0

    def dry(self) -> Rebuilt:
        """Read all, and write nothing to the repository."""
        old = former.examine(self._repo)
        layout = remains.look(self._repo)
        if not old.pending:
            self._guard(old, layout)
        with tempfile.TemporaryDirectory(prefix="mirrorback-") as folder:
            inside = os.fsencode(folder)
            return self._made(
                layout, old, os.path.join(inside, CATALOG), os.path.join(inside, SPOOL)
            )

    def locked(self) -> Rebuilt:
        """All of it, as the only writer of the repository."""
        self._events.phase(Phase.RECOVER)
        repo, stamp = self._repo, f"{self._now:%Y-%m-%d-%H%M%S}"
        old = former.examine(repo)
        if not self._recovered(old):
            layout = self._settled()
        else:
            layout = remains.look(repo)
        self._guard(old, layout)
        new = repo.inner_path(replaced.NEW)
        try:
            made = self._made(layout, old, new, repo.inner_path(SPOOL))
            kept = replaced.take_place(repo, stamp)
        except BaseException:
            with contextlib.suppress(OSError):
                replaced.discard(repo.inner)
            raise
        self._tidy()
        if kept is None:
            return made
        return dataclasses.replace(made, kept=repo.inner_path(kept))

    # --- the old catalog, and what a run that was cut has left ---------------------------------

    def _guard(self, old: Former, layout: Layout) -> None:
        """Raises Refused where a new catalog would know less than the old one."""
        if self._options.force:
            return
        if old.newer:
            raise Refused(
                "the catalog has a newer format than this mirrorback knows: use a newer one; with"
                " --force it is kept aside, and one of the old format is made"
            )
        dated = {place.name for place in layout.dated if place.name is not None}
        if old.fault is None and former.agrees(old, dated, layout.mirror is not None):
            raise Refused(
                "the catalog is sound, and knows more than the folders: digests, exact times, what"
                " the drive cannot hold; --force makes a new one all the same"
            )

    def _recovered(self, old: Former) -> bool:
        """Whether a catalog that is sound has brought the folders in order."""
        if old.fault is not None:
            return False
        try:
            path = self._repo.inner_path(CATALOG)
            catalog = Catalog.open(path, write=True)
            with contextlib.closing(catalog), translated(), blamed(catalog):
                publish.recover(self._repo, catalog, removable.teller(self._events))
        except Damaged:
            return False  # as in a repository that was copied while a publication was cut
        return True

    def _settled(self) -> Layout:
        """The same by the folders alone."""
        repo = self._repo
        layout = remains.settle(repo, remains.look(repo))
        if not layout.committed or layout.mirror is None:
            return layout
        from mirrorback.store import unpatched

        changes = unpatched.waiting(repo)
        if changes:
            from mirrorback.engine.past_file import PastFile

            def lost(name: bytes) -> None:
                self._error(
                    "holds changes to a large file of the mirror, which is not found or damaged",
                    b".mirrorback/redo/" + name,
                )

            unpatched.complete(
                repo,
                changes,
                [place.held for place in layout.dated],
                lambda fd, delta: PastFile(fd, [delta], changing=True).pieces(),
                lost,
            )
        return layout

    def _tidy(self) -> None:
        """What every run does first, with the new catalog."""
        repo = self._repo
        catalog = Catalog.open(repo.inner_path(CATALOG), write=True)
        with contextlib.closing(catalog), translated():
            publish.recover(repo, catalog, removable.teller(self._events))
        repo.renew_readme()
        repository.make_reserve(repo.inner)

    # --- the new one ----------------------------------------------------------------------------

    def _made(self, layout: Layout, old: Former, path: bytes, runs: bytes) -> Rebuilt:
        """Make the new catalog at `path`, with `runs` as a file to work with."""
        for odd in layout.odd:
            self._events.warning("has the name of a snapshot, but is no folder", odd)
        ordered, said = self._ordered(layout, old)
        tops = [partial(self._top, held) for _row, held in ordered]
        self._events.phase(Phase.REBUILD)
        with new_catalog(path, runs, len(ordered)) as new:
            files = gathering.ShownFiles(tops, new)
            with contextlib.closing(files):
                if ordered:
                    self._gather(new, tops, [row.name for row, _held in ordered])
                new.gathered()
                self._judge(new, files)
                new.finish([row for row, _held in ordered])
                if not self._options.dry_run:
                    self._inherit(new, old, [row.name for row, _held in ordered])
                if self._options.digests:
                    rotational = system.is_rotational(self._repo.path)
                    threads = 1 if rotational else THREADS
                    self._problems += digesting.take_all(new, files, self._events, threads=threads)
            versions, count = new.db.execute(
                "SELECT (SELECT count(*) FROM entry), (SELECT count(*) FROM object WHERE kind = 1)"
            ).fetchone()
        if said is not None and not self._options.dry_run:
            remains.remember(self._repo, said)
        names = tuple(row.name for row, _held in ordered)
        return Rebuilt(names, versions, count, self._deltas, self._problems)

    def _inherit(self, new: NewCatalog, old: Former, names: list[str]) -> None:
        """Take over what the old catalog says for certain of the snapshots that it knew."""
        known = {row.name: row.id for row in old.snapshots}
        moments = {n: known[name] for n, name in enumerate(names, 1) if name in known}
        if moments and old.readable:
            inherited.inherit(new, self._repo.inner_path(CATALOG), moments)

    def _gather(self, new: NewCatalog, tops: Sequence[Callable[[], int]], names: list[str]) -> None:
        def trouble(snapshot: int, path: bytes, reason: str) -> None:
            self._error(f"cannot be read: {reason}", tree.join(names[snapshot - 1].encode(), path))

        gathering.Gatherer(
            tops, new, trouble, self._events.advance, gathering.numbers(tops[-1])
        ).run()
        self._tell_losses()

    def _judge(self, new: NewCatalog, files: gathering.ShownFiles) -> None:
        if new.db.execute("SELECT 1 FROM runs.suspect LIMIT 1").fetchone() is None:
            return
        from mirrorback.store.suspects import Judge

        def told(_snapshot: int, directory: int, name: bytes, reason: str) -> None:
            self._error(reason, tree.join(files.path(directory), name))

        judge = Judge(new, files.open, told)
        judge.run()
        self._deltas = judge.count

    def _error(self, message: str, path: bytes) -> None:
        self._problems += 1
        self._events.error(message, path)

    def _tell_losses(self) -> None:
        """Say once what the drive could not hold, which the old catalog alone knew."""
        if self._options.dry_run:
            return
        drive = probe.probe(self._repo.inner_path(b""))
        lost = [
            what
            for what, held in (
                ("owners", drive.owners),
                ("extended attributes", drive.xattrs),
                ("exact times", drive.time_grain == 1),
            )
            if not held
        ]
        if lost:
            self._events.warning(
                f"{' and '.join(lost)} may not all be known any more: the drive cannot hold them"
                " for this user; the next backup learns those of the mirror anew"
            )

    # --- names and times ------------------------------------------------------------------------

    def _ordered(
        self, layout: Layout, old: Former
    ) -> tuple[list[tuple[SnapshotRow, bytes]], Said | None]:
        """The snapshots from the oldest to the newest, each with the path of its folder; and what
        is to be remembered of the mirror, where that was lost."""
        known = {row.name: row for row in old.snapshots}
        rows: dict[dating.Dated, tuple[SnapshotRow, bytes]] = {}
        for place in layout.dated:
            assert place.name is not None
            root, born = self._root(place.path)
            found = dating.dated(place.name, self._now.tzinfo or UTC, born)
            if found is None:
                self._events.warning(
                    "has the name of a snapshot, but of no day; it is left alone", place.path
                )
                continue
            rows[found] = _row(found, root, known), place.path
        ordered = dating.in_order(rows)
        if all(one.name in known for one in ordered):
            ordered.sort(key=lambda one: known[one.name].id)  # it has seen them come
        result = [rows[one] for one in ordered]
        if layout.mirror is None:
            return result, None
        root, _born = self._root(layout.mirror.path)
        said = layout.said or self._said_before(old, {one.name for one in ordered})
        if said is None:
            said = self._guess(layout.mirror.path, [row for row, _path in result])
        mirror = _row(dating.Dated(said.name, said.time, said.offset), root, known)
        result.append((mirror, layout.mirror.path))
        told = Said(said.name, said.time, said.offset, root)
        return result, None if layout.said == told else told

    def _said_before(self, old: Former, dated: set[str]) -> Said | None:
        """The mirror as the old catalog had it."""
        if old.fault is not None or not old.snapshots or old.snapshots[-1].name in dated:
            return None
        row = old.snapshots[-1]
        return Said(row.name, row.time, row.offset, None)

    def _guess(self, path: bytes, older: list[SnapshotRow]) -> Said:
        """When the mirror was made, by its folder: after all others, and not in the future."""
        changed = os.stat(os.path.join(self._repo.path, path)).st_ctime_ns
        changed = min(changed, (self._now - EPOCH) // timedelta(microseconds=1) * 1000)
        if older:
            changed = max(changed, max(row.time for row in older) + SECOND)
        when = (EPOCH + timedelta(microseconds=changed // 1000)).astimezone(self._now.tzinfo)
        name = naming.folder_name(when, {row.name for row in older})
        offset = when.utcoffset() or timedelta()
        self._events.warning(
            f"nobody knows when the mirror was made; {settings.escape(name.encode())} is assumed"
        )
        return Said(name, changed, int(offset.total_seconds()), None)

    def _root(self, path: bytes) -> tuple[int, int | None]:
        """Inode number of a folder, and when it was made."""
        fd = self._top(path)
        try:
            return os.fstat(fd).st_ino, system.birth_time(fd, b"")
        finally:
            os.close(fd)

    def _top(self, path: bytes) -> int:
        cursor = tree.Cursor(self._repo.fd)
        try:
            return os.dup(cursor.open(path))
        finally:
            cursor.close()


def _row(found: dating.Dated, root: int, known: dict[str, former.FormerRow]) -> SnapshotRow:
    """A snapshot, with what an old catalog knew of it."""
    before = known.get(found.name)
    if before is None:
        return SnapshotRow(found.name, found.time, found.offset, root)
    return SnapshotRow(
        found.name, before.time, before.offset, root, before.incomplete, before.pinned
    )
