"""One new version of one large file, made from the one before."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from mirrorback.engine.bench import Bench
from mirrorback.engine.tally import Tally
from mirrorback.errors import Damaged, DeltaTooLarge, NoSpace
from mirrorback.model import Digest, Metadata
from mirrorback.plan import guards, large
from mirrorback.store import (
    clones,
    content,
    learnt,
    node,
    past,
    probe,
    reading,
    schema,
    system,
)
from mirrorback.store.catalog import Catalog
from mirrorback.store.clones import NewFile
from mirrorback.store.difference import Difference
from mirrorback.store.durable import scratch
from mirrorback.store.repository import redo_name, undo_name
from mirrorback.store.revise import Older, Sink, revise
from mirrorback.store.signature import Signature, SignatureWriter
from mirrorback.store.spool import Spool

COARSE = 2_000_000_000  # ns: no drive rounds times more than that
FAR = 1 << 31  # seconds: beyond, drives clamp times

Reviser = Callable[[Sink], Digest]


class Impossible(Exception):
    """The drive cannot do it so, here."""


@dataclass(frozen=True, slots=True)
class Kit:
    """What all revisions of a build work with; `signatures` and `redo` are open folders."""

    catalog: Catalog
    spool: Spool
    tally: Tally
    not_kept: node.NotKept
    dresser: node.Dresser
    signatures: int
    redo: int

    def close(self) -> None:
        """Close the folders."""
        os.close(self.signatures)
        os.close(self.redo)

    def dress(self, fd: int, metadata: Metadata) -> None:
        """Give a new open file its metadata."""
        missed = self.dresser.dress_open(fd, metadata)
        if missed:
            self.not_kept.add(missed)


@dataclass(frozen=True, slots=True)
class Spot:
    """A name of the new snapshot that is to be made, in a folder that `into` has open."""

    bench: Bench
    folder: bytes
    into: int
    difference: Difference


@dataclass(frozen=True, slots=True)
class Before:
    """The object that a file is a new version of, its file in the mirror open."""

    number: int
    metadata: Metadata
    digest: Digest
    fd: int
    st: os.stat_result


def opened_before(kit: Kit, difference: Difference, origin: tuple[int, bytes]) -> Before | None:
    """The object `use` of a difference; None where its file, at `origin`, is no longer what
    the catalog says.  The caller closes it.  Raises OSError."""
    assert difference.use is not None
    metadata, digest = learnt.object_row(kit.catalog, kit.spool, difference.use)
    try:
        fd = os.open(origin[1], system.READ_SAFELY, dir_fd=origin[0])
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return None
    st = os.fstat(fd)
    same = stat.S_ISREG(st.st_mode) and st.st_size == metadata.size
    if not same or not _same_time(st.st_mtime_ns, metadata.mtime) or digest is None:
        os.close(fd)
        return None
    return Before(difference.use, metadata, digest, fd, st)


def _same_time(found: int, wanted: int) -> bool:
    """Whether a drive's mtime is the one it was given, as far as it can hold it."""
    holdable = 0 <= wanted < FAR * 1_000_000_000
    return not holdable or abs(found - wanted) < COARSE


