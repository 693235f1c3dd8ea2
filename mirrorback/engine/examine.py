"""A close look at one object: every place where a snapshot shows it, and what is wrong there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from mirrorback.engine import faults
from mirrorback.engine.dated import Dated
from mirrorback.engine.faults import Fault, Harm
from mirrorback.engine.history import History
from mirrorback.engine.open_version import path_of
from mirrorback.engine.read_back import ReadBack, Shown
from mirrorback.model import Digest, Kind, Metadata, Snapshot
from mirrorback.plan.verifying import Candidate, true_one
from mirrorback.store import mend, past, schema, tree
from mirrorback.store.past import Holding, PastRow

MOST_TWINS = 2000  # objects of the same content that are looked at for a shared inode
Inode = tuple[int, int]  # device and number
_SEVERAL = (schema.SPLIT, schema.DELTA)  # may be several inodes, where one has all its links
_APART = Fault(faults.APART, Harm.LINKS)


@dataclass
class Examined:
    """What was found of an object."""

    number: int
    rows: list[PastRow]
    held: Holding
    names: list[Shown] = field(default_factory=list)  # the newest first
    absent: set[str] = field(default_factory=set)  # snapshots whose whole folder is missing
    sound: Inode | None = None  # the inode that all names should show
    others: set[Inode] = field(default_factory=set)  # sound too, of one that may be several
    bytes_right: Shown | None = None  # an inode with the right content, but not ours or undressed
    faults: dict[Inode, Fault] = field(default_factory=dict)
    changing: bool = False  # a run gives it another form, or was cut short in that
    unreadable: Fault | None = None  # meanwhile

    @property
    def metadata(self) -> Metadata:
        """That of the object."""
        return self.rows[-1].metadata

    @property
    def digest(self) -> Digest | None:
        """That of the object."""
        return self.rows[-1].digest

    @property
    def drive(self) -> int:
        """How the catalog says it is held."""
        return self.rows[-1].drive

    def wrong(self) -> list[tuple[Shown, Fault]]:
        """The names that do not show what they should, and what is wrong with each."""
        if self.changing:
            wrong = self.unreadable
            return [] if wrong is None else [(shown, wrong) for shown in self.names]
        found = []
        for shown in self.names:
            if shown.inode is None:
                if shown.fault is not None:
                    found.append((shown, shown.fault))
            elif shown.inode != self.sound and shown.inode not in self.others:
                found.append((shown, self.faults.get(shown.inode, _APART)))
        return found

    def only_undressed(self) -> bool:
        """Whether one inode, of which nobody else has a name, has all it should, but for
        metadata: these could be put right on it."""
        right = self.bytes_right
        if self.sound is not None or right is None or right.inode is None:
            return False
        names = sum(shown.inode == right.inode for shown in self.names)
        return self.faults[right.inode].harm is Harm.DRESS and right.links <= names

    def depends(self) -> bool:
        """Whether it is a delta that is itself right, over something that is not."""
        return any(fault.harm is Harm.BASE for fault in self.faults.values())


class Examiner:
    """Looks at objects.  For several threads."""

    def __init__(self, history: History, dated: Dated, read_back: ReadBack) -> None:
        self._history = history
        self._dated = dated
        self._read_back = read_back

    def look(self, number: int, *, comes_to: bool | None = None) -> Examined | None:
        """Everything that can be said of an object; None where no snapshot shows it.  Each of
        its inodes is read; a delta also through all that it is over, unless it is known whether
        it `comes_to` what it should.  Raises the catalog's errors, Damaged for a broken one."""
        catalog = self._history.catalog
        while True:
            with catalog.lock:
                held = past.holding(catalog, number)
                rows = past.showing(catalog, number)
            if held is None or not rows:
                return None
            snapshots = self._history.refreshed()
            found = Examined(number, rows, held)
            self._look(found, snapshots, comes_to)
            if not found.wrong() or self._history.refreshed() == snapshots:
                return found
            # Another run has published or removed a snapshot meanwhile.

    def _look(self, found: Examined, snapshots: list[Snapshot], comes_to: bool | None) -> None:
        for shown in self._names(found.rows, snapshots, found.absent):
            found.names.append(shown)
        if found.drive == schema.ABSENT:
            found.names.clear()
        if not found.names or found.metadata.kind is Kind.DIRECTORY:
            return
        if found.held.given or found.held.patched:  # what counts is that it can be read
            place = found.names[0]
            found.changing = True
            found.unreadable = self._read_back.read_through(place.row, place.snapshot)
            return
        self._judge(found, comes_to)

    def _judge(self, found: Examined, comes_to: bool | None) -> None:
        """Tell sound inodes from others, and choose the one that all names should show."""
        groups: dict[Inode, list[Shown]] = {}
        for shown in found.names:
            if shown.inode is not None:
                groups.setdefault(shown.inode, []).append(shown)
        sound: list[Inode] = []
        for inode, names in groups.items():
            fault = self._read_back.fault(names[0], comes_to=comes_to)
            fault = fault or self._fused(found, names)
            if fault is None:
                sound.append(inode)
                continue
            found.faults[inode] = fault
            if fault.harm in (Harm.DRESS, Harm.LINKS) and found.bytes_right is None:
                found.bytes_right = names[0]
        best = true_one([Candidate(True, len(groups[inode])) for inode in sound])
        if best is not None:
            found.sound = sound[best]
            if found.drive in _SEVERAL:
                found.others.update(sound)

    # --- names -------------------------------------------------------------------------

    def _names(
        self, rows: list[PastRow], snapshots: list[Snapshot], absent: set[str]
    ) -> Iterator[Shown]:
        folders = [
            tree.parent_of(path_of(self._history, row))[0] if row.name else b"" for row in rows
        ]
        for snapshot in reversed(snapshots):
            for row, folder in zip(rows, folders, strict=True):
                if not row.shown_in(snapshot.id):
                    continue
                if snapshot.id in self._dated.tops:
                    yield self._name(Shown(row, snapshot, folder, mend.drive_name(row)))
                else:
                    absent.add(snapshot.name)

    def _name(self, shown: Shown) -> Shown:
        try:
            with self._dated.opened(shown.snapshot, shown.folder) as folder:
                if folder is None:
                    return shown._replace(fault=faults.GONE, silent=True)
                st = mend.look(shown.name or b".", folder)
        except OSError as error:
            return shown._replace(fault=faults.unreadable(error))
        if st is None:
            return shown._replace(fault=faults.GONE)
        inode = (st.st_dev, st.st_ino)
        return shown._replace(inode=inode, links=st.st_nlink, kind=Kind.of_mode(st.st_mode))

    def _fused(self, found: Examined, names: list[Shown]) -> Fault | None:
        """Whether an inode that would do belongs to another object of the same content: one
        that shows it under more names."""
        count, inode = len(names), names[0].inode
        if found.drive == schema.DELTA or names[0].links <= count:
            return None
        catalog = self._history.catalog
        with catalog.lock:
            twins = past.alike(catalog, found.number, MOST_TWINS)
        for twin in twins:
            with catalog.lock:
                rows = past.showing(catalog, twin)
            if not rows or rows[0].drive in (schema.DELTA, schema.ABSENT):
                continue
            shown = self._names(rows, self._history.snapshots(), set())
            theirs = [one for one in shown if one.inode == inode]
            if len(theirs) > count or (len(theirs) == count and twin < found.number):
                words = faults.FUSED.format(os.fsdecode(theirs[0].source_path))
                return Fault(words, Harm.LINKS)
        return None


def folder_faults(read_back: ReadBack, found: Examined) -> list[tuple[Shown, Fault]]:
    """The places of a directory object where it is missing, something else, or has not its
    metadata."""
    wrong = []
    for shown in found.names:
        fault = read_back.folder_fault(shown.row, shown.path, shown.snapshot)
        if fault is not None:
            wrong.append((shown, fault))
    return wrong
