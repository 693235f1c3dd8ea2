"""A close look at one object: every place where a snapshot shows it, and what is wrong there."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from mirrorback.engine.contents import read_through
from mirrorback.engine.dated import Dated
from mirrorback.engine.history import History
from mirrorback.engine.open_version import open_version
from mirrorback.errors import Damaged, DriveError
from mirrorback.model import Kind, Problem, Snapshot
from mirrorback.plan import likeness
from mirrorback.plan.likeness import Given, Holds
from mirrorback.plan.verifying import Candidate, true_one
from mirrorback.store import content, past, schema, system, tree, verified, xattrs
from mirrorback.store.past import Holding, PastRow
from mirrorback.store.repository import DELTA_SUFFIX

ROTTEN = "content is not what was backed up, though size and time are: it has rotted"
EDITED = "was edited on the drive: content and time are not what was backed up"
WRONG_SIZE = "was edited or cut short on the drive: size is not what was backed up"
DAMAGED = "content is not what was backed up"
MISSING = "missing"
DEPENDS = "cannot be rebuilt: a newer version, on which its delta depends, is damaged"
WRONG_KIND = "is something else than was backed up"
WRONG_TARGET = "symlink target is not what was backed up"
WRONG_DEVICE = "is another device than was backed up"
APART = "is a file of its own, not the same one (a hard link) as in the other places"
ATTRIBUTES = "extended attributes were changed"
FUSED = "is the same file as {}, though these are two"


class Place(NamedTuple):
    """Where a snapshot shows an object."""

    row: PastRow
    snapshot: Snapshot
    path: bytes  # as the source has it


class Fault(NamedTuple):
    """What is wrong there."""

    words: str
    content: bool = False  # not only metadata


@dataclass(slots=True)
class Verdict:
    """What came of an object; `problem` is what is remembered of it, if it was `seen`."""

    problems: list[Problem] = field(default_factory=list)
    problem: str | None = None
    seen: bool = True


class ReadBack:
    """Looks closely at objects.  For several threads."""

    def __init__(
        self, history: History, dated: Dated, holds: Holds, passed: Callable[[int], None]
    ) -> None:
        """`passed` is told the bytes that were read."""
        self._history = history
        self._dated = dated
        self._holds = holds
        self._passed = passed

    # --- an object ---------------------------------------------------------------------

    def examine(self, number: int) -> Verdict:
        """Look at all names of an object that the drive should hold, and read each of its
        inodes.  Raises the catalog's errors."""
        while True:
            with self._history.catalog.lock:
                held = past.holding(self._history.catalog, number)
                rows = past.showing(self._history.catalog, number)
            snapshots = self._snapshots()
            verdict = self._verdict_on(held, rows)
            if verdict.problem is None or self._snapshots() == snapshots:
                return verdict
            # Another run has published or removed a snapshot meanwhile.

    def _verdict_on(self, held: Holding | None, rows: list[PastRow]) -> Verdict:
        places = list(self._places(rows))
        if held is None or held.drive == schema.ABSENT or not places:
            return Verdict(seen=False)  # perhaps only folders show it that are gone
        if held.given or held.patched:
            return self._unsettled(places)
        return self._judge(held, places)

    def _snapshots(self) -> list[Snapshot]:
        """Those whose folders are there, the oldest first."""
        return [s for s in self._history.refreshed() if s.id in self._dated.tops]

    def _places(self, rows: list[PastRow]) -> Iterator[Place]:
        """All places, the newest first."""
        for snapshot in reversed(self._snapshots()):
            for row in rows:
                if row.shown_in(snapshot.id):
                    yield Place(row, snapshot, self._path(row))

    def _unsettled(self, places: list[Place]) -> Verdict:
        """A large file that a run is just changing, or was when it was cut short: what counts
        is that it can be read."""
        place = places[0]
        problem = self._read_through(place.row, place.snapshot)
        if problem is None:
            return Verdict()
        return self._verdict([], [(places, Fault(problem, True))], sound=False)

    def _judge(self, held: Holding, places: list[Place]) -> Verdict:
        inodes: dict[tuple[int, int], list[Place]] = {}
        faults: list[tuple[list[Place], Fault]] = []
        silent: list[Place] = []  # missing with all of their folder
        for place in places:
            try:
                st = self._stat(place)
            except _FolderGone:
                silent.append(place)
                continue
            except FileNotFoundError:
                faults.append(([place], Fault(MISSING)))
                continue
            except OSError as error:
                faults.append(([place], Fault(_cannot(error), True)))
                continue
            if Kind.of_mode(st.st_mode) is not place.row.metadata.kind:
                faults.append(([place], Fault(WRONG_KIND, True)))
                continue
            inodes.setdefault((st.st_dev, st.st_ino), []).append(place)
        groups = list(inodes.values())
        found = [self._look(group[0]) for group in groups]
        candidates = [
            Candidate(not any(fault.content for fault in one), len(group))
            for one, group in zip(found, groups, strict=True)
        ]
        true = true_one(candidates)
        for index, (group, one) in enumerate(zip(groups, found, strict=True)):
            faults += [(group, fault) for fault in one]
            apart = candidates[index].sound and index != true and held.drive == schema.WHOLE
            if apart:
                faults.append((group, Fault(APART)))
        return self._verdict(silent, faults, sound=true is not None)

    def _verdict(
        self,
        silent: list[Place],
        faults: list[tuple[list[Place], Fault]],
        *,
        sound: bool,
    ) -> Verdict:
        """Put it into words: a line for each path and fault, with all snapshots."""
        told = list(faults)
        if silent and not sound:  # lost, not only missing there
            told.append((silent, Fault(MISSING)))
        by_words: dict[tuple[bytes, Fault], list[Place]] = {}
        for places, fault in told:
            for place in places:
                by_words.setdefault((place.path, fault), []).append(place)
        mendable: bool | None = None
        problems = []
        for (_path, fault), places in by_words.items():
            if fault.content or fault.words == MISSING:
                if mendable is None:
                    mendable = sound or self._elsewhere(places[0].row)
                problems.append(self._problem(places, fault.words, mendable))
            else:
                problems.append(self._problem(places, fault.words, True))
        words = [fault.words for _places, fault in faults]
        words += [MISSING] if silent else []
        return Verdict(problems, "; ".join(dict.fromkeys(words)) or None)

    def _problem(self, places: list[Place], words: str, repairable: bool) -> Problem:
        place = places[0]
        shown = {one.snapshot.id: one.snapshot.name for one in places}
        return Problem(
            path=place.path,
            snapshots=tuple(shown[number] for number in sorted(shown)),
            problem=words,
            location=self._dated.location(place.snapshot, place.path) + _suffix(place.row),
            repairable=repairable,
        )

    def shared(self, one: int, other: int) -> Verdict:
        """What is wrong with `other` if it is one inode with `one`, another object."""
        catalog = self._history.catalog
        with catalog.lock:
            rows = past.showing(catalog, one), past.showing(catalog, other)
        mine, theirs = (list(self._places(found)) for found in rows)
        inodes = {self._inode(place) for place in mine} - {None}
        alike = [place for place in theirs if self._inode(place) in inodes]
        if not alike:
            return Verdict()
        words = FUSED.format(os.fsdecode(mine[0].path))
        return self._verdict([], [(alike, Fault(words))], sound=True)

    def _inode(self, place: Place) -> tuple[int, int] | None:
        try:
            st = self._stat(place)
        except OSError:
            return None
        return st.st_dev, st.st_ino

    # --- one inode -------------------------------------------------------------------------

    def _look(self, place: Place) -> list[Fault]:
        """What is wrong with the inode that stands somewhere."""
        row = place.row
        try:
            with self._folder(place) as folder:
                name = row.name + _suffix(row)
                if row.metadata.kind is not Kind.FILE:
                    return self._look_other(folder, name, row)
                fd = system.open_quietly(name, os.O_RDONLY, folder)
                try:
                    return self._look_file(fd, place)
                finally:
                    os.close(fd)
        except (FileNotFoundError, NotADirectoryError):
            return [Fault(MISSING, True)]
        except OSError as error:
            return [Fault(_cannot(error), True)]

    def _look_other(self, folder: int, name: bytes, row: PastRow) -> list[Fault]:
        st = os.stat(name, dir_fd=folder, follow_symlinks=False)
        wanted = row.metadata
        if wanted.kind is Kind.SYMLINK and os.readlink(name, dir_fd=folder) != wanted.target:
            return [Fault(WRONG_TARGET, True)]
        if wanted.rdev and st.st_rdev != wanted.rdev:
            return [Fault(WRONG_DEVICE, True)]
        return self._dress(st, xattrs.read_at(folder, name), row)

    def _look_file(self, fd: int, place: Place) -> list[Fault]:
        row = place.row
        st = os.fstat(fd)
        if not stat.S_ISREG(st.st_mode):
            return [Fault(WRONG_KIND, True)]
        dress = self._dress(st, xattrs.read(fd), row)
        if row.drive == schema.DELTA:
            words = self._read_delta(fd, place)
            return [Fault(words, True)] if words else dress
        words = self._read_file(row, fd, st)
        if words is None:
            return dress
        if words in (WRONG_SIZE, ROTTEN, EDITED):
            # A run may just be changing it.
            with self._history.catalog.lock:
                held = past.holding(self._history.catalog, row.object)
            if held is None or held.given or held.patched or held.drive != row.drive:
                again = self._read_through(row, place.snapshot)
                return [Fault(again, True)] if again else []
        return [Fault(words, True)]

    def _dress(
        self, st: os.stat_result, attributes: likeness.Attributes, row: PastRow
    ) -> list[Fault]:
        wanted = row.metadata
        given = Given(wanted.mode, wanted.owner.uid, wanted.owner.gid, wanted.mtime)
        found = Given(stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns)
        words = likeness.differences(given, found, wanted.kind, self._holds)
        if not likeness.same_attributes(wanted.xattrs, attributes, self._holds):
            words.append(ATTRIBUTES)
        return [Fault("; ".join(words))] if words else []

    def _read_file(self, row: PastRow, fd: int, st: os.stat_result) -> str | None:
        if st.st_size != row.metadata.size:
            return WRONG_SIZE
        if row.digest is None:
            return None
        if content.digest_of(fd, st, row.digest.sparse, self._passed) == row.digest:
            return None
        return ROTTEN if likeness.same_time(row.metadata.mtime, st.st_mtime_ns) else EDITED

    def _read_delta(self, fd: int, place: Place) -> str | None:
        from mirrorback.store.delta_reader import DeltaReader

        try:
            DeltaReader(fd).check()
        except Damaged as error:
            return str(error)
        if place.snapshot.id in self._dated.renamed:
            return None  # it would be looked for under its own name
        return self._read_through(place.row, place.snapshot) and DEPENDS

    def _read_through(self, row: PastRow, snapshot: Snapshot) -> str | None:
        """What is wrong with a version, however it is read."""

        def passed(_offset: int, data: bytes) -> None:
            self._passed(len(data))

        try:
            with contextlib.closing(open_version(self._history, row, snapshot)) as version:
                read_through(row.name, row, version, passed)
        except Damaged:
            return DAMAGED
        except DriveError as error:
            return f"cannot be read: {error}"
        return None

    # --- folders -----------------------------------------------------------------------

    def folder(self, number: int, path: bytes, snapshot: Snapshot) -> str | None:
        """What is wrong with a directory itself, in one snapshot.  One that is missing with
        the directory above is not told."""
        with self._history.catalog.lock:
            row = next(
                (r for r in past.showing(self._history.catalog, number) if r.shown_in(snapshot.id)),
                None,
            )
        if row is None:
            return None
        top = self._dated.open(snapshot)
        cursor = tree.Cursor(top)
        try:
            parent, name = tree.parent_of(path)
            try:
                above = cursor.open(parent)
            except OSError:
                return None if path else MISSING
            try:
                st = os.stat(name or b".", dir_fd=above, follow_symlinks=False)
            except FileNotFoundError:
                return MISSING
            if not stat.S_ISDIR(st.st_mode):
                return WRONG_KIND
            faults = self._dress(st, xattrs.read(cursor.open(path)), row)
            return faults[0].words if faults else None
        except OSError as error:
            return _cannot(error)
        finally:
            cursor.close()
            os.close(top)

    # --- places ------------------------------------------------------------------------

    def _path(self, row: PastRow) -> bytes:
        with self._history.catalog.lock:
            folder = self._history.folder_path(row.dir)
        for name in (*tree.split(folder), row.name):
            self._history.require_name(name)
        return tree.join(folder, row.name)

    @contextlib.contextmanager
    def _folder(self, place: Place) -> Iterator[int]:
        parent, _name = tree.parent_of(place.path)
        top = self._dated.open(place.snapshot)
        cursor = tree.Cursor(top)
        try:
            yield cursor.open(parent)
        finally:
            cursor.close()
            os.close(top)

    def _stat(self, place: Place) -> os.stat_result:
        """What stands at a place.  Raises _FolderGone, OSError."""
        with contextlib.ExitStack() as stack:
            try:
                folder = stack.enter_context(self._folder(place))
            except (FileNotFoundError, NotADirectoryError) as error:
                raise _FolderGone(error.errno, error.strerror) from error
            name = place.row.name + _suffix(place.row)
            return os.stat(name, dir_fd=folder, follow_symlinks=False)

    # --- what could be mended ------------------------------------------------------------

    def _elsewhere(self, row: PastRow) -> bool:
        """Whether the content is elsewhere, as far as that shows without reading it: in
        another object, or in the source."""
        if row.metadata.kind is not Kind.FILE:
            return True  # the catalog has all of it
        if row.digest is None:
            return False
        catalog = self._history.catalog
        with catalog.lock:
            twins = past.twins(catalog, row.digest, row.object)
        if any(self._stands(number) for number in twins):
            return True
        with catalog.lock:
            rows = past.showing(catalog, row.object)
        return any(self._in_source(one) for one in rows)

    def _stands(self, number: int) -> bool:
        """Whether an object is in some place, and nothing was wrong with it."""
        catalog = self._history.catalog
        if verified.problem(catalog, number) is not None:
            return False
        try:
            with catalog.lock:
                rows = past.showing(catalog, number)
            return any(self._inode(place) is not None for place in self._places(rows))
        except Damaged:
            return False

    def _in_source(self, row: PastRow) -> bool:
        try:
            st = os.lstat(os.path.join(self._history.source, self._path(row)))
        except (OSError, ValueError):
            return False
        same = (st.st_size, st.st_mtime_ns) == (row.metadata.size, row.metadata.mtime)
        return same and stat.S_ISREG(st.st_mode)


class _FolderGone(FileNotFoundError):
    """The directory is missing in which something should stand."""


def _suffix(row: PastRow) -> bytes:
    return DELTA_SUFFIX if row.drive == schema.DELTA else b""


def _cannot(error: OSError) -> str:
    return f"cannot be read: {(error.strerror or str(error)).lower()}"
