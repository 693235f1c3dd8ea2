"""What is left to do of large files after a commit: history gets deltas, the mirror changes.

An object that the catalog has in `replacing` is a reverse delta by now (or whole again), whose
file lies in `redo/`.  `give` puts it in the place of the object's file in every dated folder;
`patch` then writes the changes that lie there too into the file itself, which is the mirror's
alone.  Both can be done again, and do nothing where all is done.  In between everything must
be synced: `publish` sees to that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from mirrorback.errors import Damaged, DriveError
from mirrorback.model import Metadata, Snapshot
from mirrorback.store import (
    clones,
    content,
    durable,
    live,
    node,
    past,
    record,
    schema,
    system,
    tree,
)
from mirrorback.store.catalog import ABOVE_ROOT, Catalog
from mirrorback.store.clones import NewFile
from mirrorback.store.past import PastRow
from mirrorback.store.remove import remove_tree
from mirrorback.store.repository import (
    CURRENT,
    DELTA_SUFFIX,
    REDO,
    SIGNATURES,
    Repository,
    bad_name,
    redo_name,
    undo_name,
)


class Replacing(NamedTuple):
    """A row of that table."""

    object: int
    form: int
    patched: int | None
    removal: int | None


def pending(catalog: Catalog) -> list[Replacing]:
    """What is left to do, of all runs."""
    rows = catalog.db.execute(
        "SELECT object, form, patched, removal FROM replacing ORDER BY object"
    )
    return [Replacing._make(row) for row in rows]


def give(repo: Repository, catalog: Catalog, what: Replacing) -> None:
    """Put an object's new file in the place of the former in all dated folders.
    Raises OSError, Damaged."""
    redo = repo.open_inner(REDO)
    try:
        new = undo_name(what.object)
        if not _is_shown(catalog, what.object):
            return  # its last snapshot has gone while this waited for room
        if _stat(new, redo) is None:  # which no run of ours leaves so
            from mirrorback.store.regained import regained

            if not regained(repo, catalog, what, redo):
                return
        metadata, _digest = live.object_row(catalog, what.object)
        for row, snapshot, folder in shown(repo, catalog, what.object):
            with writable(folder, snapshot):
                _replace(redo, new, folder, row.name, metadata, what.form)
            restore_time(catalog, row.dir, snapshot, folder)
    finally:
        os.close(redo)


def patch(repo: Repository, catalog: Catalog, what: Replacing) -> None:
    """Write the changes of an object into its file in the mirror.  Where they are gone or
    damaged, that file is no good: it gets its size, so that history's delta still makes the
    former of it, and a mark, by which the next backup copies it anew.  Raises OSError and the
    catalog's errors."""
    if what.patched is None:
        return
    redo = repo.open_inner(REDO)
    try:
        changes = os.open(redo_name(what.patched), system.READ_SAFELY, dir_fd=redo)
    except FileNotFoundError:
        changes = None  # no run of ours leaves it so
    finally:
        os.close(redo)
    try:
        with _in_mirror(repo, catalog, what.patched) as fd:
            metadata, _digest = live.object_row(catalog, what.patched)
            if not _applied(changes, fd):
                os.ftruncate(fd, metadata.size)
                _mark(catalog, what.patched)
            node.Dresser().dress_open(fd, metadata, fresh=False)
    finally:
        if changes is not None:
            os.close(changes)


def _applied(changes: int | None, fd: int) -> bool:
    """Whether all changes are in an open file now."""
    from mirrorback.store.delta_reader import DeltaReader
    from mirrorback.store.patch import apply

    if changes is None:
        return False
    try:
        apply(DeltaReader(changes), fd)
    except Damaged:
        return False
    return True


def _mark(catalog: Catalog, number: int) -> None:
    newest = catalog.snapshots()[-1]
    record.damaged(catalog, number, newest.time, "content is not what was backed up")


