"""Everything that differs between systems: calls that Python does not have, and what
to do where a kernel or a file system lacks them.  Linux first; elsewhere the
answers are the plain ones."""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import functools
import os
import re
import resource
import struct
import sys
from collections.abc import Iterator

LINUX = sys.platform == "linux"
CLONES_BY_NAME = sys.platform == "darwin"
# To open what may have been swapped for a symlink or a fifo meanwhile.
READ_SAFELY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
O_NOATIME = getattr(os, "O_NOATIME", 0)

# Inode flags that are kept and restored: immutable, append-only, nodump, noatime
# (FS_*_FL of linux/fs.h).
RESTORED_FLAGS = 0x10 | 0x20 | 0x40 | 0x80
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
# How a system says that it, or a file system, cannot do a thing.
CANNOT = (
    errno.EINVAL,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.EXDEV,
    errno.EPERM,
    errno.ETXTBSY,
)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _failed(*names: bytes) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), *(os.fsdecode(name) for name in names[:1]))


def has_library(name: str) -> bool:
    """Whether a shared library, named without `lib` and its version, is installed."""
    from ctypes.util import find_library

    return find_library(name) is not None


def inode_number(number: int) -> int:
    """An inode number as a column of SQLite holds it: some file systems use all 64 bits."""
    return number if number < 1 << 63 else number - (1 << 64)


# --- statx -----------------------------------------------------------------------

_AT_EMPTY_PATH = 0x1000
_AT_SYMLINK_NOFOLLOW = 0x100
_STATX_BTIME = 0x800
_STATX_SIZE = 256
_BTIME_AT = 0x50  # struct statx: stx_btime, after stx_atime at 0x40


@functools.cache
def _statx() -> ctypes._NamedFuncPointer | None:
    try:
        call = _libc().statx
    except AttributeError:
        return None
    call.argtypes = [
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_char_p,
    ]
    call.restype = ctypes.c_int
    return call


def birth_time(dir_fd: int, name: bytes) -> int | None:
    """When an entry was made, in ns since 1970; None where the system does not say.
    An empty name asks for the descriptor itself."""
    call = _statx()
    if call is None:
        return None
    buffer = ctypes.create_string_buffer(_STATX_SIZE)
    flags = _AT_SYMLINK_NOFOLLOW if name else _AT_EMPTY_PATH
    if call(dir_fd, name, flags, _STATX_BTIME, buffer):
        return None
    mask = int.from_bytes(buffer.raw[0:4], sys.byteorder)
    if not mask & _STATX_BTIME:
        return None
    seconds, nanoseconds = struct.unpack_from("=qI", buffer.raw, _BTIME_AT)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


# --- durability and renames ------------------------------------------------------------


def sync_filesystem(fd: int) -> None:
    """Make everything on the file system of `fd` durable.  Raises OSError."""
    if not LINUX:
        os.sync()
        return
    if _libc().syncfs(fd):
        raise _failed()


_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2


@functools.cache
def _renameat2() -> ctypes._NamedFuncPointer | None:
    try:
        call = _libc().renameat2
    except AttributeError:
        return None
    call.argtypes = [
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_uint,
    ]
    call.restype = ctypes.c_int
    return call


def exchange(src_dir: int, src: bytes, dst_dir: int, dst: bytes) -> bool:
    """Swap two names in one step; False where the system cannot.  Raises OSError."""
    call = _renameat2()
    if call is None:
        return False
    if call(src_dir, src, dst_dir, dst, _RENAME_EXCHANGE) == 0:
        return True
    if ctypes.get_errno() in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP):
        return False
    raise _failed(src)


