"""Restore: a state of the source, or a part of it, exactly as it was.

Metadata comes from the catalog, which is exact also where the drive is not;
bytes come from the drive and are checked against their digest.  Every file is
written under a temporary name and renamed into place.  What stands in the way
is kept beside it, unless that is not wanted.  When it ends, all is durable.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mirrorback.engine.deciding import Decider
from mirrorback.engine.disks import Disks
from mirrorback.engine.events import Events, Phase
from mirrorback.engine.history import History
from mirrorback.engine.keeping import Keeping
from mirrorback.engine.restored import Report, RestoreOptions, RestoreResult
from mirrorback.engine.target import Target, identity, open_top, places_to_keep
from mirrorback.engine.trusting import trust
from mirrorback.engine.writer import Writer
from mirrorback.errors import Damaged, Trouble, UsageError
from mirrorback.model import Kind, Metadata, Snapshot
from mirrorback.plan.restoring import Overwrite, Step
from mirrorback.store import node, past, presence, settings, system, tree
from mirrorback.store.catalog import ABOVE_ROOT, translated
from mirrorback.store.past import PastRow
from mirrorback.store.repository import drive_errors
from mirrorback.store.workers import work_through

__all__ = ["Overwrite", "RestoreOptions", "RestoreResult", "restore"]

THREADS = 2


def restore(
    history: History,
    paths: Sequence[bytes],
    when: str | None,
    options: RestoreOptions,
    events: Events,
) -> RestoreResult:
    """Bring back `paths` (as typed; none is the whole tree) as they were at `when`.

    Entries that cannot be written are told to `events` and counted.  Raises
    MirrorbackError; Damaged, when a file on the drive is not what was backed
    up, after everything else has been restored.
    """
    if (options.to is None) is not options.in_place:
        raise UsageError("give either --to DIR or --in-place")
    system.raise_descriptor_limit()
    with translated(), drive_errors():
        trust(history.catalog, events, delete=options.delete)
        wanted = [history.find_path(path, when) for path in paths]
        wanted = wanted or [(b"", history.resolve(when))]
        if len({snapshot.id for _path, snapshot in wanted}) > 1:
            raise UsageError("the paths are in different snapshots: restore one after another")
        snapshot = wanted[0][1]
        rows = [(path, history.entry(path, snapshot)) for path, _snapshot in wanted]
        return _Run(history, snapshot, options, events).all(rows)


@dataclass(frozen=True, slots=True)
class _Folder:
    """A directory to fill; `metadata` None leaves its own as it is."""

    path: bytes
    id: int | None
    metadata: Metadata | None
    there: bool  # on the target, for a dry run


class _Bench:
    """What one thread works with."""

    def __init__(self, origin: int, target: Target) -> None:
        self.origin = tree.Cursor(origin)
        self.target = target

    def close(self) -> None:
        """Close what is open."""
        self.origin.close()
        self.target.close()


class _Run:
    """One restore."""

    def __init__(
        self, history: History, snapshot: Snapshot, options: RestoreOptions, events: Events
    ) -> None:
        self._history = history
        self._snapshot = snapshot
        self._options = options
        self._events = events
        self._report = Report(snapshot.name, events, self._require_drives, dry_run=options.dry_run)
        self._writer = Writer(history, snapshot, events, owner=options.owner)
        self._keeping = Keeping(history, events, all_of_it=options.keep)
        self._lock = threading.Lock()
        self._mounts: frozenset[tuple[int, int]] = frozenset()  # below the target
        self._there = True  # the target is; a dry run may do without
        self._decider = Decider(history, snapshot, options.overwrite)
        self._first: dict[int, bytes] = {}  # shared objects: where the first name stands
        self._later: list[tuple[bytes, PastRow]] = []  # their other names
        self._closed: list[tuple[bytes, Metadata]] = []  # folders that may shut their owner out
        self._flags: list[tuple[bytes, Metadata]] = []
        self._disks = Disks()

    def all(self, rows: list[tuple[bytes, PastRow]]) -> RestoreResult:
        """Restore these entries and all below them."""
        whole = any(not path for path, _row in rows)
        self._events.phase(
            Phase.RESTORE,
            self._snapshot.files if whole else None,
            self._snapshot.bytes if whole else None,
        )
        with self._history.held(self._snapshot) as origin:
            top, made = self._open_top(whole=whole)
            try:
                self._run(rows, origin, top, made)
                self._disks.sync()
            finally:
                self._disks.close()
                if top is not None:
                    os.close(top)
        self._report.result.not_kept = self._writer.not_kept.counts()
        self._report.result.bytes_written = self._writer.bytes_written
        self._report.result.actions.sort(key=lambda action: action[1])
        if self._report.damage:
            shown = ", ".join(settings.escape(path) for path in self._report.damage[:3])
            raise Damaged(
                f"{len(self._report.damage)} damaged on the drive and not restored ({shown});"
                " the rest was. Try an older snapshot for those, and run `mirrorback verify`"
            )
        return self._report.result

    def _open_top(self, *, whole: bool) -> tuple[int | None, bool]:
        """The directory to restore into, the `whole` tree or parts of it, and whether its own
        metadata is to be set: not that of a folder which holds other things already."""
        options = self._options
        top = self._history.source if options.to is None else os.fsencode(options.to)
        mode = 0o700 if whole else 0o777  # the tree's own mode is still to come
        opened, empty = open_top(top, self._history.repo.path, None if options.dry_run else mode)
        return opened, empty or options.in_place

    def _run(
        self, rows: list[tuple[bytes, PastRow]], origin: int, top: int | None, made: bool
    ) -> None:
        self._there = top is not None
        guarded: frozenset[tuple[int, int]] = frozenset()
        if top is not None:
            self._mounts, guarded = places_to_keep(top, self._history.repo.path)
        targets: list[Target] = []

        def tools() -> _Bench:
            # A dry run may have no target; then nothing is looked for in it.
            target = Target(-1 if top is None else top, self._keeping, guarded)
            targets.append(target)
            return _Bench(origin, target)

        bench = tools()
        self._clear_parents(bench, [path for path, _row in rows if path])
        first = [f for f in (self._begin(bench, p, r, made) for p, r in rows) if f is not None]
        work_through(
            first,
            self._fill,
            threads=THREADS,
            tools=tools,
            put_away=_Bench.close,
            stop=self._stop,
        )
        self._finish(bench)
        bench.close()
        self._report.result.kept_aside = sum(target.kept_aside for target in targets)

    def _require_drives(self) -> None:
        """Raises DriveError where the drive is gone, or a disk that is written to fails for
        good: else each file would be told."""
        presence.require(self._history.repo)
        self._disks.sync()

    def _stop(self) -> None:
        self._writer.stopped = True

    # --- directories -----------------------------------------------------------------

    def _begin(self, bench: _Bench, path: bytes, row: PastRow, made: bool) -> _Folder | None:
        """Start with one of the entries asked for: make its parents, and itself."""
        parent, _name = tree.parent_of(path)
        if not path:
            number = past.child(self._history.catalog, row.dir, row.name)
            return _Folder(path, number, row.metadata if made else None, self._there)
        try:
            if not self._options.dry_run:
                self._make_parents(bench, parent)
            return self._child(bench, parent, self._into(bench, parent, self._there), row)
        except Trouble as trouble:
            self._report.error(trouble.reason, path)
            return None

    def _make_parents(self, bench: _Bench, parent: bytes) -> None:
        """Those that exist are not touched, whatever they are; others get what they had, in the
        end: what they hold may be private by them alone."""
        catalog, number = self._history.catalog, past.child(self._history.catalog, ABOVE_ROOT, b"")
        at = b""
        for name in tree.split(parent):
            into = bench.target.folder(at)
            at = tree.join(at, name)
            row = None if number is None else past.entry(catalog, number, name, self._snapshot.id)
            if bench.target.look(into, name) is None:
                os.mkdir(name, 0o700, dir_fd=into)
                if row is not None:
                    self._closed.append((at, row.metadata))
            number = None if number is None else past.child(catalog, number, name)

    def _clear_parents(self, bench: _Bench, paths: list[bytes]) -> None:
        names: dict[bytes, set[bytes]] = {}
        for parent, name in map(tree.parent_of, paths):
            names.setdefault(parent, set()).add(name)
        for parent in names if self._there else ():
            with contextlib.suppress(Trouble):  # told when it is to be written to
                self._clear_left(bench, bench.target.folder(parent), names[parent])

    def _clear_left(self, bench: _Bench, into: int, names: set[bytes]) -> None:
        """Remove what a restore that was killed has left in a folder, where one can."""
        if not self._options.dry_run:
            with contextlib.suppress(OSError):
                bench.target.clear_left(into, names)

    def _into(self, bench: _Bench, path: bytes, there: bool) -> int | None:
        """The directory on the target; None in a dry run where it is not there yet."""
        if not self._options.dry_run:
            folder = bench.target.folder(path)
            self._disks.note(folder)
            return folder
        if not there:
            return None
        try:
            return bench.target.folder(path)
        except Trouble as trouble:
            if not trouble.vanished:
                raise
            return None

    def _fill(self, folder: _Folder, bench: _Bench, push: Callable[..., None]) -> None:
        """Restore everything in a directory, then its own metadata."""
        if folder.id is None:
            return
        with self._history.catalog.lock:
            rows = past.entries(self._history.catalog, folder.id, self._snapshot.id)
        try:
            into = self._into(bench, folder.path, folder.there)
        except Trouble as trouble:
            self._report.error(trouble.reason, folder.path)
            return
        names = {row.name for row in rows}
        if into is not None and folder.there:
            self._clear_left(bench, into, names)
        below = []
        for row in rows:
            self._history.require_name(row.name)
            with self._report.telling(tree.join(folder.path, row.name)):
                found = self._child(bench, folder.path, into, row)
                if found is not None:
                    below.append(found)
        emptied = into is not None and not rows and identity(os.fstat(into)) in self._mounts
        if self._options.delete and into is not None and not emptied:
            with self._report.telling(folder.path):
                self._delete_others(bench, folder.path, into, names)
        if folder.metadata is not None and into is not None and not self._options.dry_run:
            with self._report.telling(folder.path):
                self._dress_folder(folder.path, into, folder.metadata)
        push(*below)

    def _child(
        self, bench: _Bench, parent: bytes, into: int | None, row: PastRow
    ) -> _Folder | None:
        path = tree.join(parent, row.name)
        if row.metadata.kind is not Kind.DIRECTORY:
            self._entry(bench, path, into, row)
            return None
        with self._history.catalog.lock:
            number = past.child(self._history.catalog, row.dir, row.name)
        st = None if into is None else bench.target.look(into, row.name)
        there = st is not None and Kind.of_mode(st.st_mode) is Kind.DIRECTORY
        never = self._options.overwrite is Overwrite.NEVER
        if st is not None and not there and never:
            self._report.count("skipped")
            return None
        if not there:
            self._report.act("create" if st is None else "replace", path)
            if not self._options.dry_run and into is not None:
                bench.target.make_folder(into, path)
        return _Folder(path, number, None if there and never else row.metadata, there)

    def _dress_folder(self, path: bytes, fd: int, metadata: Metadata) -> None:
        if os.geteuid() != 0 and metadata.mode & 0o700 != 0o700:
            # Its owner could not come back to fill it: set at the end.
            with self._lock:
                self._closed.append((path, metadata))
            return
        self._writer.dress_folder(fd, metadata)
        if metadata.flags:
            with self._lock:
                self._flags.append((path, metadata))

    def _delete_others(self, bench: _Bench, folder: bytes, into: int, names: set[bytes]) -> None:
        for name in bench.target.others(into, names):
            st = bench.target.look(into, name)
            if st is None:
                continue
            path = tree.join(folder, name)
            if bench.target.is_guarded(st):
                self._events.warning(
                    "holds the repository or a mounted file system: left alone", path
                )
                continue
            self._report.act("delete", path)
            self._report.count("deleted")
            if self._options.dry_run:
                self._keeping.keeps(into, path, st)  # for what it tells
            else:
                bench.target.clear(into, path)

    # --- everything else ----------------------------------------------------------------

    def _entry(self, bench: _Bench, path: bytes, into: int | None, row: PastRow) -> None:
        if row.object in self._decider.shared:
            with self._lock:
                if row.object in self._first:
                    self._later.append((path, row))
                    return
                self._first[row.object] = path
        st = None if into is None else bench.target.look(into, row.name)
        step = self._decider.step(bench.target, row, st)
        if step is Step.COMPARE and into is not None and st is not None:
            same = self._writer.has_content(into, row, st, bench.origin, path)
            step = Step.ADJUST if same else Step.REPLACE
        if step is Step.SKIP:
            self._report.count("skipped")
            if row.object in self._decider.shared:
                with self._lock:
                    self._first.pop(row.object, None)
        elif step is Step.ADJUST:
            self._report.count("unchanged")
            if not self._options.dry_run and into is not None and st is not None:
                self._writer.adjust(into, row, st)
        else:
            self._report.act(step.value, path)
            if not self._options.dry_run and into is not None:
                self._writer.make(bench.origin, bench.target, path, into, row)
            self._report.count("restored")
        self._events.advance(1)

    # --- what has to wait ------------------------------------------------------------------

    def _finish(self, bench: _Bench) -> None:
        """Further names of hard links, folders that shut themselves, flags of folders."""
        for path, row in self._later:
            with self._report.telling(path):
                self._link(bench, path, row)
        if self._options.dry_run:
            return
        for path, metadata in sorted(self._closed, reverse=True):
            with self._report.telling(path):
                self._writer.dress_folder(bench.target.folder(path), metadata)
        for path, metadata in self._flags:
            with self._report.telling(path):
                folder = bench.target.folder(path)
                self._writer.not_kept.add(self._writer.set_flags(folder, metadata))

    def _link(self, bench: _Bench, path: bytes, row: PastRow) -> None:
        """Another name of something that is restored by now."""
        parent, name = tree.parent_of(path)
        into = self._into(bench, parent, self._there)
        st = None if into is None else bench.target.look(into, name)
        first = self._first.get(row.object)
        if first is None or self._options.dry_run or into is None:
            self._entry_again(bench, path, into, row, st)
            return
        origin_parent, origin_name = tree.parent_of(first)
        origin = os.open(b".", tree.DIRECTORY_FLAGS, dir_fd=bench.target.folder(origin_parent))
        try:
            into = bench.target.folder(parent)
            times = os.fstat(into)
            self._link_from(bench, (origin, origin_name), into, path, row, st)
            node.set_times(into, times.st_mtime_ns)
        finally:
            os.close(origin)
        self._events.advance(1)

    def _link_from(
        self,
        bench: _Bench,
        origin: tuple[int, bytes],
        into: int,
        path: bytes,
        row: PastRow,
        st: os.stat_result | None,
    ) -> None:
        leader = bench.target.look(*origin)
        if st is not None and leader is not None and os.path.samestat(st, leader):
            self._report.count("unchanged")
            return
        if self._decider.step_to_link(row, st) is Step.SKIP:
            self._report.count("skipped")
            return
        self._report.act("create" if st is None else "replace", path)
        with bench.target.temporary(into) as name:
            try:
                os.link(
                    origin[1], name, src_dir_fd=origin[0], dst_dir_fd=into, follow_symlinks=False
                )
            except OSError:
                self._writer.make(
                    bench.origin, bench.target, path, into, row
                )  # no more links here, or none at all
            else:
                bench.target.put(into, name, path)
        self._report.count("restored")

    def _entry_again(
        self,
        bench: _Bench,
        path: bytes,
        into: int | None,
        row: PastRow,
        st: os.stat_result | None,
    ) -> None:
        """A name whose first name was not restored, or in a dry run."""
        if self._options.dry_run:
            step = self._decider.step(bench.target, row, st)
            if step is Step.SKIP:
                self._report.count("skipped")
            elif step is Step.COMPARE:
                self._report.count("unchanged")
            else:
                self._report.act(step.value, path)
                self._report.count("restored")
            return
        self._entry(bench, path, into, row)
