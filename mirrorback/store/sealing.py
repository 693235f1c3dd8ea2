"""The seal of the catalog: a digest of its file, bit for bit, as the last writer left it.

`catalog.blake3` lies beside the catalog and tells of what SQLite and the checks of rows do not
see: pages in no use, the header, the schema.  It holds for one state of the file, told by the
change counter in its header, which each commit raises (https://sqlite.org/fileformat2.html,
1.3.7).  A writer compares it before the first transaction, removes it, and writes it anew
after the last one: where there is none a run was killed, and the checks of rows have to do.
SQLite syncs the folder before it alters the file, so that no seal is older than a change.

A seal is removed and not left to be outdated, since SQLite does not roll pages back that hold
nothing: after a commit that was cut the counter may be the old one, and the file another.
"""

from __future__ import annotations

import contextlib
import enum
import os
import struct

from blake3 import blake3

from mirrorback.errors import Damaged
from mirrorback.store import durable, settings, system, tree

NAME = b"catalog.blake3"
_JOURNAL = b"-journal"  # behind the catalog's name: what a cut commit is rolled back from
_COUNTER_AT = 24  # in SQLite's header: the file change counter, 4 bytes, big endian
_HEADER = 100  # bytes
_AT_ONCE = 4 << 20  # bytes that are hashed in one go, by as many threads as there are


class Seal(enum.Enum):
    """What a seal says of the catalog."""

    HOLDS = enum.auto()  # no bit is other than the last writer left it
    ABSENT = enum.auto()  # none, or that of another state: nothing is known
    BROKEN = enum.auto()  # the file is not what was written


def compare(catalog: bytes) -> Seal:
    """Compare the file at `catalog` with its seal.

    Nobody may write to it meanwhile.  Locks of this process on the file end: it is opened and
    closed here, and POSIX has it so (https://sqlite.org/howtocorrupt.html, 2.2).  Raises
    OSError, and Damaged where it is the seal that is damaged.
    """
    folder, name = _folder(catalog)
    try:
        try:
            found = settings.unseal(durable.read(folder, NAME), f".mirrorback/{NAME.decode()}")
        except FileNotFoundError:
            return Seal.ABSENT
        if not found.keys() >= {"counter", "digest"}:
            raise Damaged(f".mirrorback/{NAME.decode()} is damaged: it has no digest")
        counter, digest = _read(folder, name, found["counter"])
        if counter != found["counter"]:
            return Seal.ABSENT
        return Seal.HOLDS if digest == found["digest"] else Seal.BROKEN
    finally:
        os.close(folder)


def remove(catalog: bytes) -> None:
    """Take the seal away, for the file is about to change.  Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(os.path.dirname(catalog), NAME))


def write(catalog: bytes) -> None:
    """Seal the file, which nobody has open to write.  One that waits for its commit to be
    rolled back gets no seal, nor one on a drive that is full or failing: it is none the
    worse for that."""
    if os.path.exists(catalog + _JOURNAL):
        return
    with contextlib.suppress(OSError):
        folder, name = _folder(catalog)
        try:
            counter, digest = _read(folder, name)
            text = (
                "# BLAKE3 of catalog.db when its change counter was this\n"
                f"counter = {counter}\n"
                f"digest = {settings.quoted(digest)}\n"
            )
            durable.replace(folder, NAME, settings.seal(text), lasting=False)
        finally:
            os.close(folder)


def header_fault(catalog: bytes) -> bool:
    """Whether the two places of the header that are to hold the change counter differ.  As
    for `compare`, nobody may write meanwhile.  Raises OSError."""
    folder, name = _folder(catalog)
    try:
        fd = os.open(name, system.READ_SAFELY, dir_fd=folder)
        try:
            head = os.pread(fd, _HEADER, 0)
        finally:
            os.close(fd)
    finally:
        os.close(folder)
    return len(head) < _HEADER or head[_COUNTER_AT : _COUNTER_AT + 4] != head[92:96]


def _folder(catalog: bytes) -> tuple[int, bytes]:
    folder, name = os.path.split(catalog)
    return tree.open_root(folder), name


def _read(folder: int, name: bytes, wanted: object = None) -> tuple[int, str]:
    """The file's change counter and its digest, which is left out where a counter is wanted
    and it has another."""
    fd = os.open(name, system.READ_SAFELY, dir_fd=folder)
    try:
        head = os.pread(fd, _HEADER, 0).ljust(_HEADER, b"\0")
        counter: int = struct.unpack_from(">I", head, _COUNTER_AT)[0]
        if wanted is not None and wanted != counter:
            return counter, ""
        hashing = blake3(max_threads=blake3.AUTO)
        buffer = bytearray(min(_AT_ONCE, max(1, os.fstat(fd).st_size)))
        at = 0
        while count := os.preadv(fd, [buffer], at):
            hashing.update(memoryview(buffer)[:count])
            at += count
        return counter, f"blake3:{hashing.hexdigest()}"
    finally:
        os.close(fd)
