"""One repair at work: object after object, in steps that are made durable together."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field

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
from mirrorback.model import Kind, Repair
from mirrorback.plan.likeness import Holds
from mirrorback.store import (
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


class Mending:
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
        if any(fault.harm is Harm.CONTENT for _shown, fault in wrong):
            # What a drive did not give once is no reason to set a sound folder apart.
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


def _is_part(one: Repair, anew: set[str]) -> bool:
    """Whether a repair is of what a folder that was made anew has got from others, as it goes
    without saying."""
    given = one.repaired and one.origin in (None, LINKS, CATALOG) and one.problem == MISSING
    return given and not anew.isdisjoint(one.snapshots)
