"""The view as FUSE asks for it; the one module that knows `mfusepy`, and libfuse by it."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import signal
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from mirrorback.engine.open_version import OpenVersion
from mirrorback.engine.uses import Uses
from mirrorback.engine.view import Node, View
from mirrorback.errors import MirrorbackError
from mirrorback.model import Kind
from mirrorback.store import mounts, system

T = TypeVar("T")

KEPT_S = 1.0  # how long the kernel may keep names and attributes
SETTLED_S = KEPT_S + 0.5
CACHED_PATHS = 20_000  # of which it is known what the kernel's page cache holds
READ_AHEAD = 2 << 20  # bytes: two requests, of which one is answered while the other is read
BLOCK = 512  # the unit of st_blocks
POSIX_ACL = 1 << 19  # FUSE_CAP_POSIX_ACL of libfuse 3: the kernel applies the lists
DEVICE = "/dev/fuse"
INSTALL = "`pip install 'mirrorback[mount]'`"
INSTALL_FUSE = "`apt install fuse3`"


class NoFuse(MirrorbackError):
    """This machine cannot mount; the message says what to install."""


class MountFailed(MirrorbackError):
    """The system refused the mount."""


def require() -> None:
    """Raises NoFuse where something is missing that a mount needs."""
    _library()
    if not os.path.exists(DEVICE):
        raise NoFuse(f"{DEVICE} is not there: {INSTALL_FUSE}, then `modprobe fuse`")


def serve(
    view: View,
    point: bytes,
    *,
    allow_other: bool,
    ready: Callable[[], None],
    tell: Callable[[str], None],
) -> None:
    """Mount a view and answer until it is unmounted, or SIGINT, SIGTERM or SIGHUP comes,
    after which it is unmounted.  Called in the main thread.

    `ready` is called when the mount point can be used, `tell` with every trouble that a
    program which reads there only sees as an error number; both from any thread.  Raises
    NoFuse, MountFailed.
    """
    library = _library()
    heard = _Heard()

    def begun() -> None:
        heard.stop()
        ready()

    operations = Operations(view, begun, tell, point, enforce_acls=allow_other)
    options = {
        "ro": True,
        "use_ino": True,
        "fsname": "mirrorback",
        "subtype": "mirrorback",
        "attr_timeout": KEPT_S,
        "entry_timeout": KEPT_S,
        "negative_timeout": 0,
        "allow_other": allow_other,
        # Only the one who mounts may enter otherwise, and that one may read all.
        "default_permissions": allow_other,
    }
    with heard, _signals_for_libfuse():
        try:
            library.FUSE(
                operations,
                point.decode("utf-8", "surrogateescape"),
                raw_fi=True,
                foreground=True,
                **options,
            )
        except RuntimeError as error:
            # Once it was ready, this is how libfuse says that a signal has ended it.
            if not operations.begun:
                raise MountFailed(_reason(heard.stop(), error)) from error
        finally:
            operations.uses.close()


def _library() -> Any:
    """mfusepy, bound to libfuse 3 where that is installed.  Raises NoFuse."""
    if system.has_library("fuse3"):
        os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")
    try:
        import mfusepy
    except ImportError as error:
        raise NoFuse(f"mount needs the package mfusepy: {INSTALL}") from error
    except (OSError, AttributeError) as error:
        raise NoFuse(f"mount needs libfuse: {INSTALL_FUSE}") from error
    logging.getLogger("fuse").disabled = True  # `Operations` tells what there is to tell
    return mfusepy


def _reason(heard: str, error: RuntimeError) -> str:
    lines = [line.strip() for line in heard.splitlines() if line.strip()]
    said = "; ".join(lines) or f"libfuse says {error}"
    advice = f": {INSTALL_FUSE}" if "exec" in said and "fusermount" in said else ""
    return f"the mount failed: {said}{advice}"


class _Heard:
    """What is written to standard error meanwhile: libfuse tells its errors nowhere else."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._text = ""
        self._real = self._pipe = -1

    def __enter__(self) -> None:
        self._real = os.dup(2)
        self._pipe, theirs = os.pipe()
        os.set_blocking(self._pipe, False)
        os.dup2(theirs, 2)
        os.close(theirs)

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> str:
        """Give standard error back; what was written."""
        with self._lock:
            if self._real >= 0:
                os.dup2(self._real, 2)
                with contextlib.suppress(BlockingIOError):
                    self._text = os.read(self._pipe, 1 << 16).decode("utf-8", "replace")
                os.close(self._real)
                os.close(self._pipe)
                self._real = -1
            return self._text


