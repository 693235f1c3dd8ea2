"""Checking the small files of a repository: its settings, signatures, and changes that wait.

`repository.toml` is checked by whoever opens it.  README.txt is not: each backup lets it say
what that version of the program does.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from typing import NamedTuple

from mirrorback.engine.history import History
from mirrorback.errors import Damaged
from mirrorback.model import Problem
from mirrorback.store import content, durable, live, schema, settings, supersede, system, tree
from mirrorback.store.catalog import PENDING
from mirrorback.store.repository import INNER, MIRROR, REDO, SIGNATURES, redo_name, undo_name
from mirrorback.store.signature import Signature
from mirrorback.store.supersede import Replacing

SIGNATURE = "the signature is damaged, or is that of another file; backups do without it"
NOT_WHOLE = "what was kept of a large file, to take its place in history, is damaged"
MISSING = ".mirrorback/mirror.toml is missing"
SAYS_NOTHING = ".mirrorback/mirror.toml is damaged: it does not say of when the mirror is"


class Remedy(enum.Enum):
    """How `repair` puts such a file right."""

    REMOVE = "it only spares backups some reading, and they make it anew"
    REWRITE = "all that is in it is known"


class FileFault(NamedTuple):
    """Something wrong with one file."""

    name: bytes  # within `.mirrorback`
    words: str
    remedy: Remedy | None  # None: there is none

    def problem(self, history: History) -> Problem:
        """The same for whoever reads it."""
        where = history.repo.inner_path(self.name)
        return Problem(INNER + b"/" + self.name, (), self.words, where, self.remedy is not None)


def check(history: History) -> Iterator[FileFault]:
    """Yield what is wrong with the files of an open repository that are neither its catalog nor
    an object.  Raises OSError, and the catalog's errors."""
    words = _wrong_mirror(history)
    if words is not None:
        yield FileFault(MIRROR, words, Remedy.REWRITE)
    yield from _signatures(history)
    yield from _redo(history)


def _wrong_mirror(history: History) -> str | None:
    """What is wrong with `mirror.toml`."""
    try:
        found = settings.unseal(durable.read(history.repo.inner, MIRROR), ".mirrorback/mirror.toml")
    except FileNotFoundError:
        return MISSING if _should_be(history) else None
    except Damaged as error:
        return str(error)
    except OSError as error:
        return _unreadable(error)
    wanted = {"snapshot": str, "time": int, "offset": int}
    if not wanted.items() <= {key: type(value) for key, value in found.items()}.items():
        return SAYS_NOTHING
    return None


def _should_be(history: History) -> bool:
    """Whether there is a mirror, of which no run is just writing this."""
    with history.catalog.lock:
        if not history.refreshed() or history.catalog.in_state(PENDING):
            return False
    return not os.access(MIRROR, os.F_OK, dir_fd=history.repo.inner, follow_symlinks=False)


def _signatures(history: History) -> Iterator[FileFault]:
    folder = _opened(history, SIGNATURES)
    if folder is None:
        return
    try:
        for name in sorted(map(os.fsencode, os.listdir(folder))):
            if not _is_right(history, folder, name):
                yield FileFault(os.path.join(SIGNATURES, name), SIGNATURE, Remedy.REMOVE)
    finally:
        os.close(folder)


def _is_right(history: History, folder: int, name: bytes) -> bool:
    """Whether a signature is whole and its object's.  Those of objects that the catalog does
    not have are being written, or were when a run was killed."""
    if not name.isdigit() or len(name) > 18:
        return True
    known = live.find_object(history.catalog, int(name))
    metadata, digest = known if known is not None else (None, None)
    if metadata is None or digest is None:
        return True
    found = Signature.open(folder, name, metadata.size, digest)
    if found is not None:
        found.close()
        return True
    return name not in map(os.fsencode, os.listdir(folder))  # a run has just removed it


def _redo(history: History) -> Iterator[FileFault]:
    """What waits to take the place of large files, or to be written into them."""
    with history.catalog.lock:
        waiting = supersede.pending(history.catalog)
    folder = _opened(history, REDO) if waiting else None
    if folder is None:
        return
    try:
        for what in waiting:
            names = [undo_name(what.object)]
            names += [redo_name(what.patched)] if what.patched is not None else []
            for name in names:
                wrong = _wrong(history, folder, name, what)
                if wrong is not None:
                    yield FileFault(os.path.join(REDO, name), wrong, None)
    finally:
        os.close(folder)


def _wrong(history: History, folder: int, name: bytes, what: Replacing) -> str | None:
    from mirrorback.store.delta_reader import DeltaReader

    try:
        fd = os.open(name, system.READ_SAFELY, dir_fd=folder)
    except FileNotFoundError:
        return None  # all was done with it
    except OSError as error:
        return _unreadable(error)
    try:
        if what.form == schema.DELTA or name != undo_name(what.object):
            DeltaReader(fd).check()
            return None
        _metadata, digest = live.object_row(history.catalog, what.object)
        if digest is None:
            return None
        found = content.digest_of(fd, os.fstat(fd), digest.sparse)
        return None if found == digest else NOT_WHOLE
    except Damaged as error:
        return str(error)
    except OSError as error:
        return _unreadable(error)
    finally:
        os.close(fd)


def _opened(history: History, name: bytes) -> int | None:
    """A folder in `.mirrorback`; None where there is none.  Nothing is made here."""
    try:
        return os.open(name, tree.DIRECTORY_FLAGS, dir_fd=history.repo.inner)
    except FileNotFoundError:
        return None


def _unreadable(error: OSError) -> str:
    return f"cannot be read: {(error.strerror or str(error)).lower()}"
