"""Making the right file of one object ready in `redo/`, and setting apart what is damaged."""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass

from mirrorback.engine.dated import Dated
from mirrorback.engine.examine import Examined
from mirrorback.engine.faults import Harm
from mirrorback.engine.history import History
from mirrorback.engine.read_back import Shown
from mirrorback.engine.remedy import CATALOG, ITSELF, LINKS, Remedies
from mirrorback.errors import Damaged, DeltaTooLarge
from mirrorback.model import Digest, Kind
from mirrorback.store import content, live, mend, node, past, probe, schema, system, tree
from mirrorback.store.clones import NewFile
from mirrorback.store.durable import scratch
from mirrorback.store.record import Replaced
from mirrorback.store.repository import REDO, undo_name


@dataclass(frozen=True, slots=True)
class Prepared:
    """An object that can be given its names."""

    origin: str
    replaced: Replaced | None = None  # where it will be held otherwise than before
    written: int = 0  # bytes
    set_apart: bytes | None = None  # within `.mirrorback`


class Preparing:
    """Prepares objects."""

    def __init__(self, history: History, dated: Dated, remedies: Remedies) -> None:
        self._history = history
        self._dated = dated
        self._remedies = remedies
        self._reflinks: bool | None = None  # nobody has asked

    def prepare(self, found: Examined) -> Prepared | None:
        """Make the right file of an object that is no directory; None where that is impossible.
        Raises NoRoom, OSError for what the drive does."""
        redo = self._history.repo.open_inner(REDO)
        try:
            made = self._make(found, redo)
            if made is None:
                return None
            bad, apart = self._set_apart(found, made)
            mend.write_bad(redo, found.number, bad)
        finally:
            os.close(redo)
        return Prepared(made.origin, made.replaced, made.written, apart)

    def dress_in_place(self, found: Examined) -> bool:
        """Put the metadata of a file right on the inode itself, where that does harm to nobody,
        and a copy would take much room, or could not be proven; whether that was done.  What is
        cut in this is as it was: marked.  Raises OSError."""
        size, right = found.metadata.size, found.bytes_right
        costly = size >= self._history.repo.settings.delta_min_size and not self._clones()
        if right is None or not found.only_undressed() or found.drive == schema.DELTA:
            return False
        if found.metadata.kind is not Kind.FILE or not (costly or found.digest is None):
            return False
        with self._dated.opened(right.snapshot, right.folder) as folder:
            if folder is None:
                return False
            fd = os.open(right.name, system.READ_SAFELY, dir_fd=folder)
            try:
                st = os.fstat(fd)
                if (st.st_dev, st.st_ino) != right.inode or st.st_nlink > right.links:
                    return False  # someone is just at it
                node.Dresser().dress_open(fd, found.metadata, fresh=False)
                os.fsync(fd)
            finally:
                os.close(fd)
        return True

    def _clones(self) -> bool:
        if self._reflinks is None:
            self._reflinks = probe.probe(self._history.repo.inner_path(b"")).reflinks
        return self._reflinks

    # --- the right file --------------------------------------------------------------------

    def _make(self, found: Examined, redo: int) -> Prepared | None:
        name = undo_name(found.number)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=redo)
        if found.sound is not None and self._link_sound(found, redo, name):
            return Prepared(LINKS)
        if found.metadata.kind is not Kind.FILE:
            try:
                mend.make_other(redo, name, found.metadata)
            except OSError as error:
                if error.errno not in node.CANNOT:
                    raise
                return None
            return Prepared(CATALOG)
        if found.drive == schema.DELTA and found.bytes_right is not None:
            return self._delta_again(found, redo, name)
        return self._file(found, redo, name)

    def _link_sound(self, found: Examined, redo: int, name: bytes) -> bool:
        shown = next(one for one in found.names if one.inode == found.sound)
        try:
            with self._dated.opened(shown.snapshot, shown.folder) as folder:
                if folder is None:
                    return False
                os.link(shown.name, name, src_dir_fd=folder, dst_dir_fd=redo, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EMLINK, errno.EPERM, errno.ENOTSUP):
                raise
            found.bytes_right = shown  # another inode like it takes over
            return False
        return True

    def _delta_again(self, found: Examined, redo: int, name: bytes) -> Prepared:
        assert found.bytes_right is not None
        with scratch(redo, name) as fd:
            size = self._remedies.copy_delta(found, NewFile(fd, redo, name))
            node.Dresser().dress_open(fd, found.metadata)
        return Prepared(ITSELF, None, size)

    def _file(self, found: Examined, redo: int, name: bytes) -> Prepared | None:
        origin = None
        with scratch(redo, name) as fd:
            origin = self._remedies.bring(found, NewFile(fd, redo, name))
            replaced, written = None, os.fstat(fd).st_blocks * 512
            if origin is not None:
                node.Dresser().dress_open(fd, found.metadata)
                if found.drive == schema.DELTA:
                    replaced = self._smaller(found, redo, fd) or Replaced(found.number, None)
        if origin is None:
            os.unlink(name, dir_fd=redo)
            return None
        return Prepared(origin, replaced, written)

    def _smaller(self, found: Examined, redo: int, whole: int) -> Replaced | None:
        """Have a reverse delta take the place of a whole file in `redo/`, where that can be."""
        name = undo_name(found.number)
        small = name + b".small"
        replaced = None
        try:
            with scratch(redo, small) as fd:
                replaced = self._remedies.as_delta(found, whole, fd)
                if replaced is not None:
                    node.Dresser().dress_open(fd, found.metadata)
        except (Damaged, DeltaTooLarge):
            return None
        if replaced is None:
            os.unlink(small, dir_fd=redo)
        else:
            os.rename(small, name, src_dir_fd=redo, dst_dir_fd=redo)
        return replaced

    # --- what is damaged ---------------------------------------------------------------------

    def _set_apart(self, found: Examined, made: Prepared) -> tuple[set[int], bytes | None]:
        """Give every inode that must go a name in `damaged/`; their numbers, and the first of
        these names."""
        bad: dict[tuple[int, int], bytes | None] = {}
        becomes_whole = made.replaced is not None and made.replaced.base is None
        for shown, fault in reversed(found.wrong()):
            # What has only the wrong links is the same as what stays.
            if shown.inode is not None and shown.inode not in bad:
                bad[shown.inode] = None if fault.harm is Harm.LINKS else self.apart(shown)
        if becomes_whole:
            for shown in reversed(found.names):
                self._clear_name(shown, bad)
        first = next((apart for apart in bad.values() if apart is not None), None)
        return {inode for _device, inode in bad}, first

    def apart(self, shown: Shown) -> bytes | None:
        """Give what stands at one name of an object a name in `damaged/`, as
        `mend.set_apart` does; None where there is nothing."""
        return self._apart(shown, shown.name)

    def _apart(self, shown: Shown, name: bytes) -> bytes | None:
        repo = self._history.repo
        with self._dated.opened(shown.snapshot, shown.folder) as folder:
            if folder is None:
                return None
            path = tree.join(shown.folder, name)
            return mend.set_apart(repo, folder, name, shown.snapshot.name, path)

    def _clear_name(self, shown: Shown, bad: dict[tuple[int, int], bytes | None]) -> None:
        """Set apart what stands beside a delta, at the name that a whole file is to get."""
        with self._dated.opened(shown.snapshot, shown.folder) as folder:
            if folder is None:
                return
            st = mend.look(shown.row.name, folder)
        if st is not None and (st.st_dev, st.st_ino) not in bad:
            bad[st.st_dev, st.st_ino] = self._apart(shown, shown.row.name)

    # --- proof -------------------------------------------------------------------------------

    def unproven(self, batch: dict[int, Prepared]) -> list[int]:
        """Make durable what has been prepared, and read it back: the objects whose files are
        not what they should be.  Raises OSError."""
        system.sync_filesystem(self._history.repo.fd)
        redo = self._history.repo.open_inner(REDO)
        try:
            return [
                number
                for number, prepared in batch.items()
                if prepared.origin not in (LINKS, CATALOG)
                and not self._is_right(redo, number, prepared)
            ]
        finally:
            os.close(redo)

    def _is_right(self, redo: int, number: int, prepared: Prepared) -> bool:
        metadata, digest = live.object_row(self._history.catalog, number)
        held = past.holding(self._history.catalog, number)
        delta = held is not None and held.drive == schema.DELTA
        if prepared.replaced is not None:
            delta = prepared.replaced.base is not None
        fd = os.open(undo_name(number), system.READ_SAFELY, dir_fd=redo)
        try:
            system.drop_cache(fd, 0, 0)
            return _is_delta_of(fd, metadata.size, digest) if delta else _has(fd, digest)
        finally:
            os.close(fd)


def _has(fd: int, digest: Digest | None) -> bool:
    st = os.fstat(fd)
    return digest is not None and content.digest_of(fd, st, digest.sparse) == digest


def _is_delta_of(fd: int, size: int, digest: Digest | None) -> bool:
    from mirrorback.store.delta_reader import DeltaReader

    try:
        reader = DeltaReader(fd)
        reader.check()
    except Damaged:
        return False
    return reader.old_size == size and reader.old_digest == digest
