"""Extended attributes: the one module that knows the `xattr` package.

The package serves where it can: reading and writing attributes of open files
and directories by names that are text.  Three things it cannot do, so that on
Linux they are done by the calls of `os` underneath: list without two calls
(a million files have none, and are asked each), take names that are not UTF-8,
and reach a symlink below a descriptor, whose path may be too long for a call.
Access control lists and capabilities are attributes like others, in the form
the kernel gives them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from mirrorback.store import system

Attributes = tuple[tuple[bytes, bytes], ...]

# A file system's own doubles of what is carried under another name.
PRIVATE = (b"trusted.SGI_ACL_", b"system.ntfs_", b"system.nfs4_acl", b"btrfs.", b"trusted.overlay.")
MOST = 16 << 20  # bytes of one inode's: a row of the catalog that can be read again
LISTS = (b"system.posix_acl_access", b"system.posix_acl_default")  # the latter is inherited
_GONE = (errno.ENODATA, errno.EPERM, errno.EACCES, getattr(errno, "ENOATTR", errno.ENODATA))
_NONE = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_REFUSED = frozenset(
    {*_NONE, errno.EPERM, errno.EACCES, errno.ENOSPC, errno.EDQUOT, errno.E2BIG, errno.ERANGE}
    | {errno.EINVAL}
)


def read(fd: int) -> Attributes:
    """All attributes of an open file or directory that may be read, sorted by name.
    Raises OSError."""
    names = _list(fd, follow=True)
    if not names:
        return ()
    return _values(names, lambda name: _get_open(fd, name))


def read_at(dir_fd: int, name: bytes) -> Attributes:
    """The same of an entry itself, never through a symlink.  Raises OSError."""
    path = system.path_of(dir_fd, name)
    names = _list(path, follow=False)
    if not names:
        return ()
    return _values(names, lambda key: os.getxattr(path, key, follow_symlinks=False))


def write(fd: int, attributes: Attributes) -> list[bytes]:
    """Give an open file or directory these attributes and no others; the names of
    those that the drive refused.  Raises OSError."""
    for stray in set(_list(fd, follow=True)) - {name for name, _value in attributes}:
        _remove_open(fd, stray)
    refused = []
    for name, value in attributes:
        try:
            _set_open(fd, name, value)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            refused.append(name)
    return refused


def write_at(place: int | bytes, attributes: Attributes) -> list[bytes]:
    """Give what is held at a place (`system.held_itself`) these attributes; the names of those
    that the drive refused.  Raises OSError."""
    refused = []
    for key, value in attributes:
        try:
            if isinstance(place, int):
                _set_open(place, key, value)
            else:
                os.setxattr(place, key, value)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            refused.append(key)
    return refused


def has_list(fd: int) -> bool:
    """Whether an open file or directory has an access control list that gives more users or
    groups than its own what they may do.  Raises OSError."""
    return any(name in LISTS[:1] for name in _list(fd, follow=True))


def remove_lists(fd: int) -> None:
    """Take the access control lists of an open directory away, of what is made in it too; a
    drive that has none has none."""
    for name in LISTS:
        _remove_open(fd, name)


def _list(target: int | bytes, *, follow: bool) -> list[bytes]:
    try:
        if system.LINUX:
            names = os.listxattr(target, follow_symlinks=follow)
        else:
            names = _package_list(target, follow=follow)
    except OSError as error:
        if error.errno in _NONE or error.errno in _GONE:
            return []
        raise
    if not names:
        return []
    return [raw for raw in map(os.fsencode, names) if not raw.startswith(PRIVATE)]


def _package_list(target: int | bytes, *, follow: bool) -> list[str]:
    import xattr

    return list(xattr.xattr(target, 0 if follow else xattr.XATTR_NOFOLLOW).list())


def _values(names: list[bytes], get: Callable[[bytes], bytes]) -> Attributes:
    found = []
    size = 0
    for name in sorted(names):
        try:
            found.append((name, get(name)))
        except OSError as error:
            if error.errno not in _GONE:
                raise
            continue
        size += len(name) + len(found[-1][1])
        if size > MOST:
            raise OSError(errno.E2BIG, f"has more than {MOST:,} bytes of extended attributes")
    return tuple(found)


def _text(name: bytes) -> str | None:
    """The name as the package can take it, None where it cannot."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _get_open(fd: int, name: bytes) -> bytes:
    text = _text(name)
    if text is None:
        return os.getxattr(fd, name)
    import xattr

    value: bytes = xattr.xattr(fd).get(text)
    return bytes(value)


def _set_open(fd: int, name: bytes, value: bytes) -> None:
    text = _text(name)
    if text is None:
        os.setxattr(fd, name, value)
        return
    import xattr

    xattr.xattr(fd).set(text, value)


def _remove_open(fd: int, name: bytes) -> None:
    import contextlib

    with contextlib.suppress(OSError):
        if system.LINUX:
            os.removexattr(fd, name)
            return
        import xattr

        xattr.xattr(fd).remove(os.fsdecode(name))
