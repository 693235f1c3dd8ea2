"""Checking the catalog: against its seal, SQLite's rules, and its own digests."""

from __future__ import annotations

from collections.abc import Iterator

from mirrorback.engine.history import History
from mirrorback.errors import Damaged
from mirrorback.model import Problem
from mirrorback.store import audit, sealing, soundness
from mirrorback.store.repository import CATALOG, INNER
from mirrorback.store.sealing import Seal

ALTERED = "the catalog is not what was last written, bit for bit"
CONTRADICTS = "the catalog's header contradicts itself"
UNREADABLE = (
    "the catalog is damaged ({}), so that nothing else can be compared with it; `mirrorback"
    " rebuild` makes a new one from the folders"
)
STOPPED = "not all could be compared with the catalog, since that is damaged"


class CatalogFindings:
    """What is wrong with the catalog of an open repository, in which no transaction is open."""

    def __init__(self, history: History) -> None:
        """Raises the catalog's errors, Damaged where its snapshots cannot be read."""
        self._history = history
        self._names = tuple(snapshot.name for snapshot in history.snapshots())
        self.sound = True  # as far as is known: it may be written to
        self.readable = True  # what it says may be wrong, but it can be read

    def problems(self) -> Iterator[Problem]:
        """Look for what is wrong, and yield it.  Raises the catalog's errors."""
        catalog = self._history.catalog
        fault = soundness.structure_fault(catalog.db)
        if fault is not None and not fault.readable:
            self.readable = False
            yield self._damaged(UNREADABLE.format(fault.what))
            return
        yield from self._seal()
        if fault is not None:
            yield self._damaged(f"the catalog is damaged: {fault.what}")
        for what in audit.faults(catalog):
            yield self._damaged(what)

    def stopped(self) -> Problem:
        """What there is to say where damage found before has ended the rest."""
        return self._damaged(STOPPED)

    def _seal(self) -> Iterator[Problem]:
        catalog = self._history.catalog
        try:
            seal = catalog.seal()
        except Damaged as error:
            # Whoever writes next seals anew.
            yield self._problem(str(error), sealing.NAME, repairable=True)
            seal = Seal.ABSENT
        if seal is Seal.BROKEN:
            yield self._damaged(ALTERED)
        if seal is Seal.ABSENT:
            with catalog.held():
                contradicts = catalog.file.header_fault()
            if contradicts:
                yield self._damaged(CONTRADICTS)

    def _damaged(self, what: str) -> Problem:
        self.sound = False
        return self._problem(what, CATALOG, repairable=False)

    def _problem(self, what: str, name: bytes, *, repairable: bool) -> Problem:
        location = self._history.repo.inner_path(name)
        return Problem(INNER + b"/" + name, self._names, what, location, repairable)