@contextlib.contextmanager
def _unreadable_is_impossible() -> Iterator[None]:
    """A file with a bad sector is no base, but no reason to end a backup."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise Impossible from error


def _signed(fd: int, st: os.stat_result, signing: SignatureWriter) -> Digest:
    """Sign a file of the drive that has been written after `st`; its digest."""
    hashing = content.hasher(content.wants_sparse(st))
    for offset, data in content.pieces(fd, os.fstat(fd)):
        hashing.feed(offset, data)
        signing.feed(offset, data)
    return hashing.finish(st.st_size)


class Revision:
    """The ways to make the file `spot`, object `number`, of the one before."""

    def __init__(self, kit: Kit, spot: Spot, before: Before, number: int) -> None:
        self._kit = kit
        self._spot = spot
        self._before = before
        self._number = number
        self._stored = 0  # bytes of the source that `change` has to write into the file

    def clone(self) -> reading.Seen:
        """A file that shares with the one before what has not changed.  Raises Impossible,
        Altered, Trouble, OSError."""
        from mirrorback.store.patch import CloneSink

        into, name = self._spot.into, self._spot.difference.name
        with scratch(into, name) as new:

            def make(st: os.stat_result, revised: Reviser) -> Digest:
                os.ftruncate(new, 0)
                if not clones.clone_file(self._before.fd, NewFile(new, into, name)):
                    raise Impossible
                limit = large.delta_limit(st.st_size)
                digest = revised(CloneSink(new, limit, self._kit.tally.stored))
                os.ftruncate(new, st.st_size)
                return digest

            seen = self._read(make)
            self._kit.dress(new, seen.metadata)
        return seen

    def change(self, origin: tuple[int, bytes]) -> reading.Seen:
        """The file before itself, its changes to be written into it when history has its
        reverse delta.  Raises Impossible, TooMuch, Altered, Trouble, OSError."""
        with self._kit.catalog.lock:
            known = past.links_of(self._kit.catalog, self._before.number)
        spot, before = self._spot, self._before
        if spot.bench.salvaging:
            spot.bench.let_go_of_salvage(spot.folder, spot.difference.name, before.st.st_ino)
        if os.fstat(before.fd).st_nlink != known:
            raise Impossible  # someone has a link to it
        redo_folder = self._kit.redo
        with (
            scratch(redo_folder, undo_name(self._before.number)) as undo,
            scratch(redo_folder, redo_name(self._number)) as redo,
        ):
            seen = self._read(partial(self._write_deltas, undo, redo))
            # Should the catalog be lost before the file has its changes, and its time.
            node.set_times(redo, seen.metadata.mtime)
            self._rehearse()
            self._link(origin)
            self._kit.tally.delta(os.fstat(redo).st_size)
            self._kit.tally.stored(self._stored)
            self._kit.tally.will_need(self._growth())
            self._record(undo, patched=self._number)
        return seen

    def undo_by_content(self, seen: reading.Seen) -> None:
        """Now that the file has been copied, a reverse delta for the one before, if that is
        worth it: what moved within the file is found.  Raises OSError."""
        from mirrorback.store.delta_writer import DeltaWriter
        from mirrorback.store.encoder import encode

        assert seen.digest is not None
        size = self._before.st.st_size
        new = os.open(self._spot.difference.name, system.READ_SAFELY, dir_fd=self._spot.into)
        try:
            with scratch(self._kit.redo, undo_name(self._before.number)) as fd:
                undo = DeltaWriter(fd)
                limit = large.delta_limit(size)
                told = self._kit.tally.read
                with _unreadable_is_impossible():
                    worth_it = encode(self._before.fd, new, undo, limit=limit, progress=told)
                if not worth_it:
                    raise Impossible
                undo.finish(size, self._before.digest, seen.metadata.size, seen.digest)
                self._prove(fd, new)
                self._rehearse()
                self._record(fd, patched=None)
        except (Impossible, Damaged, DeltaTooLarge):
            pass  # the one before stays whole
        finally:
            os.close(new)

    def share(self) -> reading.Seen:
        """A file that shares with the one before what has moved within it by whole blocks.
        Raises Impossible where that is not much, Trouble, OSError."""
        from mirrorback.store.encoder import encode
        from mirrorback.store.patch import ShareSink

        with scratch(self._spot.into, self._spot.difference.name) as new:

            def make(fd: int, st: os.stat_result, signing: SignatureWriter) -> Digest:
                os.ftruncate(new, 0)
                sink = ShareSink(self._before.fd, new, fd, self._kit.tally.stored)
                limit = large.delta_limit(st.st_size)
                with sink.failures():
                    told = self._kit.tally.read
                    if not encode(fd, self._before.fd, sink, limit=limit, progress=told):
                        raise Impossible
                os.ftruncate(new, st.st_size)
                return _signed(new, st, signing)

            seen = self._settled(make)
            self._kit.dress(new, seen.metadata)
        return seen

    def require_room(self) -> None:
        """Raises NoSpace where the drive cannot take the file as a whole, which nobody knew
        before it was read."""
        free, _inodes = probe.free_space(self._spot.into)
        needed = self._spot.difference.allocated
        if needed + guards.MARGIN > free:
            raise NoSpace(
                f"the drive has room for {free:,} bytes, and a large file that has changed all"
                f" over needs {needed:,}: delete snapshots (`mirrorback delete`) or free space"
            )

    def _read(self, make: Callable[[os.stat_result, Reviser], Digest]) -> reading.Seen:
        """Have the source's file compared with the one before, and signed."""
        kit, before = self._kit, self._before
        signature = Signature.open(
            kit.signatures, b"%d" % before.number, before.st.st_size, before.digest
        )
        older = Older(before.fd, before.st.st_size, signature)

        def compare(fd: int, st: os.stat_result, signing: SignatureWriter) -> Digest:
            sparse = content.wants_sparse(st)
            told = kit.tally.read
            return make(
                st, partial(revise, fd, st, older, sign=signing, progress=told, sparse=sparse)
            )

        try:
            return self._settled(compare)
        finally:
            if signature is not None:
                signature.close()

    def _settled(
        self, read: Callable[[int, os.stat_result, SignatureWriter], Digest]
    ) -> reading.Seen:
        """Have the source's open file read until it is the same before and after, and signed."""
        name = self._spot.difference.name
        with reading.troubles:
            origin = self._spot.bench.source.open(self._spot.folder)
        fd = reading.open_file(origin, name)
        try:
            with scratch(self._kit.signatures, b"%d" % self._number) as sign:

                def once(st: os.stat_result) -> Digest:
                    os.ftruncate(sign, 0)
                    signing = SignatureWriter(sign)
                    digest = read(fd, st, signing)
                    signing.finish(st.st_size, digest)
                    return digest

                with reading.taken():
                    return reading.read_settled(fd, origin, name, once)
        finally:
            os.close(fd)

    def _write_deltas(
        self, undo_fd: int, redo_fd: int, st: os.stat_result, revised: Reviser
    ) -> Digest:
        from mirrorback.store.delta_writer import DeltaWriter
        from mirrorback.store.patch import DeltaSink

        for fd in (undo_fd, redo_fd):
            os.ftruncate(fd, 0)
        if st.st_size > self._before.st.st_size:
            system.require_size(redo_fd, st.st_size)  # after the commit it has to be possible
        undo, redo = DeltaWriter(undo_fd), DeltaWriter(redo_fd)
        old, new = self._before.st.st_size, st.st_size
        sink = DeltaSink(undo, redo, (old, new), large.revision_limit(old, new))
        digest = revised(sink)
        sink.finish()
        self._stored = sink.stored
        undo.finish(old, self._before.digest, new, digest)
        redo.finish(new, digest, old, self._before.digest)
        return digest

    def _link(self, origin: tuple[int, bytes]) -> None:
        try:
            os.link(
                origin[1],
                self._spot.difference.name,
                src_dir_fd=origin[0],
                dst_dir_fd=self._spot.into,
                follow_symlinks=False,
            )
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            raise Impossible from error

    def _growth(self) -> int:
        """Bytes that the file will take besides those it has: what it grows by, and holes that
        may be filled."""
        st = self._before.st
        allocated = st.st_blocks * 512
        filled = min(self._stored, max(0, st.st_size - allocated))
        return filled + max(0, self._spot.difference.allocated - allocated)

    def _rehearse(self) -> None:
        """Raises Impossible where the drive does not take the names that the delta is to get."""
        catalog, folder = self._kit.catalog, self._kit.redo
        with catalog.lock:
            names = {row.name for row in past.showing(catalog, self._before.number)}
        for name in names:
            delta = large.delta_name(name)
            if delta is None:
                raise Impossible
            try:
                os.link(
                    undo_name(self._before.number),
                    delta,
                    src_dir_fd=folder,
                    dst_dir_fd=folder,
                    follow_symlinks=False,
                )
            except OSError as error:
                if error.errno not in (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ):
                    raise
                raise Impossible from error
            os.unlink(delta, dir_fd=folder)

    def _prove(self, undo: int, new: int) -> None:
        """Raises Impossible unless the delta makes the file before, as it once was, of the new
        one: what the encoder has read may be damaged, while history has a good copy."""
        from mirrorback.engine.past_file import PastFile
        from mirrorback.store.delta_reader import DeltaReader

        file = PastFile(new, [DeltaReader(undo)])
        hashing = content.hasher(self._before.digest.sparse)
        for offset, data in file.pieces():
            hashing.feed(offset, data)
        if hashing.finish(file.size) != self._before.digest:
            raise Impossible

    def _record(self, undo: int, patched: int | None) -> None:
        """The one before is the reverse delta `undo` from now on."""
        self._kit.dress(undo, self._before.metadata)
        stored = os.fstat(undo).st_size
        self._kit.tally.delta(stored)
        self._kit.spool.add("delta", self._before.number, self._number, stored)
        self._kit.spool.add("replacing", self._before.number, schema.DELTA, patched)