def rename_new(src_dir: int, src: bytes, dst_dir: int, dst: bytes) -> None:
    """Rename to a name that must not be taken.  Raises FileExistsError, OSError."""
    call = _renameat2()
    if call is not None:
        if call(src_dir, src, dst_dir, dst, _RENAME_NOREPLACE) == 0:
            return
        if ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise _failed(dst)
    # Only a run that holds the lock renames here, so that looking first is enough.
    try:
        os.stat(dst, dir_fd=dst_dir, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(src, dst, src_dir_fd=src_dir, dst_dir_fd=dst_dir)
        return
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fsdecode(dst))


# --- inodes ----------------------------------------------------------------------------


def file_system_number(fd: int) -> int | None:
    """The f_type of the file system of `fd` (statfs(2), Linux); None where it is not told."""
    statfs = (ctypes.c_long * 32)()  # begins with it
    return None if _libc().fstatfs(fd, ctypes.byref(statfs)) else statfs[0]


_CLONE_NOFOLLOW, _CLONE_NOOWNERCOPY = 1, 2  # sys/clonefile.h


def clone_new(fd: int, folder: int, name: bytes) -> bool:
    """Make a new file in an open folder that shares all bytes of an open one (fclonefileat(2)
    of macOS, on APFS); False where impossible.  Raises OSError."""
    call = getattr(_libc(), "fclonefileat", None)
    if call is None:
        return False
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
    if call(fd, folder, name, _CLONE_NOFOLLOW | _CLONE_NOOWNERCOPY) == 0:
        return True
    if ctypes.get_errno() in CANNOT:
        return False
    raise _failed(name)


def punch_hole(fd: int, offset: int, length: int) -> bool:
    """Give the space of a range of an open file back, which then reads as zeros (fallocate
    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE); False where impossible.  Raises OSError."""
    fallocate = getattr(_libc(), "fallocate64", None) if LINUX else None
    if fallocate is None:
        return False
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if fallocate(fd, 3, offset, length) == 0:
        return True
    if ctypes.get_errno() in CANNOT:
        return False
    raise _failed()


def inode_flags(fd: int) -> int:
    """The flags of an open file or directory that are kept; 0 where there are none."""
    return _all_flags(fd) & RESTORED_FLAGS


def _all_flags(fd: int) -> int:
    if not LINUX:
        return 0
    import fcntl

    value = array.array("l", [0])
    try:
        fcntl.ioctl(fd, _FS_IOC_GETFLAGS, value)
    except OSError:
        return 0
    return value[0]


def set_inode_flags(fd: int, flags: int) -> None:
    """Set the kept flags of an open inode; its other flags stay.  Raises OSError."""
    import fcntl

    value = array.array("l", [(_all_flags(fd) & ~RESTORED_FLAGS) | flags])
    fcntl.ioctl(fd, _FS_IOC_SETFLAGS, value)


# --- reading without a trace ---------------------------------------------------------------


def open_quietly(name: bytes, flags: int, dir_fd: int) -> int:
    """Open a name without following a symlink, waiting for a writer, or touching its
    access time where that is allowed.  Raises OSError."""
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(name, flags | O_NOATIME, dir_fd=dir_fd)
    except PermissionError:
        if not O_NOATIME:
            raise
        return os.open(name, flags, dir_fd=dir_fd)


def read_once_hint(fd: int) -> None:
    """Say that what is read from `fd` will not be wanted again."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_NOREUSE)


_CACHESTAT = 451  # the same number on every architecture


def cached_pages(fd: int) -> int | None:
    """How many pages of a file are in the page cache; None where the system does
    not say (cachestat(2), Linux 6.5)."""
    if not LINUX:
        return None
    whole = struct.pack("=QQ", 0, 0)
    result = ctypes.create_string_buffer(40)
    if _libc().syscall(ctypes.c_long(_CACHESTAT), fd, whole, result, 0):
        return None
    pages: int = struct.unpack_from("=Q", result.raw)[0]
    return pages


def drop_cache(fd: int, offset: int, length: int) -> None:
    """Let the page cache forget a range of a file; length 0 is to its end."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)


_ANYWHERE = 1 << 40  # bytes: a file that no file system refuses without saying so


