"""Read-only snapshots of a source on btrfs: made for one backup, removed after it, or by the
next run where that one was cut.

A snapshot lies in `.mirrorback-snapshots` in the root of the source's subvolume, a folder that
stays: to make and remove it each time would change the time stamps of the source.  The
repository has a record of what was made.  It is written before a snapshot is, with a name that
nobody can guess, and completed with the snapshot's UUID; it goes when the snapshot is gone for
good.  Only the name is taken from it, for a drive may lie: what is removed stands in our folder,
is a read-only snapshot of the source's own subvolume, and has the UUID on record.

Where the drive with the record does not come back, another repository's run removes what was
left: a snapshot in our folder that no run holds locked.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
from collections.abc import Container
from dataclasses import dataclass

from mirrorback.errors import Refused, SourceError
from mirrorback.store import durable, mounts, settings, subvolume, system, tree, turn

FOLDER = ".mirrorback-snapshots"
RECORD = b"source-snapshots"
_NAME = re.compile(re.escape(FOLDER) + "(-[0-9]+)?")
_HEX = re.compile(rb"[0-9a-f]{32}")
_LINE = re.compile(rb"([0-9a-f]{32}) ([0-9a-f]{32}) ([0-9a-f]{32}|-)")
_OVERRIDE = "; without --source-snapshot the source is read as it is"
_MAY_NOT = (errno.EPERM, errno.EACCES)


@dataclass(frozen=True, slots=True)
class Left:
    """A snapshot on record: its name, the UUID of what it is of, and its own where known."""

    name: bytes
    origin: bytes
    uuid: bytes | None


@dataclass(frozen=True, slots=True)
class Origin:
    """The subvolume that a source lies in: its open root, its UUID, and where in it that is."""

    fd: int
    path: bytes
    uuid: bytes
    below: bytes

    def close(self) -> None:
        """Close the root."""
        os.close(self.fd)


def is_folder(parent: int, name: str, mode: int) -> bool:
    """Whether an entry of an open folder is where we, or another user's run, keep snapshots."""
    return (
        (mode & 0o170000) == 0o040000
        and _NAME.fullmatch(name) is not None
        and subvolume.is_root(os.fstat(parent))
        and subvolume.on_btrfs(parent)
    )


def origin_of(source: bytes) -> Origin:
    """The subvolume of the folder `source`, whose path has no symlinks.  Raises Refused where it
    lies on no btrfs, or the subvolume's root cannot be reached; SourceError."""
    try:
        fd = tree.open_root(source)
        try:
            if not subvolume.on_btrfs(fd):
                raise Refused(f"{_shown(source)} is not on btrfs{_OVERRIDE}")
            device = os.fstat(fd).st_dev
        finally:
            os.close(fd)
        root = source
        while not subvolume.is_root(st := os.stat(root)):
            above = os.path.dirname(root)
            if above == root or st.st_dev != device or os.stat(above).st_dev != device:
                raise Refused(
                    f"the subvolume that {_shown(source)} lies in is not mounted with its root,"
                    f" and only a whole one can be frozen{_OVERRIDE}"
                )
            root = above
        fd = tree.open_root(root)
    except OSError as error:
        raise SourceError(f"{_shown(source)} cannot be read: {error.strerror}") from error
    try:
        return Origin(fd, root, subvolume.info(fd).uuid, source[len(root) :].strip(b"/"))
    except OSError as error:
        os.close(fd)
        raise _cannot(root, error) from error


def require_removable(origin: Origin) -> None:
    """Raise Refused where we might make a snapshot, but not remove it again."""
    if os.geteuid() == 0:
        return
    mount = mounts.mount_of(origin.path)
    if mount is None or "user_subvol_rm_allowed" not in mount.options:
        raise Refused(
            "only root may remove a snapshot again, or who may write to a btrfs that is mounted"
            f" with user_subvol_rm_allowed{_OVERRIDE}"
        )


def open_folder(origin: Origin, *, make: bool) -> int:
    """The open folder of our snapshots in a subvolume.  Raises FileNotFoundError where there is
    none and `make` is off; Refused where it is not ours alone, or cannot be made."""
    user = os.geteuid()
    name = os.fsencode(FOLDER) + (b"-%d" % user if user else b"")
    try:
        if make:
            try:
                os.mkdir(name, 0o700, dir_fd=origin.fd)
            except FileExistsError:
                pass
        fd = os.open(name, tree.DIRECTORY_FLAGS, dir_fd=origin.fd)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _cannot(origin.path, error) from error
    st = os.fstat(fd)
    if st.st_uid != user or st.st_mode & 0o077 or subvolume.is_root(st):
        os.close(fd)
        raise Refused(
            f"{_shown(os.path.join(origin.path, name))} is not a folder of ours alone:"
            f" move it away{_OVERRIDE}"
        )
    return fd


