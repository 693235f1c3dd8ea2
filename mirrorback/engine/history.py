"""History: what there is, what there was, and how it differs.  All from the catalog."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Container, Iterator
from dataclasses import replace
from datetime import datetime
from types import TracebackType

from mirrorback.errors import Damaged, Locked, NotInHistory
from mirrorback.model import Change, Entry, Kind, Snapshot, Version
from mirrorback.plan import history as rules
from mirrorback.plan import paths, patterns, when
from mirrorback.plan.history import State
from mirrorback.store import in_use, past, presence, settings, tree
from mirrorback.store.audit import blamed
from mirrorback.store.catalog import ABOVE_ROOT, Catalog, translated
from mirrorback.store.connection import WAIT_S
from mirrorback.store.past import PastRow
from mirrorback.store.repository import (
    CATALOG,
    CURRENT,
    DELTA_SUFFIX,
    Repository,
    drive_errors,
)
from mirrorback.store.schema import DELTA

TOPS_KEPT = 64


class History:
    """An open repository, for reading.  A context manager."""

    def __init__(self, repo: Repository, catalog: Catalog, now: datetime, cwd: bytes) -> None:
        self.repo = repo
        self.catalog = catalog
        self.source = repo.settings.source
        self.repository = repo.path
        self._now = now
        self._cwd = cwd
        self._snapshots: list[Snapshot] | None = None
        self._tops: dict[int, int] = {}  # descriptors of snapshots' folders, by id

    @classmethod
    def open(cls, repository: str, now: datetime, cwd: bytes | None = None) -> History:
        """Open a repository.  `now` is aware, in local time; relative paths are read
        from `cwd`.  Raises NoRepository, Damaged, DriveError."""
        with drive_errors():
            repo = Repository.open(os.path.abspath(os.fsencode(repository)))
            try:
                with presence.felt(repo):
                    catalog = Catalog.open(repo.inner_path(CATALOG))
            except BaseException:
                repo.close()
                raise
        return cls(repo, catalog, now, os.getcwdb() if cwd is None else cwd)

    def close(self) -> None:
        """Close what is open."""
        self.let_go()
        self.catalog.close()
        self.repo.close()

    def __enter__(self) -> History:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is not None and not isinstance(error, BrokenPipeError):
                with (
                    presence.felt(self.repo),
                    drive_errors(),
                    translated(),
                    blamed(self.catalog),
                ):
                    raise error
        finally:
            self.close()

    # --- snapshots and paths -------------------------------------------------------

    def snapshots(self) -> list[Snapshot]:
        """All snapshots, oldest first; the last is the mirror."""
        if self._snapshots is None:
            self._snapshots = self.catalog.snapshots()
        return self._snapshots

    def refreshed(self) -> list[Snapshot]:
        """All snapshots as they are now."""
        with self.catalog.lock:
            self._snapshots = self.catalog.snapshots()
            self._let_go({snapshot.id for snapshot in self._snapshots})
            return self._snapshots

    def top(self, snapshot: Snapshot) -> int:
        """A descriptor of a snapshot's folder, for the caller to close.  It is kept, too: the
        catalog is asked once, and renames make no difference.  Raises FileNotFoundError,
        OSError, and the catalog's errors."""
        with self.catalog.lock:
            if snapshot.id not in self._tops:
                if len(self._tops) >= TOPS_KEPT:
                    os.close(self._tops.pop(next(iter(self._tops))))
                with translated():
                    self._tops[snapshot.id] = self.repo.open_folder(self.catalog, snapshot.id)
            return os.dup(self._tops[snapshot.id])

    @contextlib.contextmanager
    def held(self, snapshot: Snapshot) -> Iterator[int]:
        """A descriptor of a snapshot's folder; while it lasts the snapshot is not removed.
        Raises NotInHistory where it has been, Damaged where its folder is not there."""
        until = time.monotonic() + WAIT_S
        while True:
            try:
                with self.catalog.lock, translated():
                    fd = in_use.hold(self.repo, self.catalog, snapshot.id)
                break
            except Locked:
                if time.monotonic() > until:
                    raise
                time.sleep(in_use.BREATH_S)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise
                raise self._without_folder(snapshot) from error
        try:
            yield fd
        finally:
            os.close(fd)

    def _without_folder(self, snapshot: Snapshot) -> Damaged | NotInHistory:
        """Why a snapshot's folder cannot be opened."""
        if all(one.id != snapshot.id for one in self.refreshed()):
            return NotInHistory(f"snapshot {snapshot.name} has just been removed")
        name = os.fsdecode(CURRENT) if snapshot.current else snapshot.name
        return Damaged(
            f"the folder {name} of snapshot {snapshot.name} is missing from the repository:"
            " if you have moved or renamed it, move it back"
        )

    def let_go(self) -> None:
        """Close the folders that are kept open; catalog and repository stay."""
        self._let_go(())

    def _let_go(self, kept: Container[int]) -> None:
        """Close the folders of all snapshots but these."""
        for number in [number for number in self._tops if number not in kept]:
            os.close(self._tops.pop(number))

    def trouble(self) -> str | None:
        """What is to be told of the mirror, where it has no folder any more."""
        if os.access(CURRENT, os.F_OK, dir_fd=self.repo.fd, follow_symlinks=False):
            return None
        from mirrorback.engine import lost_mirror  # hardly ever

        with drive_errors(), translated():
            if not lost_mirror.is_lost(self.repo, self.catalog):
                return None
            return lost_mirror.told(self.repo, self.catalog)

    def location(self, snapshot: Snapshot) -> bytes:
        """The absolute path of a snapshot's folder."""
        return self.repo.location(self.catalog, snapshot)

    def resolve(self, text: str | None) -> Snapshot:
        """The snapshot that a WHEN means.  Raises NotInHistory, UsageError."""
        snapshots = self.snapshots()
        if not snapshots:
            raise NotInHistory("there is no snapshot yet: make a backup first")
        return when.resolve("latest" if text is None else text, snapshots, self._now)

    def find_path(self, typed: bytes, at: str | None) -> tuple[bytes, Snapshot]:
        """The path in history that a PATH means, and the snapshot, which a path in
        a dated folder names where no --at does.  Raises UsageError, NotInHistory."""
        candidates = paths.interpret(
            typed,
            source=self.source,
            repository=self.repository,
            names={snapshot.name for snapshot in self.snapshots()},
            cwd=self._cwd,
        )
        chosen = next((c for c in candidates if self._ever(c.path)), candidates[0])
        snapshot = self.resolve(at if at is not None else chosen.snapshot)
        if at is not None and chosen.snapshot is not None:
            paths.require_agreement(self.resolve(chosen.snapshot).name, snapshot.name)
        return chosen.path, snapshot

    def _ever(self, path: bytes) -> bool:
        place = past.find_directory(self.catalog, path)
        if place is None:
            return False
        return bool(
            self.catalog.db.execute(
                "SELECT 1 FROM entry WHERE dir = ? AND name = ? LIMIT 1", place
            ).fetchone()
        )

    def entry(self, path: bytes, snapshot: Snapshot) -> PastRow:
        """What a snapshot shows at a path.  Raises NotInHistory."""
        place = past.find_directory(self.catalog, path)
        row = place and past.entry(self.catalog, *place, snapshot.id)
        if not row:
            shown = settings.escape(path) or "the source"
            if place is not None and self._ever(path):
                raise NotInHistory(
                    f"{shown} is not in snapshot {snapshot.name};"
                    " `mirrorback versions` tells in which it is"
                )
            raise NotInHistory(f"{shown} was never backed up; `mirrorback find` looks for names")
        return row

    @staticmethod
    def require_name(name: bytes) -> None:
        """A name from the catalog is used as a path: it must be one name.  Raises Damaged."""
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
            raise Damaged("the catalog holds a name that cannot be; run `mirrorback rebuild`")

    def stamp(self) -> str:
        """The local time, as it stands in names."""
        return f"{self._now:%Y-%m-%d-%H%M%S}"

    # --- listings --------------------------------------------------------------------

    def listing(
        self, path: bytes | None, when_: str | None, recursive: bool = False
    ) -> Iterator[Entry]:
        """The entries of a folder (the entry itself, where it is none), by name;
        all below it if recursive."""
        found, snapshot = (
            self.find_path(path, when_)
            if path is not None
            else (
                b"",
                self.resolve(when_),
            )
        )
        row = self.entry(found, snapshot)
        if row.metadata.kind is not Kind.DIRECTORY:
            yield _entry(found, row)
            return
        for below, child in self.walk(found, row, snapshot, deep=recursive):
            yield _entry(below, child)

    def walk(
        self, path: bytes, row: PastRow, snapshot: Snapshot, *, deep: bool = True
    ) -> Iterator[tuple[bytes, PastRow]]:
        """Everything below a directory of a snapshot, in order of names, what a folder
        holds right after it."""
        number = past.child(self.catalog, row.dir, row.name)
        levels = [self._children(path, number, snapshot)]
        while levels:
            found = next(levels[-1], None)
            if found is None:
                levels.pop()
                continue
            below, child = found
            yield below, child
            if deep and child.metadata.kind is Kind.DIRECTORY:
                number = past.child(self.catalog, child.dir, child.name)
                levels.append(self._children(below, number, snapshot))

    def _children(
        self, path: bytes, directory: int | None, snapshot: Snapshot
    ) -> Iterator[tuple[bytes, PastRow]]:
        if directory is None:
            return
        for child in past.entries(self.catalog, directory, snapshot.id):
            self.require_name(child.name)
            yield tree.join(path, child.name), child

    # --- versions ----------------------------------------------------------------------

    def versions(self, path: bytes, follow: bool = False) -> list[Version]:
        """Every version that a path has had, oldest first; with `follow` also those
        it had under the names before it moved here."""
        found, _snapshot = self.find_path(path, None)
        versions = self._versions_of(found)
        if not versions:
            self.entry(found, self.resolve(None))
        if follow:
            versions += self._before_moves(found)
        return sorted(versions, key=lambda version: version.first.id)

    def _before_moves(self, path: bytes) -> Iterator[Version]:
        """What the files at a path were before they moved there, by their lineages: the
        snapshots that showed a move, or a place on the way, may have been deleted."""
        place = past.find_directory(self.catalog, path)
        here = [] if place is None else past.runs(self.catalog, *place)
        newest = {row.lineage: row.entry for row in here if row.lineage != row.entry}
        elsewhere: dict[tuple[int, bytes], list[PastRow]] = {}
        for row in past.of_lineages(self.catalog, newest) if newest else ():
            if (row.dir, row.name) != place:
                elsewhere.setdefault((row.dir, row.name), []).append(row)
        for (directory, name), rows in elsewhere.items():
            yield from self._merge(tree.join(self.folder_path(directory), name), rows)

    def _versions_of(self, path: bytes) -> list[Version]:
        place = past.find_directory(self.catalog, path)
        if place is None:
            return []
        return self._merge(path, past.runs(self.catalog, *place))

    def _merge(self, path: bytes, rows: list[PastRow]) -> list[Version]:
        snapshots = {snapshot.id: snapshot for snapshot in self.snapshots()}
        if not snapshots:
            return []
        mirror = max(snapshots)
        runs = rules.unbroken(
            ((_state(path, r), r.first, r.last, self._moved_from(r)) for r in rows),
            snapshots.keys(),
            mirror,
        )
        found = []
        for run in runs:
            location = os.path.join(self.location(snapshots[run.last]), path).rstrip(b"/")
            delta = any(row.drive == DELTA and row.shown_in(run.last) for row in rows)
            found.append(
                Version(
                    path=path,
                    first=snapshots[run.first],
                    last=snapshots[run.last],
                    metadata=run.state.metadata,
                    digest=run.state.digest,
                    location=location + DELTA_SUFFIX if delta else location,
                    stored=_stored(delta),
                    moved_from=run.moved_from,
                )
            )
        return found

    def _moved_from(self, row: PastRow) -> bytes | None:
        if row.from_dir is None or row.from_name is None:
            return None
        return tree.join(self.folder_path(row.from_dir), row.from_name)

    def folder_path(self, directory: int) -> bytes:
        """The path of a directory by its number.  Raises Damaged."""
        return b"" if directory == ABOVE_ROOT else self.catalog.directory_path(directory)

    def find(self, pattern: str, ignore_case: bool = False) -> list[Version]:
        """Every version whose name, or path if the pattern has a slash, matches a glob;
        oldest first.  Raises UsageError."""
        found = self._matching(pattern, ignore_case)
        return sorted(found, key=lambda version: (version.first.id, version.path))

    def _matching(self, pattern: str, ignore_case: bool) -> Iterator[Version]:
        matches = patterns.compile_glob(pattern, ignore_case)
        place: tuple[int, bytes] | None = None
        for _entry_id, directory, name in past.all_names(self.catalog):
            if (directory, name) == place:
                continue
            place = (directory, name)
            path = tree.join(self.folder_path(directory), name)
            if matches(path):
                yield from self._merge(path, past.runs(self.catalog, directory, name))

    # --- differences ---------------------------------------------------------------------

    def diff(self, old: str, new: str | None) -> list[Change]:
        """What changed from one snapshot to another (the mirror by default), by path."""
        first, second = self.resolve(old), self.resolve(new)
        older, newer = sorted((first, second), key=lambda s: s.id)
        ended, begun = past.between(self.catalog, older.id, newer.id)
        olds = {row.entry: row for row in ended}
        news = {row.entry: row for row in begun}
        others_old, others_new = self._links(older, newer, olds, news)
        states_old = [self._state(r, others_old.get(r.entry)) for r in olds.values()]
        states_new = [self._state(r, others_new.get(r.entry)) for r in news.values()]
        if first.id > second.id:
            states_old, states_new = states_new, states_old
        return [c for c in rules.changes(states_old, states_new) if c.path]

    def _links(
        self, older: Snapshot, newer: Snapshot, olds: dict[int, PastRow], news: dict[int, PastRow]
    ) -> tuple[dict[int, frozenset[int]], dict[int, frozenset[int]]]:
        """Who is hard-linked to whom in either snapshot, as far as that changed.  Names
        that stayed as they were, but lost or gained others, are added to both sides."""
        before: dict[int, frozenset[int]] = {}
        after: dict[int, frozenset[int]] = {}
        for number in past.shared_objects(self.catalog, older.id, newer.id):
            for groups, snapshot in ((before, older), (after, newer)):
                names = past.sharing(self.catalog, number, snapshot.id)
                lineages = frozenset(lineage for _e, lineage, _d, _n in names)
                groups.update({entry: lineages for entry, _l, _d, _n in names})
        for entry in before.keys() & after.keys():
            if before[entry] != after[entry]:
                olds[entry] = news[entry] = past.by_id(self.catalog, entry)
        return before, after

    def _state(self, row: PastRow, others: frozenset[int] | None) -> State:
        state = _state(tree.join(self.folder_path(row.dir), row.name), row)
        return replace(state, others=others or frozenset({row.lineage}))


def _entry(path: bytes, row: PastRow) -> Entry:
    stored = _stored(row.drive == DELTA)
    return Entry(path, row.metadata, row.digest, row.object, bool(row.stale), stored)


def _stored(delta: bool) -> str:
    return "delta" if delta else "whole"


def _state(path: bytes, row: PastRow) -> State:
    return State(path, row.lineage, row.object, row.metadata, row.digest)
