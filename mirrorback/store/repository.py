"""The repository: where everything lies on the drive, and how it is made and opened."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator

from mirrorback.errors import Damaged, DriveError, NoRepository, NoSpace, Refused
from mirrorback.model import Snapshot
from mirrorback.store import content, durable, probe, settings, tree, xattrs
from mirrorback.store.catalog import PENDING, Catalog
from mirrorback.store.settings import Settings

CURRENT = b"current"
INNER = b".mirrorback"
INCOMING = b"incoming"
TRASH = b"trash"
SALVAGE = b"incoming-"  # in the trash: what interrupted runs have copied
CATALOG = b"catalog.db"
SPOOL = b"spool.db"
RESERVE = b"reserve"
SIGNATURES = b"signatures"
REDO = b"redo"
DAMAGED = b"damaged"  # what a repair has set apart
README = b"README.txt"
MIRROR = b"mirror.toml"
RESERVE_BYTES = 4 << 20
RESERVE_INODES = 8
_TO_RESERVE = os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

HARMLESS = frozenset({b"lost+found"})  # may stand in a folder that counts as empty

DELTA_SUFFIX = b".rdiff.zst"  # of a reverse delta, behind the file's own name

README_TEXT = """\
This is a backup made by mirrorback.  You do not need mirrorback to read it.

current/                the newest state of the folder that was backed up
2026-11-22-020000/      the whole folder as it was at that time (local time:
                        year-month-day-hour minute second)

Every folder is complete and can be browsed with any program.  To get a file
or a folder back, copy it, for instance:

    cp -a 2026-11-22-020000/Documents/letter.odt ~/Documents/

A large file that has changed since may stand in an older folder as a difference,
NAME.rdiff.zst: what has to be done to the next newer version of the file to get
the old one.  The common tools zstd and rdiff do it (on Debian: apt install zstd
rdiff):

    zstd -dc 2026-11-21-020000/disk.img.rdiff.zst | rdiff patch NEWER - disk.img

NEWER is the next newer version.  Look for it in the folders that follow, up to
current/:

  * a disk.img: that is it;
  * a disk.img.rdiff.zst that is the same as the one you have (the same size and
    time; to be sure, `ls -i` shows the same number): go on to the next folder;
  * another disk.img.rdiff.zst: get that version back first, in the same way, under
    another name.  Then it is your NEWER.

If the file was moved meanwhile, the newer version has the new name.  `mirrorback
restore`, `cat` and `mount` do all this by themselves.

Do not change files here: what did not change between two backups is the same
file in both folders (a hard link), so that an edit would change all of them.
To copy the whole backup to another drive, keep the hard links:

    rsync -aHAX Backup/ /media/other/Backup/

To remove old states use `mirrorback delete`.  A dated folder that you remove by
hand does no harm to the others, but will be reported as missing.

.mirrorback/            what mirrorback itself needs: a catalog of all versions,
                        which can be made anew from the folders
