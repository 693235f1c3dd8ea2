"""Small files written so that they are there, whole, or are what they were."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

from mirrorback.store import content, system

LIMIT = 1 << 20  # a small file is never longer


def replace(
    folder: int,
    name: bytes,
    data: bytes,
    *,
    keep: bool = False,
    mode: int = 0o600,
    lasting: bool = True,
) -> None:
    """Put `data` at `name` in an open folder: temporary file, sync, rename, sync.
    It has this `mode`; `keep`: owner and mode of the file that is there.  Not `lasting`:
    without the last sync, so that a power cut may undo it.  Raises OSError."""
    fd = _write_new(folder, name, data)
    try:
        if mode != 0o600:
            os.fchmod(fd, mode)
        if keep:
            with contextlib.suppress(FileNotFoundError):
                st = os.stat(name, dir_fd=folder)
                os.fchown(fd, st.st_uid, st.st_gid)
                os.fchmod(fd, st.st_mode & 0o7777)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(name + b".new", name, src_dir_fd=folder, dst_dir_fd=folder)
    if lasting:
        os.fsync(folder)


def write_new(folder: int, name: bytes, data: bytes) -> None:
    """The first half of `replace`, to be synced with all else: `name`.new holds the data."""
    os.close(_write_new(folder, name, data))


def _write_new(folder: int, name: bytes, data: bytes) -> int:
    # What an earlier attempt has left goes: it may be a pipe, or have another name elsewhere.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name + b".new", dir_fd=folder)
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name + b".new", flags, 0o600, dir_fd=folder)
    try:
        content.write_all(fd, data, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read(folder: int, name: bytes, most: int = LIMIT) -> bytes:
    """A small file's content, never through a symlink, never more than 1 MiB, or than the
    first bytes that are asked for.  Raises OSError."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        return content.read_up_to(fd, most, 0)
    finally:
        os.close(fd)


@contextlib.contextmanager
def scratch(folder: int, name: bytes) -> Iterator[int]:
    """A new, empty file in an open folder, open for reading and writing, in the place of one
    that is there.  It is removed where the block fails.  Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        yield fd
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)
        raise
    finally:
        os.close(fd)


@contextlib.contextmanager
def syncing(fd: int) -> Iterator[Callable[[], None]]:
    """Begin to make durable all that is written on the file system of `fd` by now, and
    go on; what is given waits for its end.  That raises OSError, where it failed."""
    ended = threading.Event()
    failure: list[BaseException] = []

    def sync() -> None:
        try:
            system.sync_filesystem(fd)
        except BaseException as error:
            failure.append(error)
        finally:
            ended.set()

    threading.Thread(target=sync, daemon=True).start()

    def wait() -> None:
        while not ended.wait(0.2):  # in steps, so that a signal is heard
            pass
        if failure:
            raise failure[0]

    try:
        yield wait
    finally:
        ended.wait()