def clear_redo(repo: Repository, catalog: Catalog) -> None:
    """Empty `redo`, but for what is left to do.  Raises OSError."""
    needed: set[bytes] = set()
    for what in pending(catalog):
        needed.update((undo_name(what.object), bad_name(what.object)))
        if what.patched is not None:
            needed.add(redo_name(what.patched))
    redo = repo.open_inner(REDO)
    try:
        for name in map(os.fsencode, os.listdir(redo)):
            if name not in needed:
                remove_tree(redo, name, threads=1)
    finally:
        os.close(redo)


def clear_signatures(repo: Repository, catalog: Catalog) -> None:
    """Remove the signatures of what the mirror does not show.  Raises OSError."""
    signatures = repo.open_inner(SIGNATURES)
    try:
        for name in os.listdir(signatures):
            if not (name.isascii() and name.isdigit()) or not _in_use(catalog, int(name)):
                remove_tree(signatures, os.fsencode(name), threads=1)
    finally:
        os.close(signatures)


def drop_signatures(repo: Repository) -> None:
    """Remove all signatures: they only spare the next backup a look at the drive.  Raises
    OSError."""
    signatures = repo.open_inner(SIGNATURES)
    try:
        for name in map(os.fsencode, os.listdir(signatures)):
            remove_tree(signatures, name, threads=1)
    finally:
        os.close(signatures)


def _in_use(catalog: Catalog, number: int) -> bool:
    found = catalog.db.execute(
        "SELECT 1 FROM entry WHERE object = ? AND last IS NULL LIMIT 1", (number,)
    ).fetchone()
    return found is not None


def _is_shown(catalog: Catalog, number: int) -> bool:
    found = catalog.db.execute("SELECT 1 FROM entry WHERE object = ? LIMIT 1", (number,))
    return found.fetchone() is not None


def shown(
    repo: Repository, catalog: Catalog, number: int
) -> Iterator[tuple[PastRow, Snapshot, int]]:
    """Every entry and dated folder that shows an object, the latter with a descriptor of the
    directory in which it stands, good until the next step."""
    snapshots = [s for s in catalog.snapshots() if not s.current]
    for row in past.showing(catalog, number):
        path = b"" if row.dir == ABOVE_ROOT else catalog.directory_path(row.dir)
        for snapshot in snapshots:
            if not row.shown_in(snapshot.id):
                continue
            try:
                top = os.open(os.fsencode(snapshot.name), tree.DIRECTORY_FLAGS, dir_fd=repo.fd)
            except (FileNotFoundError, NotADirectoryError):
                continue  # someone has removed it, or put something else there
            cursor = tree.Cursor(top)
            try:
                try:
                    folder = cursor.open(path)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                yield row, snapshot, folder
            finally:
                cursor.close()
                os.close(top)


@contextlib.contextmanager
def writable(folder: int, snapshot: Snapshot) -> Iterator[None]:
    """A directory of a snapshot for the time of a change, though someone has closed it.
    Raises DriveError where that is impossible."""
    if os.access(b".", os.W_OK | os.X_OK, dir_fd=folder, effective_ids=True):
        yield
        return
    mode = stat.S_IMODE(os.fstat(folder).st_mode)
    try:
        os.fchmod(folder, mode | 0o700)
        try:
            yield
        finally:
            os.fchmod(folder, mode)
    except PermissionError as error:
        raise DriveError(
            f"a folder in {snapshot.name} cannot be written, and a file in it is to be replaced:"
            " make it writable again, and run again"
        ) from error


def _replace(
    redo: int, new: bytes, folder: int, name: bytes, metadata: Metadata, form: int
) -> None:
    """In one directory."""
    delta = name + DELTA_SUFFIX
    wanted, former = (delta, name) if form == schema.DELTA else (name, delta)
    there = _stat(former, folder)
    ours = there is not None and stat.S_ISREG(there.st_mode)
    if there is not None and form == schema.DELTA:
        ours = ours and there.st_size == metadata.size  # else someone has put it there
    _link(redo, new, folder, wanted, anew=ours)
    if ours:
        os.unlink(former, dir_fd=folder)


