"""Before a snapshot is removed: what deltas of other snapshots need of it is written anew.

A delta over an object that goes is composed with that one's own, over what is left; where the
object was whole, the version before it becomes whole.  Each is read back and compared with its
digest before anything is removed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from mirrorback.engine.history import History
from mirrorback.engine.open_large import open_object
from mirrorback.engine.past_file import PastFile
from mirrorback.errors import Damaged
from mirrorback.model import Digest, Metadata
from mirrorback.plan import delta_map
from mirrorback.store import content, live, node, past, schema
from mirrorback.store.delta_reader import DeltaReader
from mirrorback.store.delta_writer import DeltaWriter
from mirrorback.store.durable import scratch
from mirrorback.store.record import Replaced
from mirrorback.store.repository import REDO, undo_name


def rebase(history: History, snapshot: int) -> list[Replaced]:
    """Write into `redo/` what is to take the place of deltas that cannot do without a snapshot.
    Raises Damaged where they cannot be read: then it has to stay.  Raises OSError."""
    catalog = history.catalog
    going = past.only_in(catalog, [snapshot])
    found = past.dependents(catalog, going)
    if not found:
        return []
    redo = history.repo.open_inner(REDO)
    try:
        work = _Rebase(history, going, redo)
        return [work.one(number, base) for number, base in found if not work.is_lost(number, base)]
    finally:
        os.close(redo)


class _Rebase:
    def __init__(self, history: History, going: set[int], redo: int) -> None:
        self._history = history
        self._going = going
        self._redo = redo

    def is_lost(self, number: int, base: int) -> bool:
        """Whether nothing more can be lost of a delta: it is damaged itself, or what it needs
        of the snapshot is gone already."""
        (_number, *over), base = self._way(number, base)
        with contextlib.ExitStack() as opened:
            try:
                self._reader(opened, number).check()
            except (Damaged, FileNotFoundError):
                return True
            try:
                for one in over:
                    self._reader(opened, one)
                if base in self._going:
                    os.close(open_object(self._history, base, delta=False))
            except FileNotFoundError:
                return True
        return False

    def one(self, number: int, base: int) -> Replaced:
        """Write one object anew, so far a delta over another that goes."""
        metadata, digest = live.object_row(self._history.catalog, number)
        if digest is None:
            raise Damaged("the catalog has no digest of a delta")
        chain, base = self._way(number, base)
        with contextlib.ExitStack() as opened, scratch(self._redo, undo_name(number)) as fd:
            readers = [self._reader(opened, one) for one in chain]
            if base in self._going:
                replaced = Replaced(number, None)
                self._write_whole(opened, fd, readers, base)
                found = content.digest_of(fd, os.fstat(fd), digest.sparse)
            else:
                stored = self._write_delta(fd, readers, base, (metadata, digest))
                replaced = Replaced(number, base, stored)
                found = self._read_back(opened, fd, base, digest)
            if found != digest:
                raise Damaged(
                    "a version of a large file that depends on this snapshot is damaged:"
                    " `mirrorback verify` names it"
                )
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
        return DeltaReader(fd)

    def _write_whole(
        self, opened: contextlib.ExitStack, fd: int, readers: list[DeltaReader], base: int
    ) -> None:
        whole = open_object(self._history, base, delta=False)
        opened.callback(os.close, whole)
        file = PastFile(whole, readers)
        for offset, data in file.pieces():
            content.write_sparsely(fd, data, offset)
        os.ftruncate(fd, file.size)

    def _write_delta(
        self, fd: int, readers: list[DeltaReader], base: int, old: tuple[Metadata, Digest]
    ) -> int:
        """One delta of all; its size."""
        composed = delta_map.merge(delta_map.compose(reader.segments for reader in readers))
        writer = DeltaWriter(fd)
        for length, source, offset in composed.pieces(0, composed.size):
            if source == len(readers):
                writer.copy(offset, length)
            else:
                for at, part in _parts(length):
                    writer.literal(readers[source].literal(offset + at, part))
        metadata, digest = live.object_row(self._history.catalog, base)
        assert digest is not None
        return writer.finish(old[0].size, old[1], metadata.size, digest)

    def _read_back(
        self, opened: contextlib.ExitStack, fd: int, base: int, digest: Digest
    ) -> Digest:
        """The digest of what a new delta gives, through those that its base needs."""
        readers = [DeltaReader(fd)]
        held = past.holding(self._history.catalog, base)
        while held is not None and held.drive == schema.DELTA and held.base is not None:
            readers.append(self._reader(opened, base))
            base = held.base
            held = past.holding(self._history.catalog, base)
        whole = open_object(self._history, base, delta=False)
        opened.callback(os.close, whole)
        file = PastFile(whole, readers)
        hashing = content.hasher(digest.sparse)
        for offset, data in file.pieces():
            hashing.feed(offset, data)
        return hashing.finish(file.size)


def _parts(length: int) -> Iterator[tuple[int, int]]:
    for at in range(0, length, content.CHUNK):
        yield at, min(content.CHUNK, length - at)