def snapshot(origin: Origin, folder: int, name: bytes) -> int:
    """Make a snapshot; its open root, which tells other runs until it is closed that the
    snapshot is in use.  Raises Refused where we may not, SourceError."""
    with turn.alone(folder):  # from others who look for what was left
        try:
            subvolume.snapshot(origin.fd, folder, name)
        except OSError as error:
            raise _cannot(origin.path, error) from error
        try:
            root = os.open(name, tree.DIRECTORY_FLAGS, dir_fd=folder)
            fcntl.flock(root, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SourceError(f"the snapshot cannot be opened: {error.strerror}") from error
        return root


def remove_stray(origin: Origin, folder: int, known: Container[bytes]) -> list[bytes]:
    """Remove the snapshots of a subvolume that no run uses and that are none of the `known`;
    their names.  Raises OSError."""
    gone = []
    with turn.alone(folder):
        for name in map(os.fsencode, os.listdir(folder)):
            if _HEX.fullmatch(name) and name not in known and _is_stray(origin, folder, name):
                subvolume.destroy(folder, name)
                gone.append(name)
        if gone:
            system.sync_filesystem(folder)
    return gone


def _is_stray(origin: Origin, folder: int, name: bytes) -> bool:
    try:
        fd = os.open(name, tree.DIRECTORY_FLAGS, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        found = subvolume.info(fd)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return subvolume.is_root(os.fstat(fd)) and found.read_only and found.parent == origin.uuid
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def remove(origin: Origin, folder: int, left: Left) -> bool:
    """Remove what a record names, if it is there; whether the record is done with.  Not where
    something else stands there.  Raises OSError."""
    with turn.alone(folder):
        return _remove(origin, folder, left)


def _remove(origin: Origin, folder: int, left: Left) -> bool:
    try:
        fd = os.open(left.name, tree.DIRECTORY_FLAGS, dir_fd=folder)
    except FileNotFoundError:
        return True
    try:
        found = subvolume.info(fd)
        ours = subvolume.is_root(os.fstat(fd)) and found.parent == origin.uuid == left.origin
        ours = ours and left.uuid in (None, found.uuid)
    finally:
        os.close(fd)
    if ours:
        subvolume.destroy(folder, left.name)
        system.sync_filesystem(folder)  # a power cut must not bring back what is off the record
    return ours


# --- the record ----------------------------------------------------------------------------


def new_name() -> bytes:
    """A name for a snapshot."""
    return secrets.token_hex(16).encode()


def recorded(inner: int) -> list[Left]:
    """What a repository has on record; lines that are none of ours are passed over."""
    try:
        data = durable.read(inner, RECORD)
    except OSError:
        return []
    found = []
    for line in data.splitlines():
        if match := _LINE.fullmatch(line):
            own = None if match[3] == b"-" else bytes.fromhex(match[3].decode())
            found.append(Left(match[1], bytes.fromhex(match[2].decode()), own))
    return found


def record(inner: int, left: list[Left]) -> None:
    """Put this on record, durably.  Raises OSError."""
    if not left:
        try:
            os.unlink(RECORD, dir_fd=inner)
        except FileNotFoundError:
            return
        os.fsync(inner)
        return
    lines = (
        b"%s %s %s\n"
        % (one.name, one.origin.hex().encode(), one.uuid.hex().encode() if one.uuid else b"-")
        for one in left
    )
    durable.replace(inner, RECORD, b"".join(lines))


def _cannot(path: bytes, error: OSError) -> Refused | SourceError:
    if error.errno in _MAY_NOT:
        return Refused(f"a snapshot in {_shown(path)} is not permitted to us{_OVERRIDE}")
    if error.errno == errno.EROFS:
        return Refused(f"{_shown(path)} is read-only: there can be no snapshot in it{_OVERRIDE}")
    return SourceError(
        f"no snapshot can be made in {_shown(path)}: {(error.strerror or str(error)).lower()}"
    )


def _shown(path: bytes) -> str:
    return settings.escape(path)