def _stat(name: bytes, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _link(redo: int, new: bytes, folder: int, name: bytes, *, anew: bool) -> None:
    """Give a file of `redo` a name in another directory, in the place of what has it.  What
    someone has put there is set aside: all that is no file, and, where the name is given
    `anew`, all."""
    wanted = os.stat(new, dir_fd=redo, follow_symlinks=False)
    there = _stat(name, folder)
    if there is not None:
        if (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino):
            return
        if anew or not stat.S_ISREG(there.st_mode):
            _set_aside(folder, name)
    link = new + b".link"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(link, dir_fd=redo)
    try:
        os.link(new, link, src_dir_fd=redo, dst_dir_fd=redo, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        duplicate(redo, new, link)
    os.rename(link, name, src_dir_fd=redo, dst_dir_fd=folder)


def _set_aside(folder: int, name: bytes) -> None:
    """Rename what stands in a dated folder and is not ours."""
    for number in range(1, 1000):
        with contextlib.suppress(FileExistsError):
            system.rename_new(folder, name, folder, b"%s.set-aside-%d" % (name[:200], number))
            return
    raise FileExistsError(errno.EEXIST, "too many of them have been set aside", name)


def duplicate(redo: int, new: bytes, name: bytes) -> None:
    """A second inode like a file of `redo`, which has all links that the drive allows."""
    old = os.open(new, system.READ_SAFELY, dir_fd=redo)
    try:
        with durable.scratch(redo, name) as fd:
            st = os.fstat(old)
            for offset, data in content.pieces(old, st):
                content.write_all(fd, data, offset)
            node.Dresser().dress_open(fd, node.read_open(old, st, redo, new))
    finally:
        os.close(old)


def restore_time(catalog: Catalog, directory: int, snapshot: Snapshot, fd: int) -> None:
    """Give a directory the mtime back that it has lost when a name in it changed."""
    place = catalog.db.execute(
        "SELECT parent, name FROM directory WHERE id = ?", (directory,)
    ).fetchone()
    row = past.entry(catalog, place[0], place[1], snapshot.id) if place else None
    if row is not None:
        node.set_times(fd, row.metadata.mtime)


@contextlib.contextmanager
def _in_mirror(repo: Repository, catalog: Catalog, number: int) -> Iterator[int]:
    """The mirror's file of an object, open for writing.  If by now it has a name that the
    catalog does not know, that keeps what it shows: the mirror gets a file of its own.
    Raises OSError."""
    entry = live.places_of(catalog, number)[0]
    directory, name = live.place(catalog, entry)
    top = os.open(CURRENT, tree.DIRECTORY_FLAGS, dir_fd=repo.fd)
    cursor = tree.Cursor(top)
    try:
        folder = cursor.open(catalog.directory_path(directory))
        fd = _open_to_write(folder, name)
        try:
            if os.fstat(fd).st_nlink == 1:
                yield fd
                return
            with _copied(repo, fd, folder, name) as own:
                yield own
            restore_time(catalog, directory, catalog.snapshots()[-1], folder)
        finally:
            os.close(fd)
    finally:
        cursor.close()
        os.close(top)


def _open_to_write(folder: int, name: bytes) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=folder)
    except PermissionError:
        if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise
        os.chmod(name, 0o600, dir_fd=folder)
        fd = os.open(name, flags, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FileNotFoundError(errno.ENOENT, "is no longer a file", name)
    return fd


@contextlib.contextmanager
def _copied(repo: Repository, old: int, folder: int, name: bytes) -> Iterator[int]:
    """A copy of an open file, which takes its name when the block has ended."""
    redo = repo.open_inner(REDO)
    try:
        with durable.scratch(redo, b"copy") as fd:
            st = os.fstat(old)
            if not clones.clone_file(old, NewFile(fd, redo, b"copy")):
                for offset, data in content.pieces(old, st):
                    content.write_all(fd, data, offset)
                os.ftruncate(fd, st.st_size)
            yield fd
            os.rename(b"copy", name, src_dir_fd=redo, dst_dir_fd=folder)
    finally:
        os.close(redo)