def require_size(fd: int, size: int) -> None:
    """Raise OSError (EFBIG) where an open, empty file may not become so large.  One that is not
    enormous is not tried: a drive without holes would give it all its blocks."""
    try:
        os.lseek(fd, size, os.SEEK_SET)  # EINVAL beyond the most (lseek(2))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG)) from error
    os.lseek(fd, 0, os.SEEK_SET)
    if size > _ANYWHERE:
        os.ftruncate(fd, size)
        os.ftruncate(fd, 0)


def data_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The (start, end) of what is not a hole in the first `size` bytes, rising.
    Raises OSError."""
    at = 0
    while at < size:
        start, end = next_data(fd, at, size)
        if start >= size:
            return
        yield start, end
        at = end


def next_data(fd: int, at: int, size: int) -> tuple[int, int]:
    """The (start, end) of the first stretch from `at` on that is not a hole, within the
    first `size` bytes; (size, size) where there is none.  Moves the descriptor's own
    offset.  Raises OSError."""
    try:
        start = os.lseek(fd, at, os.SEEK_DATA)
        end = os.lseek(fd, start, os.SEEK_HOLE)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size, size
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
        return at, size
    return min(start, size), min(end, size)


# --- the machine ----------------------------------------------------------------------------


_VIRTUAL = re.compile(r"loop|vd[a-z]|xvd|nbd|rbd|zd\d|zram|ram")


def is_rotational(path: bytes) -> bool:
    """Whether a path lies on a disk with a head to move; False where unknown.
    Virtual disks do not know, and say what their driver was born with."""
    device = os.stat(path).st_dev
    base = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
    if _VIRTUAL.match(os.path.basename(os.path.realpath(base))):
        return False
    for where in (base, f"{base}/.."):  # a partition's queue is its disk's
        try:
            with open(f"{where}/queue/rotational") as file:
                return file.read().strip() == "1"
        except OSError:
            continue
    return False


# M_TRIM_THRESHOLD, M_MMAP_THRESHOLD (bytes) and M_ARENA_MAX of malloc.h.
_MALLOC = ((-1, 16 << 20), (-3, 4 << 20), (-8, 1))


def raise_descriptor_limit() -> int:
    """Allow this process as many open files as it may have, within reason; how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # -1 is no limit
    wanted = soft if soft < 0 else max(soft, min(hard % (1 << 64), 65536))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return min(resource.getrlimit(resource.RLIMIT_NOFILE)[0] % (1 << 64), 65536)


def keep_freed_memory() -> None:
    """Have the C library keep some megabytes of what is freed, for all threads together:
    else buffers of a megabyte go back to the system at once, and a page fault for each 4 KiB
    of the next one takes longer than to fill it.  Nothing where it is not glibc (mallopt(3))."""
    mallopt = getattr(_libc(), "mallopt", None)
    if mallopt is not None:
        for what, value in _MALLOC:
            mallopt(what, value)


def path_of(dir_fd: int, name: bytes) -> bytes:
    """A path for calls that take no descriptor (Linux)."""
    return b"/proc/self/fd/%d/%s" % (dir_fd, name)


@contextlib.contextmanager
def held_itself(dir_fd: int, name: bytes) -> Iterator[tuple[int | bytes, os.stat_result]]:
    """Hold on to what has a name, a symlink itself, whatever the name becomes: what leads to it
    and no further, and its stat.  That is a path (O_PATH of open(2), Linux), else a descriptor
    (O_SYMLINK of open(2), macOS).  Raises OSError."""
    if LINUX:
        flags = os.O_PATH | os.O_NOFOLLOW
    else:
        flags = os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_SYMLINK", os.O_NOFOLLOW)
    fd = os.open(name, flags | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        yield b"/proc/self/fd/%d" % fd if LINUX else fd, os.fstat(fd)
    finally:
        os.close(fd)
