"""Which names a drive can hold: some take UTF-8 only, or what Windows could name, or short ones."""

from __future__ import annotations

import errno
import os
import re

_REFUSING = (errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG)
# One that takes this takes all.
_ALL_AT_ONCE = (b'\x01"*:<>?|\\\x7f\xff' + b"x" * 255)[:254] + b"."
_SHORT = 143  # bytes, which an encrypted file system takes
# What Windows cannot name is refused by some mounts of NTFS (Naming Files, Paths, and
# Namespaces, at learn.microsoft.com).
_PLAIN = re.compile(r'[^\x00-\x1f"*:<>?|\\\x7f]*[^\x00-\x1f"*:<>?|\\\x7f. ]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com.|lpt.)(\..*)?", re.IGNORECASE)
_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class Nameable:
    """Tries names in an open folder of the drive, which is the caller's."""

    def __init__(self, folder: int) -> None:
        self._folder = folder
        self._all: bool | None = None  # it takes all; None: not asked yet

    def holds(self, name: bytes) -> bool:
        """Whether the drive can hold a name; one that is plain is not tried."""
        if self._all or _is_plain(name):
            return True
        if self._all is None:
            self._all = self._takes(_ALL_AT_ONCE)
        return self._all or self._takes(name)

    def _takes(self, name: bytes) -> bool:
        try:
            fd = os.open(name, _NEW, 0o600, dir_fd=self._folder)
        except OSError as error:
            return error.errno not in _REFUSING  # all else will be told by whoever meets it
        os.close(fd)
        os.unlink(name, dir_fd=self._folder)
        return True


def _is_plain(name: bytes) -> bool:
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    plain = len(name) <= _SHORT and _PLAIN.fullmatch(text) is not None
    return plain and _RESERVED.fullmatch(text) is None