@contextlib.contextmanager
def _signals_for_libfuse() -> Iterator[None]:
    """libfuse takes the signals that end it, if they are nobody else's; Python's handlers
    would not run while it does."""
    held = {}
    for number in (signal.SIGTERM, signal.SIGHUP):  # and SIGINT, which mfusepy sees to
        if signal.getsignal(number) is not signal.SIG_IGN:
            held[number] = signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)


def _answers(method: Callable[..., T]) -> Callable[..., T]:
    """Make every failure of a method an error number, which is all that FUSE takes."""

    @functools.wraps(method)
    def answer(self: Operations, *arguments: Any) -> T:
        try:
            return method(self, *arguments)
        except OSError as error:
            raise OSError(error.errno or errno.EIO, "") from error
        except MirrorbackError as error:
            self.tell(str(error))
            raise OSError(errno.EIO, "") from error
        except Exception as error:
            self.tell(f"internal error: {type(error).__name__}: {error}")
            raise OSError(errno.EIO, "") from error

    return answer


@dataclass(frozen=True, slots=True)
class _Handle:
    """An open file."""

    path: bytes
    node: Node
    version: OpenVersion
    direct: bool  # past the kernel's page cache


class Operations:
    """What libfuse calls, by the names that mfusepy gives it.  Paths are text with lone
    surrogates, and begin with a slash.  The mount is read-only: the kernel itself refuses
    all that would write, with EROFS."""

    use_ns = True

    def __init__(
        self,
        view: View,
        ready: Callable[[], None],
        tell: Callable[[str], None],
        point: bytes,
        *,
        enforce_acls: bool = False,
    ) -> None:
        """`point` is where the view is mounted; `enforce_acls` has the kernel apply access
        control lists along with modes."""
        self.begun = False
        self.tell = tell
        self.uses = Uses(view.hold)
        self._view = view
        self._ready = ready
        self._point = point
        self._read_ahead = False
        self._enforce_acls = enforce_acls
        self._lock = threading.Lock()
        self._handles: dict[int, _Handle] = {}
        self._folders: dict[int, int] = {}  # open folders: the snapshots they are in
        self._number = 0
        self._open: dict[bytes, list[_Handle]] = {}  # those that fill the page cache
        self._cached: OrderedDict[bytes, tuple[int, int]] = OrderedDict()

    def init_with_config(self, connection: Any, config: Any) -> None:
        """libfuse is about to answer; `config` is None before libfuse 3."""
        if self._enforce_acls and config is not None and connection is not None:
            connection.want |= connection.capable & POSIX_ACL
        self.begun = True
        self._ready()

    # --- names and attributes -----------------------------------------------------------

    @_answers
    def getattr(self, path: str, info: Any = None) -> dict[str, int]:
        """The attributes of a path; of an open file those it was opened with."""
        handle = self._handles.get(info.fh) if info is not None else None
        return _attributes(self._look(path) if handle is None else handle.node)

    def _look(self, path: str) -> Node:
        """What is at a path; its snapshot is in use, if it is in one, and not the whole of it."""
        plain = _plain(path)
        node = self._view.look(plain)
        if node.snapshot is not None and b"/" in plain:
            self.uses.touch(node.snapshot.id)
        return node

    @_answers
    def opendir(self, path: str) -> int:
        """A folder is about to be listed."""
        node = self._view.look(_plain(path))
        if node.snapshot is None:
            return 0
        self.uses.begin(node.snapshot.id)
        with self._lock:
            self._number += 1
            self._folders[self._number] = node.snapshot.id
            return self._number

    @_answers
    def releasedir(self, _path: str | None, handle: int) -> int:
        """It has been."""
        with self._lock:
            snapshot = self._folders.pop(handle, None)
        if snapshot is not None:
            self.uses.end(snapshot)
        return 0

    @_answers
    def readdir(self, path: str, _handle: int) -> list[tuple[str, dict[str, int], int]]:
        """The names in a folder."""
        folder = _plain(path)
        own, above = (self._view.look(p).inode for p in (folder, folder.rpartition(b"/")[0]))
        listed = [(b".", Kind.DIRECTORY, own), (b"..", Kind.DIRECTORY, above)]
        listed += self._view.names(folder)
        return [
            (_text(name), {"st_mode": kind.format_bits, "st_ino": inode}, 0)
            for name, kind, inode in listed
        ]

    @_answers
    def readlink(self, path: str) -> str:
        """Where a symlink points."""
        target = self._look(path).metadata.target
        if target is None:
            raise OSError(errno.EINVAL, "")
        return _text(target)

    @_answers
    def listxattr(self, path: str) -> list[str]:
        """The names of extended attributes."""
        return [_text(name) for name, _value in self._look(path).metadata.xattrs]

    @_answers
    def getxattr(self, path: str, name: str, _position: int = 0) -> bytes:
        """The value of an extended attribute."""
        wanted = name.encode("utf-8", "surrogateescape")
        for found, value in self._look(path).metadata.xattrs:
            if found == wanted:
                return value
        raise OSError(errno.ENODATA, "")

    @_answers
    def statfs(self, _path: str) -> dict[str, int]:
        """The room on the drive."""
        room = self._view.room()
        return {key: getattr(room, key) for key in dir(room) if key.startswith("f_")}

    # --- content --------------------------------------------------------------------------

    @_answers
    def open(self, path: str, info: Any) -> int:
        """Open a file.  What the kernel keeps of its pages is kept by path, and may be of
        the file that was there before a backup; a handle that would mix the two goes past
        that cache."""
        if not self._read_ahead:  # libfuse asks for it before a mount is ready, in vain
            self._read_ahead = True
            mounts.read_ahead(self._point, READ_AHEAD)
        where = _plain(path)
        node = self._view.look(where)
        version = self._opened(node)
        settled = self._view.settled(SETTLED_S)
        with self._lock:
            others = self._open.setdefault(where, [])
            mixed = any(other.node.content != node.content for other in others)
            handle = _Handle(where, node, version, direct=mixed or not settled)
            if not handle.direct:
                others.append(handle)
                info.keep_cache = self._cached.get(where) == node.content
                self._remember(where, node.content)
            elif not others:
                del self._open[where]
            info.direct_io = handle.direct
            self._number += 1
            self._handles[self._number] = handle
            info.fh = self._number
        return 0

    def _opened(self, node: Node) -> OpenVersion:
        """The content of a file; its snapshot is in use from now on."""
        if node.snapshot is None:
            return self._view.open(node)
        self.uses.begin(node.snapshot.id)
        try:
            return self._view.open(node)
        except BaseException:
            self.uses.end(node.snapshot.id)
            raise

    def _remember(self, path: bytes, content: tuple[int, int]) -> None:
        self._cached[path] = content
        self._cached.move_to_end(path)
        if len(self._cached) > CACHED_PATHS:
            self._cached.popitem(last=False)

    @_answers
    def read(self, _path: str, size: int, offset: int, info: Any) -> bytes:
        """Some bytes of an open file."""
        return self._handles[info.fh].version.pread(offset, size)

    @_answers
    def release(self, _path: str, info: Any) -> int:
        """The file is not used any more."""
        with self._lock:
            handle = self._handles.pop(info.fh)
            if not handle.direct:
                others = self._open[handle.path]
                others[:] = [other for other in others if other is not handle]
                if not others:
                    del self._open[handle.path]
        handle.version.close()
        if handle.node.snapshot is not None:
            self.uses.end(handle.node.snapshot.id)
        return 0


def _plain(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")[1:]


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _attributes(node: Node) -> dict[str, int]:
    metadata = node.metadata
    size = metadata.size if metadata.target is None else len(metadata.target)
    return {
        "st_ino": node.inode,
        "st_mode": metadata.kind.format_bits | metadata.mode,
        "st_nlink": node.links,
        "st_uid": metadata.owner.uid,
        "st_gid": metadata.owner.gid,
        "st_rdev": metadata.rdev,
        "st_size": size,
        "st_blocks": -(-size // BLOCK) if metadata.kind is Kind.FILE else 0,
        "st_atime": metadata.mtime,
        "st_mtime": metadata.mtime,
        "st_ctime": metadata.mtime,
    }
