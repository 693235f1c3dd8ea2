"""Checking the catalog: against its seal, SQLite's rules, and its own digests."""

from __future__ import annotations

from collections.abc import Iterator

from mirrorback.engine.history import History
from mirrorback.errors import Damaged
from mirrorback.model import Problem
from mirrorback.store import audit, sealing
from mirrorback.store.repository import CATALOG, INNER
from mirrorback.store.sealing import Seal

ALTERED = "the catalog is not what was last written, bit for bit"
CONTRADICTS = "the catalog's header contradicts itself"


def check(history: History) -> Iterator[Problem]:
    """Yield what is wrong with the catalog of an open repository, in which no transaction is
    open.  Raises the catalog's errors, Damaged where it cannot be read on."""
    names = tuple(snapshot.name for snapshot in history.snapshots())

    def problem(what: str, name: bytes = CATALOG, *, repairable: bool = False) -> Problem:
        location = history.repo.inner_path(name)
        return Problem(INNER + b"/" + name, names, what, location, repairable)

    try:
        seal = history.catalog.seal()
    except Damaged as error:
        yield problem(str(error), sealing.NAME, repairable=True)  # whoever writes next seals anew
        seal = Seal.ABSENT
    if seal is Seal.BROKEN:
        yield problem(ALTERED)
    with history.catalog.held():
        contradicts = seal is Seal.ABSENT and history.catalog.file.header_fault()
    if contradicts:
        yield problem(CONTRADICTS)
    for fault in audit.faults(history.catalog):
        yield problem(fault)