"""


class Repository:
    """An open repository.  `fd` is its folder, `inner` its `.mirrorback`."""

    def __init__(self, path: bytes, fd: int, inner: int, found: Settings) -> None:
        self.path = path
        self.fd = fd
        self.inner = inner
        self.settings = found

    @classmethod
    def open(cls, path: bytes) -> Repository:
        """Open an existing repository.  Raises NoRepository, Damaged, and
        MirrorbackError for a newer format."""
        try:
            fd = tree.open_root(path)
        except OSError as error:
            if error.errno == errno.EIO:
                raise DriveError(f"{_shown(path)} cannot be opened: {error.strerror}") from error
            raise _none(path, error.strerror) from error
        try:
            try:
                inner = os.open(INNER, tree.DIRECTORY_FLAGS, dir_fd=fd)
            except (FileNotFoundError, NotADirectoryError):
                raise _none(path, "no .mirrorback in it") from None
            except OSError as error:
                raise DriveError(f"{INNER.decode()} cannot be opened: {error.strerror}") from error
            try:
                return cls(os.path.realpath(path), fd, inner, settings.read(inner))
            except FileNotFoundError:
                os.close(inner)
                raise _none(path, "no .mirrorback/repository.toml in it") from None
            except BaseException:
                os.close(inner)
                raise
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def create(cls, path: bytes, new: Settings, *, force: bool = False) -> Repository:
        """Make a repository at `path`, which may be an empty folder or not be
        there at all; `force` takes a folder that holds other things.  Raises
        Refused, DriveError."""
        try:
            os.makedirs(path, mode=0o700, exist_ok=True)
            fd = tree.open_root(path)
        except (FileExistsError, NotADirectoryError):
            raise DriveError(f"{_shown(path)} is not a folder: give the folder to use") from None
        except OSError as error:
            raise DriveError(f"{_shown(path)} cannot be made: {error.strerror}") from error
        try:
            if _is_repository(fd):
                raise Refused(f"{_shown(path)} is a repository already: back up without --init")
            probe.clean(fd)
            found = {os.fsencode(name) for name in os.listdir(fd)}
            if INNER in found:
                # An attempt to make one here that was cut short.
                found -= {INNER, README, README + b".new"}
            if found - HARMLESS and not force:
                raise Refused(
                    f"{_shown(path)} is not empty: name a new folder in it, or use --force"
                )
            with contextlib.suppress(OSError):
                os.fchmod(fd, new.mode)
            with contextlib.suppress(FileExistsError):
                os.mkdir(INNER, 0o700, dir_fd=fd)
            inner = os.open(INNER, tree.DIRECTORY_FLAGS, dir_fd=fd)
        except OSError as error:
            os.close(fd)
            raise DriveError(f"{_shown(path)} cannot be used: {error.strerror}") from error
        except BaseException:
            os.close(fd)
            raise
        made = cls(os.path.realpath(path), fd, inner, new)
        made._furnish()
        return made

    def _furnish(self) -> None:
        """Fill a new repository.  `repository.toml` comes last: before it there is none."""
        with contextlib.suppress(OSError):
            os.fchmod(self.inner, 0o700)
        # Nothing below is to inherit an access control list of the drive's.
        xattrs.write(self.inner, ())
        with contextlib.suppress(FileNotFoundError):
            os.unlink(CATALOG, dir_fd=self.inner)  # of an attempt that ended before this
        Catalog.create(self.inner_path(CATALOG)).close()
        for name in (TRASH, b"log", SIGNATURES, REDO):
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=self.inner)
        durable.replace(self.fd, README, README_TEXT.encode())
        make_reserve(self.inner)
        settings.write(self.inner, self.settings)
        os.fsync(self.fd)

    def renew_readme(self) -> None:
        """Let README.txt say what this version of the program does.  Raises OSError."""
        text = README_TEXT.encode()
        try:
            found = durable.read(self.fd, README)
        except OSError:
            found = b""
        if found != text:
            durable.replace(self.fd, README, text)

    def close(self) -> None:
        """Close the descriptors."""
        os.close(self.inner)
        os.close(self.fd)

    def inner_path(self, name: bytes) -> bytes:
        """The path of a file in `.mirrorback`, for what takes no descriptor."""
        return os.path.join(self.path, INNER, name)

    def open_inner(self, name: bytes) -> int:
        """A descriptor of a folder in `.mirrorback`, made where there is none.  Raises OSError."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self.inner)
        return os.open(name, tree.DIRECTORY_FLAGS, dir_fd=self.inner)

    def identity(self) -> tuple[int, int]:
        """Device and inode number of the folder."""
        st = os.fstat(self.fd)
        return st.st_dev, st.st_ino

    # --- where the snapshots lie ----------------------------------------------

    def root_number(self, where: int, name: bytes) -> int | None:
        """Inode number of a folder in the repository, None where there is none.
        Raises Damaged where something else has its name."""
        try:
            st = os.stat(name, dir_fd=where, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if (st.st_mode & 0o170000) != 0o040000:
            raise Damaged(f"{_shown(name)} in the repository is not a folder; move it away")
        return st.st_ino

    def place(self, catalog: Catalog, snapshot: Snapshot) -> tuple[int, bytes]:
        """Where a snapshot's folder is: descriptor of the folder that holds it, and name.

        Right also between the commit and the end of the renames that follow it,
        so that reading a drive never needs it to be written.
        """
        pending = catalog.in_state(1)
        if pending:
            root = catalog.db.execute(
                "SELECT root FROM snapshot WHERE id = ?", (snapshot.id,)
            ).fetchone()[0]
            for where, name in (
                (self.fd, CURRENT),
                (self.inner, INCOMING),
                (self.fd, os.fsencode(snapshot.name)),
            ):
                if self.root_number(where, name) == root:
                    return where, name
        if snapshot.current:
            return self.fd, CURRENT
        return self.fd, os.fsencode(snapshot.name)

    def open_folder(self, catalog: Catalog, number: int) -> int:
        """A descriptor of the folder of a snapshot, by its id, for the caller to close; it
        stays that snapshot's whatever the folder is called later.  Right also while another
        run renames folders.  Raises FileNotFoundError where there is none, OSError."""
        known = catalog.folders()
        while True:
            fd = self._try_folder(known, number)
            now = catalog.folders()
            if now == known and fd is not None:
                return fd
            if fd is not None:
                os.close(fd)
            elif now == known:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            known = now

    def _try_folder(self, known: list[tuple[int, str, int, int]], number: int) -> int | None:
        """The folder of a snapshot, if what is known still holds; None where it is not found."""
        ids = [row[0] for row in known]
        if number not in ids:
            return None
        _id, name, _state, root = known[ids.index(number)]
        dated = (self.fd, os.fsencode(name))
        if number not in ids[-2:] or all(row[2] != PENDING for row in known):
            where, shown = (self.fd, CURRENT) if number == ids[-1] else dated
            with contextlib.suppress(FileNotFoundError):
                return os.open(shown, tree.DIRECTORY_FLAGS, dir_fd=where)
            return None
        # The two newest are on their way to their names.
        for where, shown in (
            (self.fd, CURRENT),
            (self.inner, INCOMING),
            (self.inner, former(root)),
            dated,
            (self.fd, CURRENT),  # it may have gone there meanwhile
        ):
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(shown, tree.DIRECTORY_FLAGS, dir_fd=where)
                if os.fstat(fd).st_ino == root:
                    return fd
                os.close(fd)
        return None

    def location(self, catalog: Catalog, snapshot: Snapshot) -> bytes:
        """The absolute path of a snapshot's folder."""
        where, name = self.place(catalog, snapshot)
        return os.path.join(self.path, name if where == self.fd else INNER + b"/" + name)

    def salvage(self) -> list[bytes]:
        """Names in the trash of what interrupted runs have copied, newest first."""
        try:
            fd = os.open(TRASH, tree.DIRECTORY_FLAGS, dir_fd=self.inner)
        except FileNotFoundError:
            return []
        try:
            found = [os.fsencode(n) for n in os.listdir(fd)]
        finally:
            os.close(fd)
        ours = (n for n in found if n.startswith(SALVAGE) and n[len(SALVAGE) :].isdigit())
        return sorted(ours, reverse=True)


def undo_name(number: int) -> bytes:
    """The name in `redo/` of what an object of history will be: its reverse delta."""
    return b"%d.undo" % number


def bad_name(number: int) -> bytes:
    """The name in `redo/` of the list of inodes that an object must not show any more."""
    return b"%d.bad" % number


def redo_name(number: int) -> bytes:
    """The name in `redo/` of the changes that make an object of the mirror's file."""
    return b"%d.redo" % number


@contextlib.contextmanager
def drive_errors() -> Iterator[None]:
    """Turn an OSError of the drive into an error of ours, one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(
                "the drive is full; nothing older was touched:"
                " delete snapshots (`mirrorback delete`) or free space, then run again"
            ) from error
        where = error.filename
        name = f" ({_shown(os.fsencode(where))})" if isinstance(where, (str, bytes)) else ""
        raise DriveError(f"the drive failed: {error.strerror or error}{name}") from error


def make_reserve(inner: int) -> None:
    """Set some bytes and inodes aside, to be given up on a full drive.  A drive
    without room for them has none."""
    with contextlib.suppress(OSError):
        os.mkdir(RESERVE, 0o700, dir_fd=inner)
    try:
        folder = os.open(RESERVE, tree.DIRECTORY_FLAGS, dir_fd=inner)
    except OSError:
        return
    try:
        for number in range(RESERVE_INODES):
            fd = os.open(str(number), _TO_RESERVE, 0o600, dir_fd=folder)
            try:
                size = os.fstat(fd).st_size  # not all of it where the drive was full
                if number == 0 and size < RESERVE_BYTES:
                    # Real bytes: a drive that compresses would keep none of zeros.
                    content.write_all(fd, secrets.token_bytes(RESERVE_BYTES - size), size)
            finally:
                os.close(fd)
    except OSError:
        pass
    finally:
        os.close(folder)


def give_up_reserve(inner: int) -> None:
    """Free what `make_reserve` set aside."""
    from mirrorback.store.remove import remove_tree

    remove_tree(inner, RESERVE, threads=1)


def former(root: int) -> bytes:
    """What a mirror with this inode number is called in `.mirrorback` while it waits for its
    dated name, on a drive that cannot exchange two names."""
    return b"former-%d" % root


def new_id() -> str:
    """A name for a repository that no other has."""
    return secrets.token_hex(16)


def _is_repository(fd: int) -> bool:
    try:
        os.stat(os.path.join(INNER, b"repository.toml"), dir_fd=fd, follow_symlinks=False)
    except OSError:
        return False
    return True


def _none(path: bytes, reason: str | None) -> NoRepository:
    return NoRepository(
        f"there is no repository at {_shown(path)} ({reason}): is the drive mounted?"
        " A new one is made with --init"
    )


def _shown(path: bytes) -> str:
    return settings.escape(path)
