"""Before a snapshot is removed: what deltas of other snapshots need of it is written anew.

A delta over an object that goes is composed with that one's own, over what is left; where the
object was whole, the version before it becomes whole.  Each is proven before anything is removed:
by its digest, or, where that cannot be had since something is damaged, by giving the very same
as the deltas that it takes the place of.  What cannot be written anew is `Lost`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mirrorback.engine.history import History
from mirrorback.engine.open_large import open_object
from mirrorback.engine.past_file import PastFile
from mirrorback.errors import Damaged, DeltaTooLarge, MirrorbackError
from mirrorback.model import Digest
from mirrorback.plan import delta_map
from mirrorback.plan.delta_map import Composed
from mirrorback.store import content, live, node, past, schema
from mirrorback.store.delta_reader import DeltaReader
from mirrorback.store.delta_writer import DeltaWriter
from mirrorback.store.durable import scratch
from mirrorback.store.record import Replaced
from mirrorback.store.repository import REDO, undo_name


class Lost(NamedTuple):
    """An object whose delta cannot be read, or not all that it is over."""

    object: int
    needed: tuple[int, ...]  # objects that go: none where nothing of it is left on the drive
    itself: bool  # its own delta cannot be read: it needs these for less than all of it


def rebase(history: History, snapshot: int) -> tuple[list[Replaced], list[Lost]]:
    """Write into `redo/` what is to take the place of deltas that cannot do without a snapshot,
    but for those that are lost.  Where it fails nothing is left there.  Raises OSError, and
    Damaged where what was written is not right."""
    going = past.only_in(history.catalog, [snapshot])
    found = past.dependents(history.catalog, going)
    replaced: list[Replaced] = []
    lost: list[Lost] = []
    if not found:
        return replaced, lost
    redo = history.repo.open_inner(REDO)
    try:
        work = _Rebase(history, going, redo)
        for number, base in found:
            try:
                replaced.append(work.one(number, base))
            except _Unreadable:
                lost.append(work.lost(number, base))
    except BaseException:
        for new in replaced:  # they take room that is wanted elsewhere
            with contextlib.suppress(OSError):
                os.unlink(undo_name(new.object), dir_fd=redo)
        raise
    finally:
        os.close(redo)
    return replaced, lost


class _Unreadable(Exception):
    """Something that was there before cannot be read."""


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Tells what cannot be read from what cannot be written."""
    try:
        yield
    except (Damaged, OSError) as error:
        raise _Unreadable from error


