"""Putting right the small files of a repository that `check_files` finds damaged, and the seal."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from mirrorback.engine import check_files
from mirrorback.engine.check_files import FileFault, Remedy
from mirrorback.engine.history import History
from mirrorback.errors import Damaged
from mirrorback.model import Repair
from mirrorback.store import remains, sealing
from mirrorback.store.remains import Said
from mirrorback.store.repository import CURRENT, INNER

ANEW = "anew"  # removed, to be made by the next backup that needs it
CATALOG = "catalog"


def repair_files(history: History, *, dry_run: bool) -> Iterator[Repair]:
    """Put right what can be; yield what was wrong and what became of it.  The repository is
    locked, but for a `dry_run`.  Raises OSError, and the catalog's errors."""
    seal = _seal(history, dry_run=dry_run)
    if seal is not None:
        yield seal
    for fault in check_files.check(history):
        if not dry_run:
            _put_right(history, fault)
        yield _told(history, fault)


def _put_right(history: History, fault: FileFault) -> None:
    if fault.remedy is Remedy.REMOVE:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fault.name, dir_fd=history.repo.inner)
    elif fault.remedy is Remedy.REWRITE:
        mirror = history.snapshots()[-1]
        root = history.repo.root_number(history.repo.fd, CURRENT)
        said = Said(mirror.name, mirror.time, mirror.offset, root)
        remains.remember(history.repo, said)


def _told(history: History, fault: FileFault) -> Repair:
    problem = fault.problem(history)
    origin = {Remedy.REMOVE: ANEW, Remedy.REWRITE: CATALOG, None: None}[fault.remedy]
    return Repair(
        problem.path,
        problem.snapshots,
        problem.problem,
        problem.location,
        repaired=problem.repairable,
        origin=origin,
        set_apart=None,
    )


def _seal(history: History, *, dry_run: bool) -> Repair | None:
    """Seal the catalog anew where its seal is damaged: whoever writes does that."""
    try:
        history.catalog.seal()
        return None
    except Damaged as error:
        words = str(error)
    if not dry_run:
        with history.catalog.transaction():
            pass
    where = history.repo.inner_path(sealing.NAME)
    return Repair(INNER + b"/" + sealing.NAME, (), words, where, True, CATALOG, None)
