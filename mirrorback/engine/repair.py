"""Repair: mend what `verify` has marked, from the source, from copies, or from what is known.

Each object is looked at again under all its names.  Where one of its inodes is sound, the other
names are linked to that; else its content is looked for, written anew, proven, and given all
names.  What was there instead is kept in `.mirrorback/damaged`.  An inode that a snapshot shows
is never altered, not even to put permissions right: there will be another with the same bytes.
A folder is one snapshot's alone, and is put right itself.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from mirrorback.engine import whole_folders
from mirrorback.engine.dated import GONE, Dated
from mirrorback.engine.events import Events, Phase
from mirrorback.engine.examine import Examined, Examiner, folder_faults
from mirrorback.engine.faults import DAMAGED, MISSING, Harm
from mirrorback.engine.history import History
from mirrorback.engine.missing import below_missing
from mirrorback.engine.open_version import path_of
from mirrorback.engine.outlook import Outlook
from mirrorback.engine.preparing import Prepared, Preparing
from mirrorback.engine.read_back import ReadBack
from mirrorback.engine.remedy import CATALOG, DELTA, ITSELF, LINKS, NoRoom, Remedies
from mirrorback.engine.repair_files import repair_files
from mirrorback.errors import DriveError, Locked, UsageError
from mirrorback.model import Kind, Repair
from mirrorback.plan.likeness import Holds
from mirrorback.store import (
    lock,
    mend,
    past,
    probe,
    publish,
    record,
    repository,
    schema,
    supersede,
    system,
    tree,
)
from mirrorback.store.audit import blamed
from mirrorback.store.catalog import DELETING, PENDING, Catalog, translated
from mirrorback.store.lock import Lock
from mirrorback.store.repository import CATALOG as CATALOG_NAME
from mirrorback.store.repository import Repository, drive_errors

AT_ONCE = 256  # objects, and
BYTES_AT_ONCE = 256 << 20  # bytes that are written before they are given their names


@dataclass
class RepairResult:
    """What came of it."""

    repairs: list[Repair] = field(default_factory=list)
    absent: list[tuple[str, bytes]] = field(default_factory=list)  # snapshots without a folder
    lacking: int = 0  # bytes for which there was no room

    @property
    def left(self) -> int:
        """How much could not be mended."""
        return sum(not one.repaired for one in self.repairs) + len(self.absent)


def repair(
    repository: str, *, dry_run: bool, source: str | None, now: datetime, events: Events
) -> RepairResult:
    """Mend what is marked as damaged in a repository, as far as that can be done; with
    `dry_run` only say how.  `source` stands for the folder that was backed up, where that is
    elsewhere now.  `now` is aware, in local time.

    Killed at any point, the next command that takes the lock ends what was begun.  Raises
    MirrorbackError.
    """
    if source is not None and not os.path.isdir(source):
        raise UsageError(f"--source {source} is not a folder")
    with drive_errors():
        repo = Repository.open(os.path.abspath(os.fsencode(repository)))
        try:
            with _catalog(repo, dry_run=dry_run) as catalog:
                history = History(repo, catalog, now, b"/")
                try:
                    top = repo.settings.source if source is None else os.fsencode(source)
                    with _folders(history, _nanoseconds(now), dry_run=dry_run) as (dated, made):
                        run = _Run(history, dated, os.path.abspath(top), events, dry_run=dry_run)
                        return run.all(_nanoseconds(now), made)
                finally:
                    history.let_go()
        finally:
            repo.close()


def _nanoseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def _is_part(one: Repair, anew: set[str]) -> bool:
    """Whether a repair is of what a folder that was made anew has got from others, as it goes
    without saying."""
    given = one.repaired and one.origin in (None, LINKS, CATALOG) and one.problem == MISSING
    return given and not anew.isdisjoint(one.snapshots)


@contextlib.contextmanager
def _folders(history: History, now: int, *, dry_run: bool) -> Iterator[tuple[Dated, list[Repair]]]:
    """The folders of all snapshots, those that were renamed or are gone put right, and what was
    done for that."""
    made: list[Repair] = []
    dated = Dated(history)
    try:
        made += whole_folders.rename_back(history, dated, dry_run=dry_run)
        for number in dated.renamed - dated.certain:  # who knows what they are
            dated.leave_out(number)
        anew = whole_folders.make_anew(history, dated, now, dry_run=dry_run)
        if (made or anew) and not dry_run:
            dated.close()
            dated = Dated(history)
            for number in dated.renamed:
                dated.leave_out(number)
        yield dated, made + anew
    finally:
        dated.close()


@contextlib.contextmanager
def _catalog(repo: Repository, *, dry_run: bool) -> Iterator[Catalog]:
    """The catalog of a repository in order: locked, or for a look only one that nobody else
    is changing."""
    if dry_run:
        if lock.held(repo.inner):
            raise Locked("another run holds the repository; wait for it to end")
        catalog = Catalog.open(repo.inner_path(CATALOG_NAME))
        with contextlib.closing(catalog), translated(), blamed(catalog):
            cut = catalog.in_state(PENDING) or catalog.in_state(DELETING)
            if cut or supersede.pending(catalog):
                raise DriveError(
                    "an earlier run was cut short: repair without --dry-run, or a backup,"
                    " ends it first"
                )
            yield catalog
        return
    held = Lock.take(repo.inner)
    try:
        catalog = Catalog.open(repo.inner_path(CATALOG_NAME), write=True)
        with contextlib.closing(catalog), translated(), blamed(catalog):
            publish.recover(repo, catalog)
            yield catalog
    finally:
        held.release()


class _Run:
    """One repair."""

    def __init__(
        self, history: History, dated: Dated, source: bytes, events: Events, *, dry_run: bool
    ) -> None:
        self._history = history
        self._dated = dated
        self._catalog = history.catalog
        self._repo = history.repo
        self._events = events
        self._dry = dry_run

        def passed(count: int) -> None:
            events.advance(0, count)

        self._read_back = ReadBack(history, dated, self._holds(), passed)
        self._examiner = Examiner(history, dated, self._read_back)
        remedies = Remedies(history, dated, source, passed)
        self._preparing = Preparing(history, dated, remedies)
        self._outlook = Outlook(history, self._examiner, remedies)
        self._queue: deque[tuple[int, str]] = deque()
        self._met: set[int] = set()
        self._walked: set[tuple[int, int]] = set()  # missing folders: snapshot and number
        self._batch: dict[int, Prepared] = {}
        self._well: list[int] = []  # with which nothing is wrong any more
        self._mended: set[int] = set()  # or what a dry run would mend
        self._marked: set[int] = set()
        self._told: dict[int, Repair] = {}
        self._lacking: dict[int, int] = {}
        self._now = 0

    def _holds(self) -> Holds:
        """What the drive holds: who may write can try it."""
        holds = self._dated.holds()
        if self._dry or holds.modes:
            return holds
        return holds._replace(modes=probe.probe(self._repo.inner_path(b"")).modes)

    def all(self, now: int, made: list[Repair]) -> RepairResult:
        """Mend all that is marked; `now` in ns since 1970, `made` what was done before."""
        self._now = now
        files = list(repair_files(self._history, dry_run=self._dry))
        marked = past.marked(self._catalog)
        if self._dry:
            marked += self._lost({number for number, _problem in marked})
        self._marked.update(number for number, _problem in marked)
        self._events.phase(Phase.REPAIR, len(marked))
        try:
            self._passes(marked)
        finally:
            if marked and not self._dry:
                repository.make_reserve(self._repo.inner)
        lacking = sum(self._lacking.values())
        told = [self._told[number] for number in sorted(self._told)]
        anew = {one.snapshots[0] for one in made if one.problem == GONE}
        told = [one for one in told if not _is_part(one, anew)]
        return RepairResult([*files, *made, *told], self._absent(), lacking)

    def _absent(self) -> list[tuple[str, bytes]]:
        """The snapshots whose whole folder is missing, and will be, with where it should be."""
        known = set(self._dated.tops)
        if self._dry:
            known |= {one.id for one in whole_folders.gone(self._history, self._dated)}
        return [
            (snapshot.name, self._history.location(snapshot))
            for snapshot in self._history.refreshed()
            if snapshot.id not in known
        ]

    def _lost(self, marked: set[int]) -> list[tuple[int, str]]:
        """What only folders show that are gone: a dry run has not marked it."""
        anew = {snapshot.id for snapshot in whole_folders.gone(self._history, self._dated)}
        if not anew:
            return []
        lost = past.only_in(self._catalog, anew) - marked
        return [(number, MISSING) for number in sorted(lost, reverse=True)]

    def _passes(self, left: list[tuple[int, str]]) -> None:
        """Folders first, then what is newest: older versions may depend on it.  What could not
        be mended is tried again as long as something else was, which it may be a copy of."""
        while left:
            self._queue.extend(left)
            self._met.update(number for number, _problem in left)
            again = []
            mended = 0
            while self._queue:
                number, problem = self._queue.popleft()
                if self._one(number, problem):
                    mended += 1
                else:
                    again.append((number, problem))
                self._events.advance(1)
            self._flush()
            again = [one for one in again if one[0] not in self._lacking]
            if not mended or self._dry:
                return
            left = again

    # --- one object ----------------------------------------------------------------------

    def _one(self, number: int, problem: str) -> bool:
        """Whether an object is well, or will be."""
        found = self._looked(number)
        if found is not None and found.depends():
            found = self._after_base(found)
        if found is None:
            return True
        if found.metadata.kind is Kind.DIRECTORY:
            return self._folder(found, problem)
        wrong = found.wrong()
        if not wrong:
            if found.names or not found.absent:
                self._well.append(number)
                if number in self._marked:
                    depends = self._depends_on_mended(number)
                    self._tell(found, problem, Prepared(DELTA) if depends else None, repaired=True)
                return True
            if self._dry and found.drive != schema.ABSENT:
                return self._mend(found, problem)  # when its folder has been made anew
            return False  # all of it was in folders that are missing: they are told
        for shown, _fault in wrong:
            if shown.silent:
                self._missing(shown.snapshot.id, shown.row.dir, shown.folder)
        return self._mend(found, problem)

    def _looked(self, number: int) -> Examined | None:
        found = self._examiner.look(number)
        if found is not None and found.drive == schema.DELTA and self._batch:
            self._flush()  # what it depends on may be mended now
            found = self._examiner.look(number)
        return found

    def _after_base(self, found: Examined) -> Examined:
        """A delta that is right itself, when what it is over has been mended, if nobody had
        marked that."""
        broken = self._outlook.broken_below(found)
        if broken is None or broken.number in self._met:
            return found
        self._met.add(broken.number)
        self._one(broken.number, DAMAGED)
        return self._looked(found.number) or found

    def _mend(self, found: Examined, problem: str) -> bool:
        number = found.number
        if not self._dry and self._preparing.dress_in_place(found):
            again = self._examiner.look(number)
            if again is not None and not again.wrong():
                self._tell(found, problem, Prepared(ITSELF), repaired=True)
                self._mended.add(number)
                self._well.append(number)
                return True
            found = again or found
        try:
            prepared = self._rehearsed(found) if self._dry else self._preparing.prepare(found)
        except NoRoom as error:
            self._lacking[number] = error.size
            self._tell(found, problem, Prepared(error.origin), repaired=False)
            return False
        if prepared is None:
            self._tell(found, problem, None, repaired=False)
            return False
        self._lacking.pop(number, None)
        self._mended.add(number)
        if not self._dry:
            self._batch[number] = prepared
        self._tell(found, problem, prepared, repaired=True)
        written = sum(one.written for one in self._batch.values())
        if len(self._batch) >= AT_ONCE or written >= BYTES_AT_ONCE:
            self._flush()
        return True

    def _rehearsed(self, found: Examined) -> Prepared | None:
        origin = self._outlook.of(found)
        return None if origin is None else Prepared(origin)

    def _depends_on_mended(self, number: int) -> bool:
        """Whether an object is a delta over something that is mended."""
        held = past.holding(self._catalog, number)
        for _ in range(1000):
            if held is None or held.drive != schema.DELTA or held.base is None:
                return False
            if held.base in self._mended:
                return True
            held = past.holding(self._catalog, held.base)
        return False

    def _folder(self, found: Examined, problem: str) -> bool:
        """Make a folder anew where it is missing, and put its metadata right."""
        wrong = folder_faults(self._read_back, found)
        apart = None
        for shown, fault in reversed(wrong):
            below = past.child(self._catalog, shown.row.dir, shown.row.name)
            if below is not None and fault.harm is not Harm.DRESS:
                self._missing(shown.snapshot.id, below, shown.path)
            if not self._dry:
                if fault.harm is not Harm.DRESS and shown.inode is not None:
                    apart = apart or self._preparing.apart(shown)
                mend.make_folder(self._repo, self._catalog, shown.row, shown.snapshot)
        if not found.names and found.absent:
            return False
        self._well.append(found.number)
        if wrong or found.number in self._marked:
            prepared = Prepared(CATALOG, set_apart=apart) if wrong else None
            self._tell(found, problem, prepared, repaired=True)
        return True

    def _missing(self, snapshot: int, directory: int, folder: bytes) -> None:
        """Look at all that a missing folder of a snapshot should hold, too."""
        found = below_missing(self._history, self._dated, snapshot, directory, folder, self._walked)
        if found and found[0] not in self._met:  # what stands in its place is to be told of it
            self._met.add(found[0])
            self._one(found[0], MISSING)
        for number in sorted(set(found) - self._met):
            self._met.add(number)
            self._queue.appendleft((number, MISSING))

    # --- in steps -------------------------------------------------------------------------

    def _flush(self) -> None:
        """Give what has been prepared its names, and note what is well."""
        if self._dry:
            return
        batch, self._batch = self._batch, {}
        if batch:
            for number in self._preparing.unproven(batch):
                del batch[number]
                told = self._told[number]
                self._told[number] = Repair(
                    told.path, told.snapshots, told.problem, told.location, False, None, None
                )
        if batch:
            replaced = {number: prepared.replaced for number, prepared in batch.items()}
            publish.mend_objects(self._repo, self._catalog, replaced)
        else:
            supersede.clear_redo(self._repo, self._catalog)  # of what could not be proven
        if batch or self._well:
            system.sync_filesystem(self._repo.fd)
            record.sound(self._catalog, [*batch, *self._well], self._now)
        self._well.clear()

    def _tell(
        self, found: Examined, problem: str, prepared: Prepared | None, *, repaired: bool
    ) -> None:
        wrong = found.wrong()
        shown = wrong[0][0] if wrong else (found.names[0] if found.names else None)
        row = found.rows[-1] if shown is None else shown.row
        path = path_of(self._history, row) if row.name else b""
        everywhere = self._history.snapshots()
        where = next(one for one in reversed(everywhere) if row.shown_in(one.id))
        if shown is not None:
            where = shown.snapshot
        folder, _name = tree.parent_of(path)
        name = mend.drive_name(row)
        snapshots = [
            snapshot.name
            for snapshot in everywhere
            if any(one.shown_in(snapshot.id) for one in found.rows)
        ]
        apart = prepared.set_apart if prepared is not None else None
        self._told[found.number] = Repair(
            path=path,
            snapshots=tuple(snapshots),
            problem=problem,
            location=os.path.join(self._history.location(where), tree.join(folder, name)),
            repaired=repaired,
            origin=None if prepared is None else prepared.origin,
            set_apart=None if apart is None else self._repo.inner_path(apart),
        )
