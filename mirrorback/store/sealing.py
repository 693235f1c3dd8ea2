"""The seal of the catalog: a digest of its file, bit for bit, as the last writer left it.

`catalog.blake3` lies beside the catalog and tells of what SQLite and the checks of rows do not
see: pages in no use, the header, the schema.  It holds for one state of the file, told by the
change counter in its header, which each commit raises (https://sqlite.org/fileformat2.html,
1.3.7).  A writer compares it when it opens the catalog, removes it in each transaction, and
writes it anew at its end: where there is none a run was killed, and the checks of rows have
to do.  SQLite syncs the folder before it alters the file, so that no seal is older than that.

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
from mirrorback.store import content, durable, settings, system, tree

NAME = b"catalog.blake3"
SEALED = b"catalog.db"
_WHAT = f".mirrorback/{NAME.decode()}"
_HEADER = 100  # bytes
_COUNTER = slice(24, 28)  # in SQLite's header: the file change counter, big endian
_COUNTED = slice(92, 96)  # the same once more, for which the version that follows is valid
_AT_ONCE = 1 << 20  # bytes that are hashed in one go


def name_for(catalog: bytes) -> bytes:
    """The name of the seal of a catalog in the same folder: one that is being made anew has
    its own until it takes the other's place."""
    return NAME if catalog == SEALED else catalog + b".blake3"


class Seal(enum.Enum):
    """What a seal says of the catalog."""

    HOLDS = enum.auto()  # no bit is other than the last writer left it
    ABSENT = enum.auto()  # none, or that of another state: nothing is known
    BROKEN = enum.auto()  # the file is not what was written


class SealedFile:
    """The catalog's file and the folder in which it lies, open besides SQLite's connection.

    To be opened before the connection and closed after it: when a process closes a file, all
    its locks on that file end, also those that SQLite relies on
    (https://sqlite.org/howtocorrupt.html, 2.2).  Whoever calls `compare` or `header_fault` is
    in a transaction, so that nobody changes the file; whoever calls `remove` or `write` is the
    one who may write.
    """

    def __init__(self, catalog: bytes) -> None:
        """Raises OSError."""
        folder, name = os.path.split(catalog)
        self._name = name_for(name)
        self._folder = tree.open_root(folder)
        try:
            self._fd = os.open(name, system.READ_SAFELY, dir_fd=self._folder)
        except BaseException:
            os.close(self._folder)
            raise

    def close(self) -> None:
        """Close both."""
        os.close(self._fd)
        os.close(self._folder)

    def compare(self) -> Seal:
        """Compare the file with its seal.  Raises OSError, and Damaged where it is the seal
        that is damaged."""
        try:
            found = settings.unseal(durable.read(self._folder, self._name), _WHAT)
        except FileNotFoundError:
            return Seal.ABSENT
        if not {"counter", "digest"} <= found.keys():
            raise Damaged(f"{_WHAT} is damaged: it has no digest")
        if found["counter"] != self._counter():
            return Seal.ABSENT
        return Seal.HOLDS if found["digest"] == self._digest() else Seal.BROKEN

    def remove(self) -> None:
        """Take the seal away, for the file is about to change.  Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._folder)

    def write(self) -> None:
        """Seal the file as it is.  Raises OSError."""
        text = (
            "# BLAKE3 of catalog.db as it was when its change counter was this\n"
            f"counter = {self._counter()}\n"
            f"digest = {settings.quoted(self._digest())}\n"
        )
        durable.replace(self._folder, self._name, settings.seal(text), lasting=False)

    def header_fault(self) -> bool:
        """Whether the two places of the header that hold the change counter differ.  Raises
        OSError."""
        head = self._head()
        return head[_COUNTER] != head[_COUNTED]

    def _head(self) -> bytes:
        return content.read_up_to(self._fd, _HEADER, 0).ljust(_HEADER, b"\0")

    def _counter(self) -> int:
        number: int = struct.unpack(">I", self._head()[_COUNTER])[0]
        return number

    def _digest(self) -> str:
        hashing = blake3()  # its threads gain little here, and a process that forks loses them
        buffer = bytearray(min(_AT_ONCE, max(1, os.fstat(self._fd).st_size)))
        at = 0
        while count := os.preadv(self._fd, [buffer], at):
            hashing.update(memoryview(buffer)[:count])
            at += count
        return f"blake3:{hashing.hexdigest()}"