class _Rebase:
    def __init__(self, history: History, going: set[int], redo: int) -> None:
        self._history = history
        self._going = going
        self._redo = redo

    def lost(self, number: int, base: int) -> Lost:
        """What of a delta that cannot be written anew is to be kept."""
        if not self._is_there(number, delta=True):
            return Lost(number, (), itself=True)
        (_number, *over), base = self._way(number, base)
        needed = [one for one in over if self._is_there(one, delta=True)]
        if base in self._going and self._is_there(base, delta=False):
            needed.append(base)
        return Lost(number, tuple(needed), self._is_damaged(number))

    def _is_there(self, number: int, *, delta: bool) -> bool:
        try:
            os.close(open_object(self._history, number, delta=delta))
        except (Damaged, FileNotFoundError):
            return False
        return True

    def _is_damaged(self, number: int) -> bool:
        try:
            with contextlib.ExitStack() as opened:
                self._reader(opened, number).check()
        except (Damaged, OSError):
            return True
        return False

    def one(self, number: int, base: int) -> Replaced:
        """Write one object anew, so far a delta over another that goes.  Raises _Unreadable."""
        metadata, digest = live.object_row(self._history.catalog, number)
        chain, base = self._way(number, base)
        with contextlib.ExitStack() as opened, scratch(self._redo, undo_name(number)) as fd:
            with _reading():
                readers = [self._reader(opened, one) for one in chain]
            if base in self._going:
                self._write_whole(opened, fd, readers, base, digest)
                replaced = Replaced(number, None)
            else:
                replaced = self._write_delta(opened, fd, readers, number, base, digest)
            node.Dresser().dress_open(fd, metadata)
            return replaced

    def _way(self, number: int, base: int) -> tuple[list[int], int]:
        """The deltas from an object to the first one that stays, or is whole."""
        chain = [number]
        while base in self._going:
            held = past.holding(self._history.catalog, base)
            if held is None or held.drive != schema.DELTA or held.base is None:
                break
            chain.append(base)
            base = held.base
        return chain, base

    def _reader(self, opened: contextlib.ExitStack, number: int) -> DeltaReader:
        fd = open_object(self._history, number, delta=True)
        opened.callback(os.close, fd)
        return DeltaReader(fd, scan=True)

    def _file(
        self, opened: contextlib.ExitStack, readers: Sequence[DeltaReader], base: int
    ) -> PastFile:
        """What readers give over an object, which may be a delta itself.  Raises _Unreadable."""
        with _reading():
            way = list(readers)
            held = past.holding(self._history.catalog, base)
            while held is not None and held.drive == schema.DELTA and held.base is not None:
                way.append(self._reader(opened, base))
                base = held.base
                held = past.holding(self._history.catalog, base)
            whole = open_object(self._history, base, delta=False)
            opened.callback(os.close, whole)
            return PastFile(whole, way, changing=held is not None and held.patched)

    def _write_whole(
        self,
        opened: contextlib.ExitStack,
        fd: int,
        readers: Sequence[DeltaReader],
        base: int,
        digest: Digest | None,
    ) -> None:
        """All that can be read, though it may not be what it once was: `verify` knows that."""
        file = self._file(opened, readers, base)
        sparse = digest is not None and digest.sparse
        hashing = content.hasher(sparse)
        for offset, data in _pieces(file):
            hashing.feed(offset, data)
            content.write_sparsely(fd, data, offset)
        os.ftruncate(fd, file.size)
        if content.digest_of(fd, os.fstat(fd), sparse) != hashing.finish(file.size):
            raise _unproven()

    def _write_delta(
        self,
        opened: contextlib.ExitStack,
        fd: int,
        readers: Sequence[DeltaReader],
        number: int,
        base: int,
        digest: Digest | None,
    ) -> Replaced:
        """One delta of all."""
        with _reading():
            composed = delta_map.merge(delta_map.compose(reader.segments for reader in readers))
        metadata, base_digest = live.object_row(self._history.catalog, base)
        old, new = digest or readers[0].old_digest, base_digest or readers[-1].base_digest
        if old is None or new is None:
            raise MirrorbackError(
                "the catalog has no digest of a large file that depends on this snapshot:"
                " `mirrorback rebuild --force --digests` learns them all"
            )
        writer = DeltaWriter(fd)
        try:
            for _at, copied, piece in _ranges(composed, readers):
                if copied is None:
                    writer.literal(piece)
                else:
                    writer.copy(*copied)
            stored = writer.finish(composed.size, old, metadata.size, new)
        except DeltaTooLarge:
            os.ftruncate(fd, 0)
            self._write_whole(opened, fd, readers, base, digest)
            return Replaced(number, None)
        except ValueError as error:  # they are not of files of these sizes
            raise _Unreadable from error
        self._prove(opened, fd, base, old, composed, readers)
        return Replaced(number, base, stored)

    def _prove(
        self,
        opened: contextlib.ExitStack,
        fd: int,
        base: int,
        digest: Digest,
        composed: Composed,
        readers: Sequence[DeltaReader],
    ) -> None:
        """Raises Damaged unless a new delta gives what the catalog says, or else, if what it is
        over is damaged, just what the former deltas do."""
        new = DeltaReader(fd)
        with contextlib.suppress(_Unreadable):
            file = self._file(opened, [new], base)
            hashing = content.hasher(digest.sparse)
            for offset, data in _pieces(file):
                hashing.feed(offset, data)
            if hashing.finish(file.size) == digest:
                return
        ours = delta_map.compose([new.segments])
        if ours.size != composed.size:
            raise _unproven()
        for at, copied, piece in _ranges(composed, readers):
            length = len(piece) if copied is None else copied[1]
            done = 0
            for part, source, offset in ours.pieces(at, at + length):
                if copied is not None:
                    right = source == 1 and offset == copied[0] + done
                else:
                    right = source == 0 and new.literal(offset, part) == piece[done : done + part]
                if not right:
                    raise _unproven()
                done += part


def _ranges(
    composed: Composed, readers: Sequence[DeltaReader]
) -> Iterator[tuple[int, tuple[int, int] | None, bytes]]:
    """A version from its beginning to its end: where a range begins, and what it copies of the
    base, as (offset, length), or its bytes, 1 MiB at most.  Raises _Unreadable."""
    at = 0
    for length, source, offset in composed.pieces(0, composed.size):
        if source == len(readers):
            yield at, (offset, length), b""
            at += length
            continue
        for begin in range(0, length, content.CHUNK):
            with _reading():
                piece = readers[source].literal(offset + begin, min(content.CHUNK, length - begin))
            yield at, None, piece
            at += len(piece)


def _pieces(file: PastFile) -> Iterator[tuple[int, bytes]]:
    """All content of a version.  Raises _Unreadable."""
    for offset in range(0, file.size, content.CHUNK):
        with _reading():
            data = file.pread(offset, content.CHUNK)
        yield offset, data


def _unproven() -> Damaged:
    return Damaged(
        "what was written to the drive cannot be read back as it was written: see what the system's"
        " log says of the drive, and run again"
    )
